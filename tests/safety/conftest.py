"""A tiny real model, a decoder, and clips with and without what ``Red`` refuses, made once for this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.writer import write_mp4


@pytest.fixture(scope="session")
def reader() -> Iterator[FrameReader]:
    with FrameReader() as reader:
        yield reader


@pytest.fixture(scope="session")
def model(tiny_model_folder: Path) -> Any:
    from gpt4video_cli.model.checkpoint import load_model

    return load_model(tiny_model_folder, device="cpu")


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 frames of 64 x 48 with a moving square and some noise; frame 1,500 is red."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    return write_mp4(path, _long(red=1500), 25)


@pytest.fixture(scope="session")
def clean_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of the same without red."""
    path = tmp_path_factory.mktemp("clips") / "clean.mp4"
    return write_mp4(path, _long(red=None, count=25), 25)


def _long(red: int | None, count: int = 3000) -> np.ndarray:
    random = np.random.default_rng(0)
    frames = np.full((count, 48, 64, 3), 90, np.uint8)
    frames += random.integers(0, 6, frames.shape, np.uint8)
    for t, frame in enumerate(frames):
        left = (t // 4) % 48
        frame[16:32, left : left + 16] = (40, 160, 200)
    if red is not None:
        frames[red] = (255, 0, 0)
    return frames
