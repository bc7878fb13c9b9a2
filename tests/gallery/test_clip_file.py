"""Clips on disk: right in every format, whole or not there, and never in the place of something else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from gpt4video_cli.errors import ExitCode, Gpt4VideoError, UsageError
from gpt4video_cli.gallery import clip_file, new_file
from gpt4video_cli.gallery.clip_file import Format, check_target, default_name, side_car_path, write_clip
from gpt4video_cli.gallery.clip_name import MOST_BYTES
from gpt4video_cli.gallery.container_tags import tags_of

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = [".mp4", ".gif", ".webm", ""]
TAGS = {"gpt4video": '{"prompt":"caf\\u00e9"}', "title": "café — 中文", "comment": "made here"}


def film(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3]: a red square moves right on a blue background."""
    frames = np.full((count, height, width, 3), (20, 30, 160), np.uint8)
    for t in range(count):
        frames[t, height // 4 : height // 2, 4 * t : 4 * t + width // 4] = (220, 30, 40)
    return frames


def decoded(path: Path) -> np.ndarray:
    """All frames of a clip, uint8 [T, H, W, 3]; a GIF's as they are stored."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.glob("*.png"))])
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            return np.stack([np.asarray((picture.seek(i), picture.convert("RGB"))[1]) for i in range(count)])
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def gif_seconds(path: Path) -> float:
    with Image.open(path) as picture:
        total = 0
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            total += picture.info["duration"]
    return total / 1000


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    frames = film()
    path = write_clip(tmp_path / f"a{ending}", frames, 8, metadata=TAGS)
    read = decoded(path)
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < (5 if ending in (".mp4", ".webm") else 0.01)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "h264"), (".webm", "vp9")])
@pytest.mark.parametrize("size", [(64, 48), (65, 49), (64, 49), (1, 1), (576, 320)])
@pytest.mark.parametrize("fps", [8, 23.976, 0.5])
def test_streams_are_what_players_expect(
    tmp_path: Path, ending: str, codec: str, size: tuple[int, int], fps: float
) -> None:
    width, height = size
    path = write_clip(tmp_path / f"a{ending}", film(5, height, width), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        even = (width + width % 2, height + height % 2)
        assert (stream.codec_context.name, stream.pix_fmt) == (codec, "yuv420p")
        assert (stream.width, stream.height) == even
        assert float(stream.average_rate) == pytest.approx(fps, rel=2e-3)
        assert container.duration / 1e6 == pytest.approx(5 / fps, rel=5e-3)
        assert len(list(container.decode(video=0))) == 5


@pytest.mark.parametrize(("fps", "seconds"), [(8, 1.5), (24, 0.5), (15, 0.8), (50, 0.24), (60, 0.2), (0.5, 24)])
def test_a_gif_lasts_as_long_as_the_clip(tmp_path: Path, fps: float, seconds: float) -> None:
    path = write_clip(tmp_path / "a.gif", film(), fps)
    assert gif_seconds(path) == pytest.approx(seconds, abs=0.011)
    assert decoded(path).shape[0] == (10 if fps == 60 else 12)
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0
    still = write_clip(tmp_path / "b.gif", np.zeros((12, 8, 8, 3), np.uint8), fps)
    assert gif_seconds(still) == pytest.approx(seconds, abs=0.011)


def test_a_gif_keeps_odd_sizes_and_most_of_many_colours(tmp_path: Path) -> None:
    y, x = np.mgrid[:61, :83]
    frames = np.stack([np.stack([x * 3, y * 4, x + y + t], -1) for t in range(3)]).astype(np.uint8)
    read = decoded(write_clip(tmp_path / "a.gif", frames, 8))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 12


def test_pictures_are_numbered_and_exact(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (11, 5, 7, 3)).astype(np.uint8)
    path = write_clip(f"{tmp_path}/frames/", frames, 8)
    assert sorted(os.listdir(path)) == [f"frame_{n:04}.png" for n in range(1, 12)]
    assert np.array_equal(decoded(path), frames)


@pytest.mark.parametrize("ending", ENDINGS)
def test_metadata_survives(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", film(), 8, metadata=TAGS)
    tags = {name.lower(): text for name, text in tags_of(str(path if ending else path / "frame_0001.png")).items()}
    assert {name: tags[name] for name in TAGS} == TAGS
    bare = write_clip(tmp_path / f"b{ending}", film(), 8)
    assert not set(TAGS) & set(tags_of(str(bare if ending else bare / "frame_0001.png")))


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_replaced_without_force(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", film(5), 8)
    with pytest.raises(UsageError, match=r"exists") as caught:
        write_clip(path, film(7), 8)
    assert "--force" in caught.value.line()
    assert len(decoded(path)) == 5
    write_clip(path, film(7), 8, force=True)
    assert len(decoded(path)) == 7
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, links: bool
) -> None:
    target = tmp_path / f"a{ending}"

    def late(temporary: Path, path: Path, *, force: bool) -> None:
        if ending:
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "notes.txt").write_text("mine")
        new_file.put_in_place(temporary, path, force=force)

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clip_file, "put_in_place", late)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UsageError, match="exists"):
        write_clip(target, film(), 8)
    assert (target if ending else target / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == [target.name]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert len(decoded(write_clip(tmp_path / "a.mp4", film(), 8))) == 12
    assert os.listdir(tmp_path) == ["a.mp4"]


# --- what is refused before anything is made ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", Format.MP4),
        ("a.MP4", Format.MP4),
        ("-a: b?.gif", Format.GIF),
        ("a.b.webm", Format.WEBM),
        ("frames", Format.PNG_FOLDER),
        ("v1.2/", Format.PNG_FOLDER),
        ("empty.d", Format.PNG_FOLDER),
    ],
)
def test_the_ending_decides(tmp_path: Path, name: str, kind: Format) -> None:
    (tmp_path / "empty.d").mkdir()
    before = sorted(os.listdir(tmp_path))
    assert check_target(f"{tmp_path}/{name}", force=False) is kind
    assert sorted(os.listdir(tmp_path)) == before
    assert check_target(write_clip(f"{tmp_path}/{name}", film(3), 8), force=True) is kind


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with a file, a folder with other files, a pipe, a link to nothing, and a side-car."""
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.gif")
    os.symlink("nowhere", tmp_path / "link.webm")
    (tmp_path / "told.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("a.avi", r"the ending \.avi is not known; \.mp4, \.gif and \.webm are known", ExitCode.USAGE),
        ("a.png", r"the ending \.png is not known; .*ends in / is a folder of PNG", ExitCode.USAGE),
        (".mp4", "no name before the ending", ExitCode.USAGE),
        ("a.mp4/", "may not be called", ExitCode.USAGE),
        ("folder.mp4", "may not be called", ExitCode.USAGE),
        ("none/a.mp4", "none: no such folder", ExitCode.USAGE),
        ("none/frames/", "none: no such folder", ExitCode.USAGE),
        ("notes/a.mp4", "notes: is not a folder", ExitCode.USAGE),
        ("notes/", "exists and is not a folder", ExitCode.USAGE),
        ("notes", "exists and is not a folder", ExitCode.USAGE),
        ("photos", r"other files \(me.png\)", ExitCode.USAGE),
        ("photos/..", "no name", ExitCode.USAGE),
        ("a\0.mp4", "no name", ExitCode.USAGE),
        ("x" * 300 + ".mp4", "File name too long", ExitCode.FAILED),
        ("x" * 251 + ".gif", "File name too long", ExitCode.FAILED),  # of the side-car
    ],
)
def test_bad_targets(crowded: Path, name: str, reason: str, code: ExitCode, force: bool) -> None:
    before = sorted(os.listdir(crowded))
    with pytest.raises(Gpt4VideoError, match=r"\A[^\n]*\Z") as caught:
        check_target(f"{crowded}/{name}", force=force)
    assert re.search(reason, caught.value.line())
    assert caught.value.exit_code == code
    assert sorted(os.listdir(crowded)) == before


@pytest.mark.parametrize(
    ("name", "forced"),
    [("pipe.gif", "is a pipe"), ("link.webm", None), ("told.mp4", None)],
)
def test_taken_names(crowded: Path, name: str, forced: str | None) -> None:
    with pytest.raises(UsageError, match="exists"):
        check_target(crowded / name, force=False)
    if forced is None:
        check_target(crowded / name, force=True)
    else:
        with pytest.raises(UsageError, match=forced):
            check_target(crowded / name, force=True)
    if name == "told.mp4":
        assert check_target(crowded / name, force=False, side_car=False) is Format.MP4


@pytest.mark.parametrize("name", ["", "-", " ", "..", ".", "/"])
def test_names_that_are_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for force in (False, True):
        with pytest.raises(UsageError):
            check_target(name, force=force)


def test_a_folder_that_may_not_be_written() -> None:
    """As another user, because no permission stops root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            for target in ("a.mp4", "frames/"):
                with pytest.raises(Gpt4VideoError, match="cannot be written: Permission denied") as caught:
                    check_target(f"{folder}/{target}", force=False)
                assert caught.value.exit_code == ExitCode.FAILED
        finally:
            if root:
                os.seteuid(0)
        folder.chmod(0o755)


def test_side_car_names() -> None:
    assert side_car_path("x/a.mp4") == Path("x/a.json")
    assert side_car_path("x/a.b.GIF") == Path("x/a.b.json")
    assert side_car_path("x/frames/") == Path("x/frames/clip.json")
    assert side_car_path("x/v1.2") == Path("x/v1.2/clip.json")


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (film()[:0], 8),
        (film().astype(np.float32), 8),
        (film()[0], 8),
        (film()[..., :1], 8),
        (film(), 0),
        (film(), float("nan")),
        (film(), float("inf")),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_wrong_frames_are_refused(tmp_path: Path, frames: np.ndarray, fps: float, ending: str) -> None:
    with pytest.raises(ValueError):
        write_clip(tmp_path / f"a{ending}", frames, fps)
    assert os.listdir(tmp_path) == []


# --- failures while writing --------------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
import numpy as np
from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.gallery.clip_file import write_clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
frames = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_clip(sys.argv[1], frames, 8, force=len(sys.argv) > 3)
except Gpt4VideoError as error:
    print(error.line())
"""


def run_limited(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIMITED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_cannot_grow(tmp_path: Path, ending: str) -> None:
    """A limit on the size of files stands for a full disk; also just below the size that is needed."""
    whole = write_clip(tmp_path / f"old{ending}", np.zeros((3, 64, 64, 3), np.uint8), 8)
    before = decoded(whole)
    said = run_limited(str(tmp_path / f"a{ending}"), "4000")
    assert re.fullmatch(r".*/a\S*: cannot be written: File too large; free some space there.*\n", said)
    said = run_limited(str(whole), "4000", "force")
    assert "cannot be written" in said
    assert os.listdir(tmp_path) == [whole.name]
    assert np.array_equal(decoded(whole), before)


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif"])
def test_a_file_that_lacks_its_last_bytes(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"a{ending}"
    assert run_limited(str(target), "10000000") == ""
    size = target.stat().st_size
    target.unlink()
    for missing in (1, 100, 5000):
        assert "cannot be written" in run_limited(str(target), str(size - missing))
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk(tmp_path: Path, ending: str) -> None:
    """On a file system of 16 KiB, where this may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        frames = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3)).astype(np.uint8)
        with pytest.raises(Gpt4VideoError, match="cannot be written: No space left on device") as caught:
            write_clip(disk / f"a{ending}", frames, 8)
        assert caught.value.exit_code == ExitCode.FAILED
        assert "free some space" in caught.value.line()
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(5, "Input/output error")])
def test_a_failure_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, error: BaseException
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(clip_file, "put_in_place", fails)
    with pytest.raises(Gpt4VideoError if isinstance(error, OSError) else type(error)):
        write_clip(tmp_path / f"a{ending}", film(), 8)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "frames", film(3), 8)
    rename, calls = os.rename, []

    def fails_once(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 3:  # after the failed first try and after the old folder was put aside
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    with pytest.raises(Gpt4VideoError, match="Input/output"):
        write_clip(path, film(7), 8, force=True)
    monkeypatch.undo()
    assert len(decoded(path)) == 3 and os.listdir(tmp_path) == ["frames"]


KILLED = """
import sys
import numpy as np
from gpt4video_cli.gallery.clip_file import write_clip
frames = np.random.default_rng(0).integers(0, 256, (40, 320, 320, 3)).astype(np.uint8)
while True:
    write_clip(sys.argv[1], frames, 8, force=True)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_killed_run_leaves_the_old_clip_or_the_new_one(tmp_path: Path, ending: str) -> None:
    target = write_clip(tmp_path / f"a{ending}", film(3), 8)
    command = [sys.executable, "-c", KILLED, str(target)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as writer:
        while not any(name.endswith(".part") for name in os.listdir(tmp_path)):
            time.sleep(0.005)
        time.sleep(0.1)
        writer.kill()
    assert len(decoded(target)) in (3, 40)
    for rest in tmp_path.glob(".*.part"):
        shutil.rmtree(rest) if rest.is_dir() else rest.unlink()


# --- names -------------------------------------------------------------------------------------------------------

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
NASTY = st.sampled_from(
    ["../", "..", "/", "\\", "\0", "\n", "\x1b[2J", "-rf", "--force", ".hidden", "~", "$HOME", "`id`", "*", "?", '"']
    + ["con", "NUL", "com¹", "lpt1.mp4", "a red circle", " ", "\u202e", "\ud800", "İ", "ﷺ", "e\u0301", "\u0301", "ß"]
    + ["中文", "จิต", "🎬", "CLIP:", "<video>", "a" * 300, "é" * 200, "\u0345\u0345", ".", "｡／．"]
)
PROMPTS = st.lists(NASTY | st.text(max_size=20), max_size=30).map(" ".join) | st.text(max_size=4000)


@pytest.fixture(scope="module")
def names_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(max_examples=500, deadline=None)
@given(prompt=PROMPTS | NASTY, seed=st.integers(0, 2**64 - 1), ending=st.sampled_from(ENDINGS))
@example(prompt="x " * 2000, seed=0, ending=".mp4")
def test_names_are_safe_whatever_the_prompt_says(names_folder: Path, prompt: str, seed: int, ending: str) -> None:
    path = default_name(prompt, seed, names_folder, ending)
    name = path.name
    assert path.parent == names_folder
    assert re.fullmatch(rf"\w[\w\u0300-\U0001ffff-]*-{seed}{re.escape(ending)}", name)
    assert not re.search(r"[\s/\\.:*?\"<>|\x00-\x1f\x7f-\x9f\u200e-\u202e\u2066-\u2069]", name.removesuffix(ending))
    assert len(name.encode("utf-8")) <= MOST_BYTES + 1 + 20 + 5
    assert not RESERVED.match(name)
    assert name.lower() == name
    assert default_name(prompt, seed, names_folder, ending) == path


@settings(max_examples=60, deadline=None)
@given(prompt=PROMPTS)
def test_a_name_can_be_made(names_folder: Path, prompt: str) -> None:
    first = default_name(prompt, 1, names_folder)
    first.touch(exist_ok=False)
    second = default_name(prompt, 1, names_folder)
    assert second != first and not second.exists()
    first.unlink()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, moving left!", "a-red-circle-moving-left-7.mp4"),
        ("one two three four five six seven", "one-two-three-four-five-six-7.mp4"),
        ("", "clip-7.mp4"),
        ("../../etc/passwd", "etc-passwd-7.mp4"),
        ("ＣＯＭ¹", "com1-7.mp4"),
        ("Ein Café in Zürich", "ein-café-in-zürich-7.mp4"),
        ("猫が走る", "猫が走る-7.mp4"),
        ("a" * 100, "a" * 48 + "-7.mp4"),
        ("short " + "é" * 100, "short-7.mp4"),
        ("\u0301 \u0301x", "x-7.mp4"),
    ],
)
def test_examples_of_names(tmp_path: Path, prompt: str, name: str) -> None:
    assert default_name(prompt, 7, tmp_path).name == name


def test_a_side_car_takes_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "cat-7.json").touch()
    os.symlink("nowhere", tmp_path / "cat-7-2.mp4")
    assert default_name("cat", 7, tmp_path).name == "cat-7-3.mp4"
    assert default_name("cat", 7, tmp_path, "").name == "cat-7-2"


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No test leaves a temporary file."""
    yield
    assert [name for name in os.listdir(tmp_path) if name.startswith(".gpt4video")] == []
