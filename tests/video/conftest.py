"""One decoder for all tests of this room that only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpt4video_cli.video.decode import FrameReader


@pytest.fixture(scope="session")
def reader() -> Iterator[FrameReader]:
    """A warm child process."""
    with FrameReader() as shared:
        yield shared
