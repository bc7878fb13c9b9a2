"""Clips that every player opens, written whole."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.probe import inspect
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4
from tests.video.films import number_of, numbered

FRAMES = np.stack([numbered(i) for i in range(12)])


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_written_is_read_back(tmp_path: Path, threads: int) -> None:
    path = write_mp4(tmp_path / "a.mp4", FRAMES, 8, crf=10, threads=threads)
    clip = read_clip(path, SamplingPlan(frames=12))
    assert [number_of(f) for f in clip.frames] == list(range(12))
    assert np.abs(clip.frames[3].astype(int) - FRAMES[3]).mean() < 2
    info = inspect(str(path))
    assert (info.codec, info.pixel_format, info.frames, info.rate) == ("h264", "yuv420p", 12, "constant")
    assert info.duration == pytest.approx(1.5) and info.fps == pytest.approx(8)
    with open(path, "rb") as file:
        assert file.read(4096).find(b"moov") > 0, "the index comes first, so that a browser can start at once"


def test_frames_may_come_one_by_one(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from FRAMES

    path = write_mp4(tmp_path / "a.mp4", frames(), 8)
    assert np.array_equal(
        read_clip(path, SamplingPlan()).frames,
        read_clip(write_mp4(tmp_path / "b.mp4", FRAMES, 8), SamplingPlan()).frames,
    )


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 30000 / 1001, 12.5, 1, Fraction(1, 2)])
def test_fractions_of_a_rate(tmp_path: Path, fps: Fraction | float) -> None:
    info = inspect(str(write_mp4(tmp_path / "a.mp4", FRAMES, fps)))
    assert info.duration == pytest.approx(12 / float(fps), rel=1e-3)


@pytest.mark.parametrize("size", [(97, 65), (96, 65), (97, 64), (1, 1)])
def test_odd_sizes_gain_a_copy_of_the_last_row_or_column(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, 1, 3)).repeat(height, 1).repeat(width, 2).astype(np.uint8)
    clip = read_clip(write_mp4(tmp_path / "a.mp4", frames, 8, crf=1), SamplingPlan(at=(0,)))
    assert clip.frames.shape == (1, height + height % 2, width + width % 2, 3)
    assert np.abs(clip.frames[0, -1, -1].astype(int) - frames[0, -1, -1]).max() <= 6


def fill_heap(rng: np.random.Generator) -> None:
    """Leave small numbers in memory that is free again, as a process does that has done other things before."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    blocks = []
    for exponent in rng.uniform(10, 17, 60):
        content = rng.integers(-40, 40, int(2**exponent) // 2, dtype=np.int16)
        blocks.append(libc.malloc(content.nbytes))
        ctypes.memmove(blocks[-1], content.ctypes.data, content.nbytes)
    for number in rng.permutation(len(blocks)):
        libc.free(blocks[number])


def test_the_same_small_frames_become_the_same_file_whatever_was_in_memory(tmp_path: Path) -> None:
    """With x264's macroblock tree 1 of 30 differs."""
    rng = np.random.default_rng(7)
    frames = rng.integers(60, 200, (5, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    frames = (frames + rng.integers(-20, 20, frames.shape)).astype(np.uint8)
    written = set()
    for _ in range(120):
        fill_heap(rng)
        written.add(write_mp4(tmp_path / "a.mp4", frames, 8).read_bytes())
    assert len(written) == 1


def test_metadata(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "a.mp4", FRAMES, 8, metadata={"title": "a red circle", "seed": "7"})
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "a red circle" and container.metadata["seed"] == "7"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "a: b.mp4", FRAMES, 8)
    before = path.read_bytes()

    def broken() -> Iterator[np.ndarray]:
        yield FRAMES[0]
        raise RuntimeError("the camera fell")

    with pytest.raises(RuntimeError, match="camera"):
        write_mp4(path, broken(), 8)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (FRAMES[:0], 8, "no frames"),
        (FRAMES, 0, "fps"),
        (FRAMES, -1, "fps"),
        (FRAMES.astype(np.float32), 8, "uint8"),
        (FRAMES[..., 0], 8, "uint8"),
        ([FRAMES[0], FRAMES[1][:10]], 8, "differ"),
    ],
)
def test_wrong_frames_are_refused(tmp_path: Path, frames, fps, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "a.mp4", frames, fps)
    assert os.listdir(tmp_path) == []
