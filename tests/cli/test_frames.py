"""``gpt4video frames``: a sheet as a file, times as text, nothing replaced by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode


def test_a_sheet_is_written_once(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    command = ["frames", str(clip), "-o", str(sheet), "--frames", "5", "--columns", "3", "--width", "96"]
    assert run(command) == 0
    assert capsys.readouterr().out == f"{sheet}\n"
    with Image.open(sheet) as picture:
        assert (picture.format, picture.size) == ("PNG", (8 + 3 * 104, 8 + 22 + 2 * (64 + 22 + 8)))
    before = sheet.read_bytes()
    assert run([*command, "--width", "60"]) == ExitCode.USAGE
    assert "exists; --force replaces it" in capsys.readouterr().err
    assert sheet.read_bytes() == before
    assert run([*command, "--width", "60", "--force"]) == 0
    assert sheet.read_bytes() != before and [file.name for file in tmp_path.iterdir()] == [sheet.name]


def test_the_ending_decides(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.JPG"
    assert run(["frames", str(clip), "-o", str(sheet), "--at", "0.5,1.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sheet"] == str(sheet) and told["receipt"]["seen"] == [0.5, 1.5]
    with Image.open(sheet) as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "sheet.gif"], "must end in .jpeg or .jpg or .png"),
        (["-o", "none/sheet.png"], "none: no such folder"),
        (["--columns", "0"], "--columns is 0"),
        (["--width", "10"], "--width is 10; it must be between 48"),
        (["--frames", "3", "--at", "1"], "contradict"),
    ],
)
def test_wrong_options_are_told(
    clip: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["frames", str(clip), *options]) == ExitCode.USAGE
    assert reason in capsys.readouterr().err


def test_without_a_file_the_times_are_told(clip: Path, text_clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["frames", str(clip), "--frames", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{clip}: 2 frames of 2.00 s at 0.50 1.50 s (exact)") and err == ""
    assert run(["frames", str(text_clip)]) == ExitCode.INPUT
    assert capsys.readouterr().err == f"error: {text_clip}: is text, not a video\n"
