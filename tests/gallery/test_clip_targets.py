"""Where a clip may be written: what is refused before anything is made."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import ExitCode, Gpt4VideoError, UsageError
from gpt4video_cli.gallery.clip_file import Format, check_target, side_car_path, write_clip
from tests.gallery.clips import ENDINGS, film

pytestmark = pytest.mark.usefixtures("nothing_left")


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
