"""Clips to write, and how they are read back with other programs' means."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

ENDINGS = [".mp4", ".gif", ".webm", ""]


def film(count: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, height, width, 3]: a red square moves right on a blue background."""
    frames = np.full((count, height, width, 3), (20, 30, 160), np.uint8)
    for t in range(count):
        frames[t, height // 4 : height // 2, 4 * t : 4 * t + width // 4] = (220, 30, 40)
    return frames


def decoded(path: Path) -> np.ndarray:
    """All frames of a clip, uint8 [T, H, W, 3]; a GIF's as they are stored."""
    if path.is_dir():
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.glob("*.png"))])
    if path.suffix == ".gif":
        with Image.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            return np.stack([np.asarray((picture.seek(i), picture.convert("RGB"))[1]) for i in range(count)])
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
