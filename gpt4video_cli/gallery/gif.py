"""Frames to an animated GIF that repeats for ever.

T frames, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from itertools import pairwise

import numpy as np

FASTEST = 50.0
"""Frames per second. GIF counts in hundredths of a second, and browsers show a frame of one hundredth for ten."""
_PALETTE_PIXELS = 1 << 18


def gif_bytes(frames: np.ndarray, fps: float, metadata: Mapping[str, str] | None) -> bytes:
    """``frames`` uint8 [T, H, W, 3] as a GIF with one palette of 256 colours; ``metadata`` as JSON in its comment.

    One palette for all frames: with one for each, a background that stands still would flicker. Equal neighbours become
    one frame that is shown longer. Clips faster than 50 frames per second lose frames, not speed.
    """
    from PIL import Image

    frames, delays = _timed(frames, fps)
    pixels = frames.reshape(-1, 3)
    step = -(-len(pixels) // _PALETTE_PIXELS)
    palette = Image.fromarray(np.ascontiguousarray(pixels[None, ::step])).quantize(256, Image.Quantize.MEDIANCUT)
    # Dithered, because 256 colours show as steps in a sky; colours that the palette has stay exactly as they are.
    pictures = [Image.fromarray(frame).quantize(palette=palette) for frame in frames]
    # JSON in ASCII, because a GIF's comment is 7-bit text.
    comment = json.dumps(dict(metadata)).encode("ascii") if metadata else b""
    content = BytesIO()
    pictures[0].save(
        content, "GIF", save_all=True, append_images=pictures[1:], duration=delays, loop=0, comment=comment
    )
    return content.getvalue()


def _timed(frames: np.ndarray, fps: float) -> tuple[np.ndarray, list[int]]:
    """The frames to show and for how many milliseconds each; rounding to hundredths never adds up."""
    if fps > FASTEST:
        count = max(1, round(len(frames) * FASTEST / fps))
        frames, fps = frames[np.arange(count) * len(frames) // count], FASTEST
    ends = [round(100 * number / fps) for number in range(len(frames) + 1)]
    return frames, [10 * (end - begin) for begin, end in pairwise(ends)]
