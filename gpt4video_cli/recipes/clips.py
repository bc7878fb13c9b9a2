"""ShapeWorld clips for training: drawn, written as real mp4 files, read back by the program's own reader.

Letters: n clips, T frames, S side in pixels, P patches, D_v width of the features.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import Scene, reversed_scene, sample_events, sample_picture, sample_scene
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.preprocess import PreprocessConfig, resize_and_crop
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4

SOURCES: dict[str, Callable[[random.Random], Scene]] = {
    "clips": sample_scene,
    "events": sample_events,
    "pictures": sample_picture,
}
"""What training clips are drawn by: ordinary scenes, things that happen in order, and pictures without objects."""


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


def film_scene(path: Path, scene: Scene, rng: random.Random, *, side: int | None = None) -> None:
    """Write ``scene`` as an mp4 of 1 to 3 seconds; size, frame rate and compression vary as ``rng`` says."""
    side = side or rng.choice((80, 96, 112, 128, 128))
    frames = render_clip(scene, side=side, frames=rng.randint(12, 24))
    write_mp4(path, frames, fps=rng.choice((8, 10, 12)), crf=rng.choice((16, 20, 24, 28)), preset="ultrafast")


def sampled_frames(source: str, count: int, *, frames: int, side: int, seed: int, cache: Path) -> NDArray[np.uint8]:
    """What the reader sees of ``count`` clips: uint8 ``[count, frames, side, side, 3]``, kept at ``cache`` (npy)."""
    if cache.exists():
        return np.load(cache, mmap_mode="r")  # type: ignore[no-any-return]
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_suffix(".partial.npy")
    shape = (count, frames, side, side, 3)
    kept = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    plan, config, started = SamplingPlan(frames=frames), PreprocessConfig.square(side), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for i in range(count):
            film_scene(path, scene_at(seed, i, source), random.Random(f"film/{seed}/{i}"))
            kept[i] = resize_and_crop(read_clip(str(path), plan, min_side=config.decode_side).frames, config)
            path.unlink()
            if (i + 1) % 500 == 0:
                print(f"{source} {i + 1}/{count} {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    kept.flush()
    os.replace(partial, cache)
    return np.load(cache, mmap_mode="r")  # type: ignore[no-any-return]
