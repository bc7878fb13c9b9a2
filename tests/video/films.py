"""Real files, made with PyAV: every frame carries its number as eight dark or light blocks that any codec keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 96, 64


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 [H, W, 3]: bit i of ``number`` is block i of the upper half, 40 or 215; the lower half is a ramp."""
    row = np.repeat([215 if number >> i & 1 else 40 for i in range(8)], -(-width // 8))[:width]
    ramp = np.linspace(30, 200, width)
    picture = np.concatenate([np.tile(row, (height // 2, 1)), np.tile(ramp, (height - height // 2, 1))])
    return np.repeat(picture.astype(np.uint8)[..., None], 3, axis=2)


def number_of(frame: np.ndarray) -> int:
    """The number that ``numbered`` drew, read from an upright frame of any size."""
    height, width = frame.shape[:2]
    row = frame[height // 8 : height * 3 // 8].mean(axis=(0, 2))
    return sum(1 << i for i in range(8) if row[int((i + 0.5) * width / 8)] > 127)


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    count: int = 30,
    fps: Fraction | int = 10,
    ticks: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    rotation: tuple[float, bool] | None = None,
    pixel_aspect: Fraction | None = None,
    sound: bool = False,
    picture: Callable[[int, int, int], np.ndarray] = numbered,
) -> Path:
    """A clip of numbered frames. ``ticks``: presentation times in ``time_base``; ``rotation``: degrees, mirrored."""
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        speaker: Any = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[i], time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if speaker is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            for _ in range(20):
                out.mux(speaker.encode(silence))
            out.mux(speaker.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """One second of silence, no pictures."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        for _ in range(16):
            out.mux(stream.encode(silence))
        out.mux(stream.encode(None))
    return path
