"""Paths as terminals, file managers and people write them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.cli import typed_paths
from gpt4video_cli.cli.typed_paths import dropped_files, local_path, split_paths
from gpt4video_cli.errors import UsageError


@given(st.lists(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs", "Cc"]), min_size=1)))
def test_quoted_paths_come_back(names: list[str]) -> None:
    paths = [f"/no/such/folder/{name}" for name in names]
    if any(" --" in path or typed_paths._HAS_WINDOWS.search(path) for path in paths):
        return
    assert split_paths(" ".join(map(shlex.quote, paths))) == (paths, [])


def test_paths_as_terminals_drop_them(tmp_path: Path) -> None:
    clip = tmp_path / "my clip.mp4"
    clip.touch()
    backslashed = str(clip).replace(" ", "\\ ")
    for typed in (f"'{clip}'", f'"{clip}"', backslashed, f"file://{clip}".replace(" ", "%20"), str(clip)):
        assert split_paths(typed) == ([str(clip)], [])
        assert split_paths(f"{typed} --frames 3") == ([str(clip)], ["--frames", "3"])
        assert dropped_files(f"{typed} ") == [str(clip)]
    assert dropped_files(f"what is in {clip}?") == []
    assert dropped_files(str(tmp_path / "missing.mp4")) == []


def test_a_path_with_dashes_inside(tmp_path: Path) -> None:
    clip = tmp_path / "a --frames 3.mp4"
    clip.touch()
    assert split_paths(str(clip)) == ([str(clip)], [])


def test_several_files_at_once(tmp_path: Path) -> None:
    clips = [str(tmp_path / name) for name in ("a b.mp4", "it's.mp4", "#1?.mp4")]
    for clip in clips:
        Path(clip).touch()
    urls = [f"file://{clip}".replace(" ", "%20") for clip in clips]
    assert dropped_files(" ".join(map(shlex.quote, clips))) == clips
    assert dropped_files("\n".join(clips)) == clips
    assert dropped_files("\r\n".join(urls) + "\r\n") == clips
    assert dropped_files("\n".join([*clips, "and what is that?"])) == []


def test_typographic_quotes(tmp_path: Path) -> None:
    clip = tmp_path / "my clip.mp4"
    clip.touch()
    for typed in (f"“{clip}”", f"‘{clip}’", f"„{clip}“"):
        assert dropped_files(typed) == [str(clip)]
    quoted = tmp_path / "“quoted”.mp4"
    quoted.touch()
    assert dropped_files(str(quoted)) == [str(quoted)]


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is C:\\clips in the Windows Subsystem for Linux."""
    monkeypatch.setattr(typed_paths, "WINDOWS_DRIVES", str(tmp_path))
    folder = tmp_path / "c" / "clips"
    folder.mkdir(parents=True)
    (folder / "my clip.mp4").touch()
    (folder / "new.mp4").touch()
    return folder


@pytest.mark.parametrize(
    "typed",
    [
        r"C:\clips\my clip.mp4",
        r'"C:\clips\my clip.mp4"',
        r"'c:\clips\my clip.mp4'",
        r"& 'C:\clips\my clip.mp4'",
        "C:/clips/my clip.mp4",
        "file:///C:/clips/my%20clip.mp4",
        r"“C:\clips\my clip.mp4”",
    ],
)
def test_windows_paths_where_windows_is_the_host(typed: str, drive: Path) -> None:
    assert dropped_files(typed) == [str(drive / "my clip.mp4")]
    assert split_paths(f"{typed} --frames 3") == ([str(drive / "my clip.mp4")], ["--frames", "3"])


def test_windows_paths_keep_their_backslashes(drive: Path, tmp_path: Path) -> None:
    clips = [str(drive / name) for name in ("my clip.mp4", "new.mp4")]
    assert dropped_files(r'"C:\clips\my clip.mp4" C:\clips\new.mp4') == clips
    assert split_paths(r"C:\clips\none.mp4 --end 3") == ([r"C:\clips\none.mp4"], ["--end", "3"])
    far = "D:\\it's here\\a.mp4"
    assert split_paths(f'"{far}" \\\\host\\share\\b.mp4') == ([far, r"\\host\share\b.mp4"], [])
    assert dropped_files(r"C:\clips\new.mp4 is what?") == []
    with pytest.raises(UsageError, match="quote"):
        split_paths(r'"C:\clips\new.mp4')
    own = tmp_path / "a b.mp4"
    own.touch()
    for host in (r"\\wsl$\Ubuntu", r"\\wsl.localhost\Debian"):
        assert local_path(host + str(own).replace("/", "\\")) == str(own)


def test_a_long_text_is_no_path() -> None:
    """Also one that begins like a path, and whose words are longer than a file's name can be."""
    for text in ("/" + "x" * 5000, "/usr " * 3000, "C:\\" + "x" * 5000, "file:///" + "%20" * 5000, "'/a" + "b'" * 999):
        assert dropped_files(text) == []
