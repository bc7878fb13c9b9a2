"""The folder of kept clips: what is found again, what is not, and what happens when disks and processes misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.byte_size import read_size
from gpt4video_cli.clip_cache import LIMIT, LIMIT_VARIABLE, ClipCache
from gpt4video_cli.clip_memory import SeenClip, clip_key
from gpt4video_cli.errors import UsageError
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sampling import HURRIED, SamplingPlan, SamplingReceipt

PLAN = SamplingPlan(frames=4)
ENCODER = "e" * 64
ROOT = Path(__file__).resolve().parents[2]


def receipt_of(path: Path, **changes: object) -> SamplingReceipt:
    moments = (0.25, 0.75)
    receipt = SamplingReceipt(str(path), fingerprint(path), 1.0, "exact", moments, moments, 0.5, 96, 64, 0.0, 1.0)
    return replace(receipt, **changes)  # type: ignore[arg-type]


def seen_clip(path: Path, plan: SamplingPlan = PLAN, *, rows: int = 4, **changes: object) -> SeenClip:
    receipt = receipt_of(path, **changes)
    embeddings = np.random.default_rng(0).standard_normal((rows, 8), np.float32)
    return SeenClip(clip_key(receipt.sha256, plan), receipt, embeddings)


def keep(cache: ClipCache, path: Path, plan: SamplingPlan = PLAN, **changes: object) -> SeenClip:
    seen = seen_clip(path, plan, **changes)
    cache.keep(seen, plan, encoder=ENCODER, model="random")
    return seen


def write_clip(folder: Path, content: bytes = b"not looked into", name: str = "clip.mp4") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> ClipCache:
    return ClipCache(tmp_path / "clips", 10_000_000)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path)


def only_file(cache: ClipCache) -> Path:
    (file,) = cache.folder.iterdir()
    return file


def test_what_was_kept_is_found_bit_for_bit(cache: ClipCache, clip: Path) -> None:
    assert not cache.may_have(clip) and cache.find(str(clip), PLAN, ENCODER) is None
    kept = keep(cache, clip)
    assert cache.may_have(clip)
    found = cache.find(str(clip), PLAN, ENCODER)
    assert found is not None
    assert (found.key, found.receipt) == (kept.key, kept.receipt)
    assert found.embeddings.dtype == np.float32 and found.embeddings.tobytes() == kept.embeddings.tobytes()
    assert found.embeddings.flags.writeable  # torch warns of arrays that are not


def test_another_content_plan_or_encoder_is_another_clip(cache: ClipCache, clip: Path) -> None:
    keep(cache, clip)
    assert cache.find(str(clip), SamplingPlan(frames=5), ENCODER) is None
    assert cache.find(str(clip), SamplingPlan(frames=4, start=0.5), ENCODER) is None
    assert cache.find(str(clip), PLAN, "f" * 64) is None
    content = clip.read_bytes()
    clip.write_bytes(content.swapcase())  # of the same size
    assert cache.may_have(clip) and cache.find(str(clip), PLAN, ENCODER) is None
    clip.write_bytes(content + b"!")
    assert not cache.may_have(clip)


def test_a_copy_is_the_same_clip_and_its_place_is_remembered(cache: ClipCache, clip: Path, tmp_path: Path) -> None:
    kept = keep(cache, clip)
    copy = write_clip(tmp_path, clip.read_bytes(), "copy.mp4")
    found = cache.find(str(copy), PLAN, ENCODER)
    assert found is not None and found.receipt == replace(kept.receipt, path=str(copy))
    assert [entry.path for entry in cache.clips()] == [str(copy)]
    again = cache.find(str(clip), PLAN, ENCODER)
    assert again is not None and again.embeddings.tobytes() == kept.embeddings.tobytes()


def test_a_relative_path_is_shown_whole(cache: ClipCache, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    keep(cache, Path(clip.name))
    found = cache.find(clip.name, PLAN, ENCODER)
    assert found is not None and found.receipt.path == clip.name
    (entry,) = cache.clips()
    assert (entry.path, entry.model, entry.frames) == (str(clip), "random", 2)
    assert entry.bytes == entry.file.stat().st_size


def damaged_files(good: bytes) -> Iterator[tuple[str, bytes]]:
    length = int.from_bytes(good[:8], "little")
    header = good[8 : 8 + length]
    yield "empty", b""
    yield "cut short", good[:-7]
    yield "another kind of file", b"<html>" * 40
    yield "a flipped bit in the embeddings", good[:-1] + bytes([good[-1] ^ 1])
    yield "a flipped digit in the receipt", good[:8] + header.replace(b"0.25", b"0.35") + good[8 + length :]
    yield "another version", good[:8] + header.replace(rb"\"version\": 1", rb"\"version\": 7") + good[8 + length :]
    yield "no metadata", good[:8] + header.replace(b"gpt4video.clip", b"somebody.elses") + good[8 + length :]


@pytest.mark.parametrize("case", range(7))
def test_a_damaged_file_is_absent_and_goes(cache: ClipCache, clip: Path, case: int) -> None:
    keep(cache, clip)
    file = only_file(cache)
    good = file.read_bytes()
    name, bad = list(damaged_files(good))[case]
    assert bad != good, name
    file.write_bytes(bad)
    assert cache.find(str(clip), PLAN, ENCODER) is None, name
    assert not file.exists()
    kept = keep(cache, clip)
    found = cache.find(str(clip), PLAN, ENCODER)
    assert found is not None and found.receipt == kept.receipt


def test_a_list_drops_what_cannot_be_read(cache: ClipCache, clip: Path) -> None:
    keep(cache, clip)
    only_file(cache).write_bytes(b"x" * 100)
    assert cache.clips() == [] and list(cache.folder.iterdir()) == []


def test_another_entry_under_the_right_name_is_not_believed(cache: ClipCache, clip: Path, tmp_path: Path) -> None:
    keep(cache, clip)
    ours = only_file(cache)
    other = ClipCache(tmp_path / "other", 10_000_000)
    keep(other, write_clip(tmp_path, b"NOT LOOKED INTO", "other.mp4"))
    os.replace(only_file(other), ours)
    assert cache.find(str(clip), PLAN, ENCODER) is None


def test_the_least_recently_used_go_first(cache: ClipCache, tmp_path: Path) -> None:
    paths = [write_clip(tmp_path, bytes([i]) * (10 + i), f"{i}.mp4") for i in range(4)]
    for age, path in zip((400, 300, 200), paths, strict=False):
        keep(cache, path)
        for file in cache.folder.glob(f"{path.stat().st_size}-*"):
            os.utime(file, (time.time() - age,) * 2)
    size = cache.clips()[0].bytes
    assert cache.find(str(paths[0]), PLAN, ENCODER) is not None  # used just now, though it is the oldest
    small = ClipCache(cache.folder, 3 * size + size // 2)
    keep(small, paths[3])
    assert [Path(entry.path).name for entry in small.clips()] == ["3.mp4", "0.mp4", "2.mp4"]
    assert small.prune(older_than=100) == (1, size)
    assert small.prune(limit=size) == (1, size)
    assert [Path(entry.path).name for entry in small.clips()] == ["3.mp4"]
    assert small.clear() == (1, size) and small.clips() == []


def test_what_does_not_fit_or_is_not_sure_is_not_kept(tmp_path: Path, clip: Path) -> None:
    for limit, changes in ((0, {}), (100, {}), (LIMIT, {"notes": (f"{HURRIED}: 1 of 2 frames",)})):
        cache = ClipCache(tmp_path / f"clips{limit}", limit)
        keep(cache, clip, **changes)  # type: ignore[arg-type]
        assert cache.clips() == []
    seen = seen_clip(clip)
    cache.keep(seen, PLAN, encoder="", model="random")
    clip.unlink()
    cache.keep(seen, PLAN, encoder=ENCODER, model="random")
    assert cache.clips() == []


def test_what_a_killed_run_left_goes_in_time(cache: ClipCache, clip: Path) -> None:
    keep(cache, clip)
    old, new = cache.folder / ".12-ab.safetensors.77.tmp", cache.folder / ".12-ab.safetensors.78.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.prune()
    assert not old.exists()
    cache.clear()
    assert new.exists()  # another process may be writing it


def test_only_regular_files_are_opened(cache: ClipCache, tmp_path: Path) -> None:
    keep(cache, write_clip(tmp_path, b"", "empty.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")  # of size 0 as well; opening it would wait for ever
    assert cache.find(str(tmp_path / "pipe.mp4"), PLAN, ENCODER) is None
    assert cache.find(str(tmp_path), PLAN, ENCODER) is None
    assert cache.find(str(tmp_path / "missing.mp4"), PLAN, ENCODER) is None
    assert cache.find("null\0byte", PLAN, ENCODER) is None
    assert cache.find(str(tmp_path / "empty.mp4"), PLAN, ENCODER) is not None


def test_a_clip_that_cannot_be_hashed_is_absent(cache: ClipCache, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: object) -> str:
        raise PermissionError(13, "Permission denied")

    keep(cache, clip)
    monkeypatch.setattr("gpt4video_cli.clip_cache.fingerprint", unreadable)
    assert cache.find(str(clip), PLAN, ENCODER) is None


def test_a_folder_that_cannot_be_written_to_still_gives(cache: ClipCache, clip: Path, tmp_path: Path) -> None:
    keep(cache, clip)
    copy = write_clip(tmp_path, clip.read_bytes(), "copy.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt4video_cli.clip_cache.whole_file", _no_room)
        patch.setattr(os, "utime", _no_room)
        assert cache.find(str(copy), PLAN, ENCODER) is not None
        with pytest.raises(OSError, match="No space"):
            keep(cache, write_clip(tmp_path, b"new", "new.mp4"))
    assert len(cache.clips()) == 1


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2G", 2_000_000_000), ("0", 0), (" 12 ", 12), ("7kb", 7000)],
)
def test_sizes(text: str, size: int) -> None:
    assert read_size(text, "--max-size") == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1 GB or so", "1e9", "5 bananas"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--max-size"):
        read_size(text, "--max-size")


def test_the_environment_sets_the_limit(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ClipCache().limit, ClipCache().folder) == (LIMIT, own_home / "clips")
    monkeypatch.setenv(LIMIT_VARIABLE, "20MB")
    assert ClipCache().limit == 20_000_000
    monkeypatch.setenv(LIMIT_VARIABLE, "plenty")
    with pytest.raises(UsageError, match=LIMIT_VARIABLE):
        ClipCache()


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Three processes keep, find, list, prune and clear the same clips; nobody fails or reads half a file."""
    for i in range(6):
        write_clip(tmp_path, bytes([i]) * (20 + i), f"{i}.mp4")
    code = (
        "import random, sys\n"
        "from pathlib import Path\n"
        "from test_clip_cache import ClipCache, ENCODER, PLAN, keep, seen_clip\n"
        "folder, seed = Path(sys.argv[1]), int(sys.argv[2])\n"
        "dice, found = random.Random(seed), 0\n"
        "cache = ClipCache(folder / 'clips', 5000)\n"
        "for step in range(150):\n"
        "    path = folder / f'{dice.randrange(6)}.mp4'\n"
        "    seen = cache.find(str(path), PLAN, ENCODER)\n"
        "    if seen is None:\n"
        "        keep(cache, path)\n"
        "    else:\n"
        "        assert seen.embeddings.tobytes() == seen_clip(path).embeddings.tobytes()\n"
        "        found += 1\n"
        "    cache.clips() if step % 20 == 0 else None\n"
        "    cache.clear() if step % 50 == 49 else None\n"
        "print(found)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT), str(ROOT / "kernels")])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(seed)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    for process in running:
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        assert int(output) > 20
    left = ClipCache(tmp_path / "clips", 5000)
    assert sum(entry.bytes for entry in left.clips()) <= 5000 and not list(left.folder.glob(".*.tmp"))


def test_what_others_may_not_read(cache: ClipCache, clip: Path) -> None:
    keep(cache, clip)
    assert cache.folder.stat().st_mode & 0o077 == 0


def test_the_metadata_is_what_other_tools_read(cache: ClipCache, clip: Path) -> None:
    from safetensors import safe_open

    keep(cache, clip)
    with safe_open(only_file(cache), framework="np") as opened:
        content = json.loads(opened.metadata()["gpt4video.clip"])
        assert list(opened.keys()) == ["embeddings"]
    assert content["version"] == 1 and content["receipt"]["path"] == str(clip) and content["plan"]["frames"] == 4
