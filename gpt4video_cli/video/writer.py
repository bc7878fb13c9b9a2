"""Frames to an H.264 mp4 that every player opens, or to a VP9 WebM.

T frames, H height, W width.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

SMALL = 64
"""Pixels. In pictures with a shorter side x264's macroblock tree reads memory that nobody wrote: where the heap held
other data, 1 of 30 encodings of the same 5 frames of 32x32 differed by up to 25 levels; none of 500 from 64x64 on."""


def write_mp4(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 18,
    preset: str = "veryfast",
    threads: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write ``frames`` (uint8 [T, H, W, 3], RGB 0-255, or an iterator of [H, W, 3]) as H.264 yuv420p, BT.601 limited.

    ``fps`` is frames per second and may be a fraction. yuv420p needs even sizes: an odd width or height gets one more
    column or row, a copy of the last. ``threads=1`` saves x264's thread start-up, most of the time of a tiny clip.
    The file is written whole: a temporary name beside it, flushed to disk, renamed. Returns the path.
    """
    options = {"crf": str(crf), "preset": preset}
    # Threads belong to the encoder's private options too: x264 starts its own lookahead thread otherwise.
    if threads == 1:
        options["x264-params"] = "threads=1:lookahead-threads=1:sliced-threads=0"
    flags = {"movflags": "+faststart" + ("+use_metadata_tags" if metadata else "")}
    return _write(path, frames, fps, ("mp4", flags), ("libx264", options, threads), metadata)


def write_webm(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 24,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write ``frames`` as VP9 yuv420p in WebM; everything else is as in ``write_mp4``.

    Matroska writes the names of ``metadata`` in capitals and counts time in milliseconds.
    """
    # b=0: constant quality. cpu-used: 16 frames of 256x256 take 0.13 s at 4 and 0.27 s at 1, 7 % smaller (2 cores).
    options = {"crf": str(crf), "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    return _write(path, frames, fps, ("webm", {}), ("libvpx-vp9", options, 0), metadata)


def _write(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float | Fraction,
    container_of: tuple[str, dict[str, str]],
    encoder: tuple[str, dict[str, str], int],
    metadata: Mapping[str, str] | None,
) -> Path:
    """``container_of``: a format and its options. ``encoder``: its name, its options and its threads."""
    import av

    target = Path(path)
    rate = Fraction(fps).limit_denominator(100_000)
    if rate <= 0:
        raise ValueError(f"fps is {fps}; it must be above 0")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError(f"no frames to write to {target}")
    height, width = _checked(first, None)[:2]
    (format_name, flags), (codec, options, threads) = container_of, encoder
    if codec == "libx264" and min(height, width) < SMALL:
        options = {**options, "mbtree": "0"}
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        # "file:" keeps a name with a colon from being read as a protocol.
        with av.open(f"file:{temporary.absolute()}", "w", format=format_name, options=flags) as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = "yuv420p"
            stream.thread_count = threads
            for picture in chain((first,), pictures):
                _checked(picture, (height, width, 3))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_even(picture), format="rgb24")))
            container.mux(stream.encode(None))
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _checked(picture: np.ndarray, shape: tuple[int, int, int] | None) -> tuple[int, ...]:
    """The shape of ``picture``, which must be uint8 [H, W, 3] and, after the first, of the first one's shape."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a frame must be uint8 [H, W, 3], not {picture.dtype} {list(picture.shape)}")
    if shape is not None and picture.shape != shape:
        raise ValueError(f"frames differ in shape: {list(shape)} and {list(picture.shape)}")
    return picture.shape


def _even(picture: np.ndarray) -> np.ndarray:
    """[H, W, 3] with its last row and column repeated where H or W is odd."""
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)
