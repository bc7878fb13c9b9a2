"""The clips of ``benchmarks.frames``: short moving pictures, encoded once, their packets repeated to any length.

Repeating costs no encoding: a two-hour film takes seconds to write. Each group of pictures begins with a picture that
needs no other, so a repeated one decodes to the same bytes again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CLOCK = Fraction(1, 90000)


@dataclass(frozen=True)
class Recipe:
    """``unique`` frames are encoded; their packets are repeated until the clip lasts ``seconds``.

    ``size`` in pixels (width, height); ``varying``: frames are shown for 1/30 s, every seventh for 1/10 s, as phones
    record in poor light; ``degrees``: by which the picture is to be turned when shown.
    """

    name: str
    codec: str
    size: tuple[int, int]
    fps: int
    unique: int
    seconds: float
    options: dict[str, str] = field(default_factory=dict)
    varying: bool = False
    degrees: int = 0


RECIPES = {
    "10 min": Recipe("h264_10min.mp4", "libx264", (1280, 720), 25, 400, 600, {"g": "200", "crf": "26"}),
    "2 h": Recipe("h264_2h.mp4", "libx264", (1920, 1080), 24, 250, 7200, {"g": "250", "crf": "30"}),
    "HEVC": Recipe(
        "hevc_5min.mp4",
        "libx265",
        (1280, 720),
        25,
        250,
        300,
        {"preset": "superfast", "x265-params": "log-level=none:keyint=125:bframes=4:b-pyramid=1:ref=3"},
    ),
    "VP9": Recipe(
        "vp9_5min.webm",
        "libvpx-vp9",
        (1280, 720),
        25,
        256,
        300,
        {"g": "128", "crf": "34", "b": "0", "cpu-used": "6", "deadline": "good", "row-mt": "1", "lag-in-frames": "16"},
    ),
    "phone": Recipe(
        "phone_10s.mp4",
        "libx264",
        (1920, 1080),
        30,
        60,
        10,
        {"preset": "veryfast", "g": "30", "bf": "0", "crf": "24"},
        varying=True,
        degrees=-90,
    ),
}


def scene(size: tuple[int, int]) -> Callable[[int], np.ndarray]:
    """A textured landscape under a moving camera, two moving things in it, and the noise of a sensor.

    Returns: number of the frame -> uint8 [H, W, 3].
    """
    width, height = size
    rng = np.random.default_rng(9)
    tall, wide = height + 256, width + 1024
    land = np.zeros((tall, wide, 3), np.float32)
    for scale, weight in ((256, 70.0), (64, 40.0), (16, 22.0), (4, 10.0)):
        coarse = rng.standard_normal((tall // scale + 2, wide // scale + 2, 3), np.float32)
        land += weight * np.repeat(np.repeat(coarse, scale, 0), scale, 1)[:tall, :wide]
    land = np.clip(128 + (land + np.roll(land, 3, 0) + np.roll(land, 3, 1)) / 3, 16, 235).astype(np.int16)
    noise = rng.normal(0, 2.0, (4, height, width, 1)).astype(np.int16)

    def frame(number: int) -> np.ndarray:
        x, y = 2 * number % 1024, int(128 + 100 * np.sin(number / 40))
        picture = land[y : y + height, x : x + width] + noise[number % 4]
        side = height // 5
        for i, speed in enumerate((7, -5)):
            left, top = (i * 300 + speed * number) % (width - side), height // 3 + i * side
            picture[top : top + side, left : left + side] = land[:side, 60 * i : 60 * i + side] // 2 + 90 * i
        return np.clip(picture, 0, 255).astype(np.uint8)

    return frame


def make(recipe: Recipe, folder: Path) -> Path:
    """The clip in ``folder``, made if it is not there yet."""
    path = folder / recipe.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    short, unfinished = folder / f"short_{recipe.name}", folder / f"unfinished_{recipe.name}"
    encode(recipe, short)
    repeat(recipe, short, unfinished)
    short.unlink()
    os.replace(unfinished, path)
    return path


def encode(recipe: Recipe, path: Path) -> None:
    """The unique frames, at a steady rate."""
    draw = scene(recipe.size)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(recipe.codec, rate=recipe.fps, options=recipe.options)
        stream.width, stream.height = recipe.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 0
        for number in range(recipe.unique):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(draw(number), format="rgb24")))
        out.mux(stream.encode(None))


def repeat(recipe: Recipe, short: Path, path: Path) -> None:
    """Write the packets of ``short`` again and again, each time later."""
    with av.open(str(short)) as container, av.open(str(path), "w") as out:
        template = container.streams.video[0]
        stream: Any = out.add_stream_from_template(template)
        if recipe.degrees:
            stream.set_display_rotation(recipe.degrees)
        stream.time_base = CLOCK
        packets = [p for p in container.demux(template) if p.size]
        first, tick = min(p.pts for p in packets), float(template.time_base)
        for begin in range(0, number_of_frames(recipe), recipe.unique):
            for packet in packets:
                shown, decoded = (round((t - first) * tick * recipe.fps) for t in (packet.pts, packet.dts))
                copy: Any = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, CLOCK, packet.is_keyframe
                copy.pts, copy.dts = ticks_of(recipe, begin + shown), ticks_of(recipe, begin + decoded)
                copy.duration = ticks_of(recipe, begin + shown + 1) - copy.pts
                out.mux_one(copy)


def number_of_frames(recipe: Recipe) -> int:
    """Of the whole clip: whole repetitions."""
    frames = 0
    while ticks_of(recipe, frames) * CLOCK < recipe.seconds:
        frames += recipe.unique
    return frames


def ticks_of(recipe: Recipe, number: int) -> int:
    """When frame ``number`` is shown, in ticks of ``CLOCK``."""
    step = int(1 / (recipe.fps * CLOCK))
    return step * number + (2 * step * (number // 7) if recipe.varying else 0)
