"""Landscapes to test with: sky, sun, hills, trees, houses, sea. Drawn by other rules than what training shows."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((40, 90, 190), (120, 170, 235)),  # day
    ((190, 60, 20), (250, 150, 60)),  # evening
    ((6, 6, 14), (24, 24, 44)),  # night
    ((120, 124, 128), (160, 162, 165)),  # overcast
    ((225, 228, 232), (250, 250, 250)),  # fog
)
LANDS: tuple[tuple[Colour, Colour], ...] = (
    ((30, 80, 30), (80, 150, 60)),  # meadow
    ((80, 50, 25), (125, 85, 50)),  # field
    ((225, 228, 235), (250, 250, 255)),  # snow
    ((200, 170, 60), (240, 215, 90)),  # rape or sand
    ((15, 60, 130), (40, 110, 190)),  # sea
    ((105, 105, 105), (140, 140, 140)),  # rock
    ((120, 50, 140), (160, 90, 180)),  # heather
)


def landscape(seed: int, side: int) -> NDArray[np.float32]:
    """A picture float32 ``[side, side, 3]``, 0-255, always the same for the same seed."""
    rng = random.Random(f"landscape/{seed}")
    horizon = rng.choice((rng.uniform(0.1, 0.3), rng.uniform(0.7, 0.9), rng.uniform(0.3, 0.7))) * side
    top, bottom = rng.choice(SKIES)
    canvas = Image.fromarray(_shaded(side, top, bottom))
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        x, y, r = rng.uniform(0, side), rng.uniform(0, horizon), rng.uniform(0.03, 0.07) * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, rng.randrange(160, 240)))
    for _ in range(rng.randrange(5)):  # clouds
        x, y, r = rng.uniform(0, side), rng.uniform(0, max(horizon - side * 0.05, 1)), rng.uniform(0.02, 0.05) * side
        for puff in range(4):
            draw.ellipse((x + puff * r, y - r / 2, x + puff * r + 2 * r, y + r / 2), fill=(235, 235, 240))
    low, high = rng.choice(LANDS)
    ridges = rng.randint(1, 4)
    for ridge in range(ridges):
        part = ridge / ridges
        colour = tuple(int(h + (lo - h) * part) for h, lo in zip(high, low, strict=True))
        waves = [(rng.uniform(0.5, 6) * 2 * math.pi / side, rng.uniform(0, 7), rng.uniform(0, 0.04)) for _ in range(4)]
        line = [
            (x, horizon + part * (side - horizon) + side * sum(a * math.sin(x * f + p) for f, p, a in waves))
            for x in range(0, side + 4, 4)
        ]
        draw.polygon([(0, side), *line, (side + 4, side)], fill=colour)
    for _ in range(rng.randrange(12)):
        x, y = rng.uniform(0, side), rng.uniform(horizon, side)
        size = side * (0.02 + 0.05 * (y - horizon) / max(side - horizon, 1))
        _tree(draw, x, y, size, rng) if rng.random() < 0.7 else _house(draw, x, y, size, rng)
    picture = np.asarray(canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1))), np.float32)
    grain = np.random.default_rng(seed).normal(0, rng.uniform(0, 6), picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.float32)


def _shaded(side: int, top: Colour, bottom: Colour) -> NDArray[np.uint8]:
    part = np.linspace(0, 1, side)[:, None, None]
    column = np.array(top) * (1 - part) + np.array(bottom) * part
    return np.broadcast_to(column, (side, side, 3)).astype(np.uint8)


def _tree(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: random.Random) -> None:
    leaves = (rng.randrange(20, 70), rng.randrange(70, 130), rng.randrange(20, 60))
    draw.rectangle((x - size * 0.1, y - size, x + size * 0.1, y), fill=(90, 60, 35))
    if rng.random() < 0.5:
        draw.polygon([(x - size * 0.6, y - size * 0.7), (x + size * 0.6, y - size * 0.7), (x, y - size * 2.4)], leaves)
    else:
        draw.ellipse((x - size * 0.7, y - size * 2.2, x + size * 0.7, y - size * 0.8), fill=leaves)


def _house(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, rng: random.Random) -> None:
    wall = tuple(rng.randrange(120, 240) for _ in range(3))
    draw.rectangle((x - size, y - size, x + size, y), fill=wall)
    draw.polygon([(x - size * 1.2, y - size), (x + size * 1.2, y - size), (x, y - size * 1.9)], fill=(140, 50, 40))
    draw.rectangle((x - size * 0.2, y - size * 0.6, x + size * 0.2, y), fill=(70, 50, 40))
