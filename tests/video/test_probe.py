"""What probe says of real files, and the command's two forms."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4video_cli.cli.app import run
from gpt4video_cli.video.clip_info import ClipInfo
from gpt4video_cli.video.decode import FrameReader, read_clip
from gpt4video_cli.video.probe import inspect, probe_clip
from gpt4video_cli.video.sampling import SamplingPlan
from tests.video.films import numbered, write_video


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "a.mp4",
            {"sound": True},
            {"codec": "h264", "pixel_format": "yuv420p", "bit_depth": 8, "frames": 30, "frames_claimed": 30},
        ),
        ("a.mkv", {"pixels": "yuv420p10le"}, {"pixel_format": "yuv420p10le", "bit_depth": 10, "frames_claimed": None}),
        ("a.webm", {"codec": "libvpx"}, {"codec": "vp8", "frames": 30, "duration_claimed": 3.0}),
        (
            "live.webm",
            {"codec": "libvpx", "container_options": {"live": "1"}},
            {"frames": 30, "duration_claimed": None, "duration": 3.0},
        ),
        ("a.h264", {"container": "h264"}, {"frames": 30, "duration": 3.0, "duration_claimed": None, "rate": None}),
        ("a.mp4", {"rotation": (-90, False)}, {"width": 64, "height": 96, "coded_width": 96, "rotation": 90}),
        ("a.mp4", {"rotation": (180, False)}, {"width": 96, "height": 64, "rotation": 180, "mirrored": False}),
        ("a.mp4", {"rotation": (0, True)}, {"width": 96, "rotation": 0, "mirrored": True}),
        ("a.mp4", {"pixel_aspect": Fraction(4, 3)}, {"width": 128, "coded_width": 96}),
        ("a.gif", {"codec": "gif", "pixels": "rgb8"}, {"kind": "animation", "codec": "gif", "rate": "constant"}),
        ("a.mp4", {"options": {"g": "10", "sc_threshold": "0"}}, {"keyframes": 3, "fps": 10.0, "fps_claimed": 10.0}),
        ("a.mkv", {"fps": Fraction(30000, 1001)}, {"rate": "constant"}),
        (
            "a.mp4",
            {"ticks": [i * 100 + (i % 3) * 20 for i in range(30)], "time_base": Fraction(1, 1000)},
            {"rate": "variable", "frames": 30},
        ),
    ],
)
def test_facts(tmp_path: Path, name: str, options: dict, expected: dict) -> None:
    path = write_video(tmp_path / name, **options)
    info = inspect(str(path))
    facts = info.as_dict()
    for key, value in expected.items():
        assert facts[key] == (pytest.approx(value, abs=0.005) if isinstance(value, float) else value), key
    assert info.damage == () and info.counted
    assert info.checked == pytest.approx(info.duration, abs=0.11)
    assert (info.sound is not None) == options.get("sound", False)
    # What probe says and what sampling uses are the same length and size.
    receipt = read_clip(path, SamplingPlan(frames=1)).receipt
    assert receipt.duration == pytest.approx(info.duration, abs=1e-3)
    assert (receipt.width, receipt.height) == (info.width, info.height)
    assert ClipInfo.from_dict(json.loads(json.dumps(facts))) == info


def test_sound(tmp_path: Path, reader: FrameReader) -> None:
    info = probe_clip(write_video(tmp_path / "a.mp4", sound=True), reader=reader)
    assert info.sound is not None
    assert (info.sound.codec, info.sound.channels, info.sound.rate) == ("aac", 1, 16000)
    assert ("sound", "aac, 1 channel, 16000 Hz") in info.lines()


def test_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(numbered(1)).save(tmp_path / "a.jpg", exif=exif)
    info = inspect(str(tmp_path / "a.jpg"))
    assert (info.kind, info.codec, info.width, info.height, info.coded_width) == ("still image", "jpeg", 64, 96, 96)
    assert info.rotation == 90 and not info.mirrored and info.frames == 1
    Image.fromarray((np.ones((4, 4)) * 9).astype(np.uint16)).save(tmp_path / "a.png")
    assert inspect(str(tmp_path / "a.png")).bit_depth == 16


def test_a_long_file_is_not_counted_for_ever(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=600, fps=60)
    info = inspect(str(path), budget=0)
    assert not info.counted and info.frames == 256
    assert info.duration == pytest.approx(10) and info.fps == pytest.approx(60, rel=0.02)
    assert dict(info.lines())["frames"].startswith("at least 256")
    assert info.damage == (), "what was not read is not called missing"


def test_the_command_prints_lines_or_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a\x1b[31mb.mp4", rotation=(-90, False))
    assert run(["probe", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "64x96 shown, 96x64 stored (turned 90 degrees clockwise)" in out and "none found (all of it decoded)" in out
    assert "\x1b" not in out and err == ""
    assert run(["probe", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == str(path) and out.count("\n") == 1 and err == ""


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["probe", str(tmp_path / "none.mp4")]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err == f"error: {tmp_path}/none.mp4: no such file\n"
