"""Clips whose writing fails: whole or not there, and what was there before stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import ExitCode, Gpt4VideoError
from gpt4video_cli.gallery import clip_file
from gpt4video_cli.gallery.clip_file import write_clip
from tests.gallery.clips import ENDINGS, decoded, film

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("nothing_left")

LIMITED = """
import json, resource, signal, sys
import numpy as np
from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.gallery.clip_file import write_clip
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
frames = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3)).astype(np.uint8)
for path, limit, force in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_clip(path, frames, 8, force=force)
        print("written")
    except Gpt4VideoError as error:
        print(error.line())
"""


def run_limited(*writes: tuple[Path, int, bool]) -> list[str]:
    """What is said about each write: a clip's path, the most bytes that a file may have, and whether to replace it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LIMITED, json.dumps([(str(path), *rest) for path, *rest in writes])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_cannot_grow(tmp_path: Path, ending: str) -> None:
    """A limit on the size of files stands for a full disk."""
    whole = write_clip(tmp_path / f"old{ending}", np.zeros((3, 64, 64, 3), np.uint8), 8)
    before = decoded(whole)
    said, forced = run_limited((tmp_path / f"a{ending}", 4000, False), (whole, 4000, True))
    assert re.fullmatch(r".*/a\S*: cannot be written: File too large; free some space there.*", said)
    assert "cannot be written" in forced
    assert os.listdir(tmp_path) == [whole.name]
    assert np.array_equal(decoded(whole), before)


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif"])
def test_a_file_that_lacks_its_last_bytes(tmp_path: Path, ending: str) -> None:
    """The limit lies just below the size that is needed."""
    target = tmp_path / f"a{ending}"
    assert run_limited((target, 10_000_000, False)) == ["written"]
    size = target.stat().st_size
    target.unlink()
    said = run_limited(*((tmp_path / f"{missing}{ending}", size - missing, False) for missing in (1, 100, 5000)))
    assert len(said) == 3 and all("cannot be written" in line for line in said)
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
