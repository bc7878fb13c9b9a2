"""A conversation about real clips, written by hand: no model takes part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.session import FilmedClip, Session, SessionClip, Turn
from gpt4video_cli.used_model import UsedModel
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4, write_webm

NASTY = '<script>alert(1)</script> <img src="http://example.org/x.png"> ![a](http://example.org/y.png) </style>'
"""Whatever this becomes, it may only ever be seen."""


@pytest.fixture(scope="package")
def reader() -> Iterator[FrameReader]:
    with FrameReader() as reader:
        yield reader


def frames_of(colour: tuple[int, int, int], count: int = 12) -> np.ndarray:
    """A bar of ``colour`` that moves to the right."""
    frames = np.full((count, 64, 96, 3), 240, np.uint8)
    for t, frame in enumerate(frames):
        frame[:, 6 * t : 6 * t + 12] = colour
    return frames


def seen(reader: FrameReader, path: Path, number: int, *, alone: bool = True, frames: int = 4) -> SessionClip:
    plan = SamplingPlan(frames=frames)
    return SessionClip(number, str(path), plan, reader.read(path, plan).receipt, alone)


def turn(text: str, answer: str, *clips: SessionClip, prompts: tuple[str, ...] = (), films=()) -> Turn:  # type: ignore[no-untyped-def]
    used = UsedModel("/models/tiny", "torch", "cd" * 32)
    return Turn(text, clips, answer, answer, (1, 2), "tiny", prompts, SamplingOptions(), "stop", used, tuple(films))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One clip of each kind that a page can show, in a folder of its own."""
    write_mp4(tmp_path / "red bar.mp4", frames_of((220, 20, 20)), 10)
    write_webm(tmp_path / "green.webm", frames_of((20, 160, 20)), 10)
    write_mp4(tmp_path / "made.mp4", frames_of((20, 20, 220)), 10)
    return tmp_path


@pytest.fixture
def talk(folder: Path, reader: FrameReader) -> Session:
    """Three turns: one clip; nasty text and control sequences; a clip that was asked for and filmed."""
    red, green, made = folder / "red bar.mp4", folder / "green.webm", folder / "made.mp4"
    film = FilmedClip(str(made), fingerprint(made), "a blue bar", 3)
    return Session(
        [
            turn("What moves?\n1. the bar?", "A red bar moves to the *right*.", seen(reader, red, 1)),
            turn(NASTY, f"{NASTY}\x1b[31mred\x1b[0m \u202eabc", seen(reader, green, 2, frames=3)),
            turn("Make it blue", "Here it is.", prompts=("a blue bar",), films=[film]),
        ],
        "2026-11-22T09:15:00+00:00",
        "2026-11-22T09:20:00+00:00",
    )
