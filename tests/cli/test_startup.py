"""Clips are read while other things load; nothing about the result changes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.cli.startup import EarlyReader
from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan

PLAN = SamplingPlan(frames=3)


def test_a_clip_begun_early_is_the_same_clip(clip: Path) -> None:
    with EarlyReader() as reader:
        early = reader.begin(clip, PLAN, min_side=32)
        assert reader.begin(clip, PLAN, min_side=32) is early
        first = reader.read(clip, PLAN, min_side=32)
        assert early.result() is first
        assert reader.read(clip, PLAN, min_side=32) is not first  # given once, then read anew
        assert reader.seconds > 0
    direct = read_clip(clip, PLAN, min_side=32)
    assert np.array_equal(first.frames, direct.frames)
    assert first.receipt == direct.receipt


def test_other_arguments_are_another_clip(clip: Path) -> None:
    with EarlyReader() as reader:
        reader.begin(clip, PLAN, min_side=32)
        assert len(reader.read(clip, SamplingPlan(frames=5), min_side=32).frames) == 5


def test_a_failure_is_raised_when_it_is_known(text_clip: Path) -> None:
    with EarlyReader() as reader:
        early = reader.begin(text_clip, PLAN, min_side=32)
        early.exception()
        with pytest.raises(ClipError, match="is text"):
            reader.raise_failures()
        with pytest.raises(ClipError, match="is text"):
            reader.read(text_clip, PLAN, min_side=32)
        reader.raise_failures()


def test_the_time_limit_of_the_command_line_holds(clip: Path) -> None:
    with EarlyReader(limit=0.001) as reader:
        with pytest.raises(ClipError, match=r"0\.001 s"):
            reader.read(clip, PLAN, min_side=32)


def test_closing_does_not_wait_for_a_clip(clip: Path) -> None:
    """The decoder is replaced by a program that never answers."""
    reader = EarlyReader(limit=30)
    reader._command = ("sleep", "60")
    early = reader.begin(clip, PLAN, min_side=32)
    while reader.pid is None:
        time.sleep(0.01)
    start = time.perf_counter()
    reader.close()
    assert time.perf_counter() - start < 5
    assert isinstance(early.exception(5), ClipError)
