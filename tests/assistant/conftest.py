"""A tiny random model, a decoder and three short clips, made once for this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.model.checkpoint import load_model
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.writer import write_mp4


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("model"), context_length=1024)


@pytest.fixture(scope="package")
def reader() -> Iterator[FrameReader]:
    with FrameReader() as reader:
        yield reader


@pytest.fixture(scope="package")
def model(folder: Path) -> Any:
    return load_model(folder, device="cpu")


@pytest.fixture
def assistant(model: Any, reader: FrameReader) -> Assistant:
    """With an empty memory of clips, whatever other tests saw."""
    return Assistant(model, reader)


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory, reader: FrameReader) -> Assistant:
    """An assistant with a context of 160 tokens."""
    folder = write_random_model(tmp_path_factory.mktemp("small"), context_length=160)
    return Assistant(load_model(folder, device="cpu"), reader)


@pytest.fixture(scope="package")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three clips of one second: a bright square moves right, down, and stands still."""
    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number, (right, down) in enumerate([(4, 0), (0, 4), (0, 0)]):
        frames = np.full((10, 48, 48, 3), 30 * number, np.uint8)
        for t, frame in enumerate(frames):
            frame[down * t : down * t + 8, right * t : right * t + 8] = (250, 200, 40 * number)
        paths.append(str(write_mp4(folder / f"clip{number}.mp4", frames, 10)))
    return paths
