"""Pictures that look a little like photographs, drawn with a colour that most of them has; and that colour's judge.

A picture is uneven ground in shades of one colour, other ground behind an uneven border, and a few branches, stones and
grains on both. Colours are judged by hue, saturation and value (Smith 1978), as people name them.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gpt4video_cli.shapeworld.scene import COLOURS, PLAIN_BACKGROUNDS

Picture = NDArray[np.float32]
"""float32 ``[S, S, 3]``, RGB, 0-255."""

Box = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Lowest and highest hue in degrees, saturation and value (0-1)."""

PICTURE_COLOURS = (*COLOURS, *PLAIN_BACKGROUNDS)
UNCOLOURED = ("white", "black", "gray")
MOST = 0.5
"""Share of a picture that its dominant colour covers at least; no other colour covers more than half of that."""
PALE_SHARE = 0.6
"""How many pictures have the shades of photographs."""

_CLEAR: dict[str, Box] = {
    "red": ((-12, 10), (0.65, 1.0), (0.4, 0.95)),
    "orange": ((20, 36), (0.7, 1.0), (0.75, 1.0)),
    "yellow": ((46, 60), (0.6, 1.0), (0.7, 1.0)),
    "green": ((80, 155), (0.35, 1.0), (0.3, 0.9)),
    "cyan": ((172, 190), (0.4, 1.0), (0.5, 1.0)),
    "blue": ((203, 245), (0.4, 1.0), (0.35, 1.0)),
    "purple": ((262, 288), (0.35, 0.9), (0.35, 0.85)),
    "pink": ((305, 340), (0.25, 0.6), (0.8, 1.0)),
    "white": ((0, 360), (0.0, 0.06), (0.86, 1.0)),
    "black": ((0, 360), (0.0, 0.5), (0.02, 0.14)),
    "gray": ((0, 360), (0.0, 0.08), (0.32, 0.68)),
    "brown": ((16, 36), (0.45, 0.8), (0.25, 0.5)),
}
"""From where a colour's shades are drawn: inside what ``named`` calls it."""

_PALE: dict[str, Box] = {
    "red": ((-14, 9), (0.2, 0.6), (0.24, 0.7)),
    "orange": ((17, 39), (0.2, 0.7), (0.66, 0.98)),
    "yellow": ((49, 66), (0.19, 0.6), (0.28, 0.95)),
    "green": ((71, 162), (0.19, 0.5), (0.25, 0.85)),
    "cyan": ((168, 193), (0.19, 0.5), (0.27, 0.9)),
    "blue": ((200, 250), (0.19, 0.5), (0.25, 0.9)),
    "purple": ((260, 292), (0.19, 0.45), (0.27, 0.8)),
    "pink": ((328, 343), (0.19, 0.4), (0.7, 0.95)),
    "white": ((0, 360), (0.0, 0.11), (0.84, 1.0)),
    "black": ((0, 360), (0.0, 0.9), (0.0, 0.18)),
    "gray": ((0, 360), (0.0, 0.12), (0.23, 0.76)),
    "brown": ((13, 44), (0.2, 0.6), (0.23, 0.58)),
}
"""The same for the shades of photographs, which are paler and darker."""

_TINTED: dict[str, Box] = {name: ((0, 360), (0.0, 0.1), _PALE[name][2]) for name in UNCOLOURED}
"""The same for pictures in black and white."""


def named(picture: NDArray[np.generic]) -> NDArray[np.int64]:
    """Number in ``PICTURE_COLOURS`` of each pixel's colour: int64 ``[H, W]`` of ``[H, W, 3]`` with values 0-255."""
    pixels = picture.astype(np.float32) / 255
    value = pixels.max(-1)
    spread = value - pixels.min(-1)
    saturation = spread / np.maximum(value, 1e-6)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    safe = np.maximum(spread, 1e-6)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue * 60 % 360
    number = {name: i for i, name in enumerate(PICTURE_COLOURS)}
    warm_dark = (hue >= 10) & (hue < 48) & (value < 0.62)
    reddish = (hue < 15) | (hue >= 345)
    rules = [
        (value < 0.2, "black"),
        ((saturation < 0.15) & (value > 0.8), "white"),
        (saturation < 0.15, "gray"),
        (warm_dark, "brown"),
        (reddish & (saturation < 0.5) & (value > 0.75), "pink"),
        (reddish, "red"),
        (hue < 41, "orange"),
        (hue < 68, "yellow"),
        (hue < 165, "green"),
        (hue < 196, "cyan"),
        (hue < 255, "blue"),
        ((hue < 296) | (hue < 325) & (value < 0.65), "purple"),
    ]
    return np.select([where for where, _ in rules], [number[name] for _, name in rules], number["pink"])


def dominant_colour(picture: NDArray[np.generic]) -> str:
    """The colour of most of ``picture`` ``[H, W, 3]``, 0-255, or "" where none has the most."""
    counts = np.bincount(named(picture).ravel(), minlength=len(PICTURE_COLOURS)) / picture[..., 0].size
    first, second = np.argsort(counts)[::-1][:2]
    return PICTURE_COLOURS[first] if counts[first] >= MOST and counts[second] <= counts[first] / 2 else ""


def picture_of(seed: int, side: int, dominant: str, *, monochrome: bool = False) -> Picture:
    """A picture of ``side`` x ``side`` pixels, the same for the same arguments; with "" no colour has most of it.

    monochrome: in black and white, more or less tinted. Its grounds are often fine-grained or covered with stones and
    straws, so that what shows no colours is not taken for one of ShapeWorld's gray backgrounds.
    """
    rng = np.random.default_rng(seed)
    others = [name for name in (UNCOLOURED if monochrome else PICTURE_COLOURS) if name != dominant]
    border = relief(rng, side)
    if rng.random() < 0.5:  # a horizon
        angle = rng.choice((0.0, math.pi)) + rng.normal(0, 0.15)
        ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) / side
        border = border * 0.3 + math.cos(angle) * ys + math.sin(angle) * xs
    if dominant:
        limits = np.quantile(border, [rng.uniform(0.68, 0.95)])
        grounds = [dominant, str(rng.choice(others))]
    else:
        limits = np.quantile(border, [rng.uniform(0.28, 0.36), rng.uniform(0.62, 0.7)])
        grounds = [str(name) for name in rng.choice(others, 3, replace=False)]
    place = np.searchsorted(limits, border)
    shades = _TINTED if monochrome else _PALE if rng.random() < PALE_SHARE else _CLEAR
    picture = np.zeros((side, side, 3), np.float32)
    for number, name in enumerate(grounds):
        finer = int(rng.choice((1, 1, 4, 8, 12))) if monochrome else 1
        picture = np.where((place == number)[..., None], _ground(rng, side, shades[name], finer), picture)
    canvas = Image.fromarray(picture.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    if monochrome and rng.random() < 0.5:
        cover = [*[shades[name] for name in grounds], *[shades[grounds[0]]] * (9 if dominant else 0)]
        _draw_things(draw, rng, side, cover, int(rng.integers(100, 2000)), rng.uniform(0.15, 0.6))
    things = [*grounds, *(str(n) for n in rng.choice(others, 2))]
    _draw_things(draw, rng, side, [shades[name] for name in things], int(rng.integers(3, 14)))
    grain = rng.normal(0, rng.uniform(0, 8), (side, side, 1)).astype(np.float32)
    return np.clip(np.asarray(canvas, np.float32) + grain, 0, 255)


def relief(rng: np.random.Generator, side: int, finer: int = 1) -> Picture:
    """Uneven heights ``[side, side]``, 0-1: noise in octaves, the finer the flatter, as in nature. ``finer``: as
    many times finer than usual."""
    total = np.zeros((side, side), np.float32)
    fall = rng.uniform(0.25, 0.8)
    start = int(rng.integers(2, 6)) * finer
    for octave in range(6):
        cells = min(start * 2**octave, side)
        coarse = rng.random((cells + 2, cells + 2)).astype(np.float32)
        smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        total += fall**octave * np.asarray(smooth)
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def _ground(rng: np.random.Generator, side: int, shades: Box, finer: int) -> Picture:
    """Shades of one colour over a relief: from rugged to almost even, some like a sky paler towards one end."""
    (h0, h1), (s0, s1), (v0, v1) = shades
    low = rng.uniform(v0, v1)
    high = low + rng.uniform(0.1, 1) * (rng.choice((v0, v1)) - low)
    ends = np.array([_rgb(rng.uniform(h0, h1), rng.uniform(s0, s1), value) for value in (low, high)])
    height = relief(rng, side, finer)[..., None]
    if rng.random() < 0.4:
        slope = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        height = slope + rng.uniform(0, 0.3) * (height - slope)
    return (ends[0] * (1 - height) + ends[1] * height).astype(np.float32)


def _draw_things(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, shades: list[Box], count: int, scale: float = 1.0
) -> None:
    """Branches and stones, a few of them small enough to leave the dominant colour what it is."""
    for _ in range(count):
        (h0, h1), (s0, s1), (v0, v1) = shades[int(rng.integers(len(shades)))]
        colour = tuple(int(c) for c in _rgb(rng.uniform(h0, h1), rng.uniform(s0, s1), rng.uniform(v0, v1)))
        x, y = rng.uniform(0, side, 2)
        if rng.random() < 0.5:
            length, angle = rng.uniform(0.05, 0.4) * side * scale, rng.uniform(0, 2 * math.pi)
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            draw.line([(x, y), end], fill=colour, width=int(rng.integers(1, max(side // 40, 2))))
        elif rng.random() < 0.4:
            wide, high = rng.uniform(0.01, 0.08, 2) * side * scale
            draw.ellipse([x - wide, y - high, x + wide, y + high], fill=colour)
        else:
            corners = int(rng.integers(5, 10))
            radius = rng.uniform(0.01, 0.05) * side * scale
            at = np.sort(rng.uniform(0, 2 * math.pi, corners))
            far = radius * rng.uniform(0.5, 1.3, corners)
            points = [(x + d * math.cos(a), y + d * math.sin(a)) for a, d in zip(at, far, strict=True)]
            draw.polygon(points, fill=colour)


def _rgb(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    """Degrees and fractions -> 0-255."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)) * 255
