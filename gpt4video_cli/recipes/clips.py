"""ShapeWorld clips for training: drawn, written as real mp4 files, read back by the program's own reader.

Letters: n clips, T frames, S side in pixels, P patches, D_v width of the features.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import (
    Scene,
    reversed_scene,
    sample_events,
    sample_monochrome,
    sample_picture,
    sample_scene,
)
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.preprocess import PreprocessConfig, resize_and_crop
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4

SOURCES: dict[str, Callable[[random.Random], Scene]] = {
    "clips": sample_scene,
    "events": sample_events,
    "pictures": sample_picture,
    "monochrome": sample_monochrome,
}
"""What training clips are drawn by: ordinary scenes, things that happen in order, pictures without objects, in
colours and in black and white."""
PIECE = 250
"""Clips that a process draws before it takes more."""


def scene_at(seed: int, index: int, source: str = "clips") -> Scene:
    """Scene number ``index`` of the training clips of ``source``."""
    return SOURCES[source](random.Random(f"{source}/{seed}/{index}"))


class KnownClips:
    """Features of clips whose scenes are known, each forwards and, with its truth turned round, backwards.

    Backwards costs nothing and is worth as much as new clips where motion is to be learned: on 7,500 clips, forwards
    alone, the warm start knew the motions of 98 % of its own clips and of 80 % of others.
    """

    def __init__(self, features: Tensor, scenes: Sequence[Scene]) -> None:
        self._features = features
        self.scenes = [*scenes, *map(reversed_scene, scenes)]

    def __len__(self) -> int:
        return len(self.scenes)

    def features(self, indices: Sequence[int]) -> Tensor:
        """float32 ``[len(indices), T, 1+P, D_v]``."""
        count = len(self._features)
        shown = self._features[[i % count for i in indices]].float()
        back = torch.tensor([i >= count for i in indices])[:, None, None, None]
        return torch.where(back, shown.flip(1), shown)


def film_scene(path: Path, scene: Scene, rng: random.Random, *, side: int | None = None) -> float:
    """Write ``scene`` as an mp4 of 1 to 3 seconds; size, frame rate and compression vary as ``rng`` says. Returns the
    seconds from the first frame (t = 0) to the last (t = 1)."""
    side = side or rng.choice((80, 96, 112, 128, 128))
    count, fps = rng.randint(12, 24), rng.choice((8, 10, 12))
    write_mp4(
        path, render_clip(scene, side=side, frames=count), fps=fps, crf=rng.choice((16, 20, 24, 28)), preset="ultrafast"
    )
    return (count - 1) / fps


@dataclass(frozen=True)
class SampledClips:
    """What the reader sees of n clips of one source: ``frames`` uint8 ``[n, T, S, S, 3]``, ``times`` float32
    ``[n, T]``, when they are in the time of the scenes (0-1)."""

    frames: NDArray[np.uint8]
    times: NDArray[np.float32]
    scenes: Sequence[Scene]


def sampled_clips(source: str, count: int, *, frames: int, side: int, seed: int, cache: Path) -> SampledClips:
    """``count`` clips, drawn on all cores; their frames and times are kept in the folder ``cache``, as npy."""
    names = ("frames.npy", "times.npy")
    if not cache.exists():
        partial = cache.with_name(cache.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        shape = (count, frames, side, side, 3)
        np.lib.format.open_memmap(partial / names[0], mode="w+", dtype=np.uint8, shape=shape)
        np.lib.format.open_memmap(partial / names[1], mode="w+", dtype=np.float32, shape=shape[:2])
        started, done = time.monotonic(), 0
        pieces = [range(first, min(first + PIECE, count)) for first in range(0, count, PIECE)]
        # Not forked: a fork of a process in which torch has threads may hang.
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(pieces)), spawned) as pool:
            for drawn in pool.map(partial_of(_draw_piece, source, seed, partial), pieces):
                done += drawn
                print(f"{source} {done}/{count} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        os.replace(partial, cache)
    shown, times = (np.load(cache / name, mmap_mode="r") for name in names)
    return SampledClips(shown, times, [scene_at(seed, index, source) for index in range(count)])


def _draw_piece(source: str, seed: int, folder: Path, piece: range) -> int:
    """Draw the clips ``piece`` into the arrays in ``folder``; how many they are. Runs in a process of its own."""
    frames, times = (np.load(folder / name, mmap_mode="r+") for name in ("frames.npy", "times.npy"))
    plan, config = SamplingPlan(frames=frames.shape[1]), PreprocessConfig.square(frames.shape[2])
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "clip.mp4"
        for index in piece:
            seconds = film_scene(path, scene_at(seed, index, source), random.Random(f"film/{seed}/{index}"))
            clip = read_clip(str(path), plan, min_side=config.decode_side)
            frames[index], times[index] = resize_and_crop(clip.frames, config), clip.times / seconds
            path.unlink()
    for array in (frames, times):
        array.flush()
    return len(piece)
