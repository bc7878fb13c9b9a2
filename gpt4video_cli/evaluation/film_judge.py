"""Look at a filmed ShapeWorld clip with code that knows the world: which objects, how they move, on what.

No model takes part. An object is found by its colour, named by drawing every shape over it and taking the best fit, and
followed from frame to frame. On clips that were drawn, not filmed, it is right almost always (see its tests).

Letters: F frames, S side in pixels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt4video_cli.shapeworld.render import coverage
from gpt4video_cli.shapeworld.scene import COLOURS, PLAIN_BACKGROUNDS, SHAPES

Picture = NDArray[np.float32]

SYMMETRY = {
    "circle": 0.0,
    "square": math.pi / 2,
    "triangle": 2 * math.pi / 3,
    "star": 2 * math.pi / 5,
    "cross": math.pi / 2,
}
"""Angle in radians by which a shape is turned into itself."""
AREA = {"circle": math.pi, "square": 2.0, "triangle": 1.432, "star": 1.397, "cross": 2.04}
"""Area of a shape of radius 1."""
ANGLES = 10
"""Orientations that are tried for each shape."""
SMALLEST = 12.0
"""Pixels of a 64 x 64 frame; what is smaller is no object."""


@dataclass(frozen=True)
class SeenObject:
    """One object of a clip, in the words of ``shapeworld.scene``; ``size`` is its mean radius in sides."""

    shape: str
    colour: str
    motion: str
    size: float


@dataclass(frozen=True)
class SeenClip:
    """What a clip shows. ``objects`` from left to right in the first frame that has most of them."""

    background: str
    objects: tuple[SeenObject, ...]


@dataclass(frozen=True)
class _Blob:
    x: float
    y: float
    area: float
    colour: str
    soft: Picture
    """How much of each pixel it covers, 0-1, ``[S, S]``."""


def look(frames: NDArray[np.uint8], *, most: int = 1) -> SeenClip:
    """What ``frames`` uint8 ``[F, S, S, 3]`` show, with at most ``most`` objects."""
    pictures = frames.astype(np.float32)
    background, kind = _background(pictures)
    seen = [_blobs(picture, background, most) for picture in pictures]
    tracks = _follow(seen)
    return SeenClip(kind, tuple(_object(track, frames.shape[1]) for track in tracks))


def _background(pictures: Picture) -> tuple[NDArray[np.float32] | None, str]:
    """The plain colour ``[3]``, or None for a texture; and its name."""
    pixels = pictures[:, ::2, ::2].reshape(-1, 3)
    names, palette = list(PLAIN_BACKGROUNDS), np.array(list(PLAIN_BACKGROUNDS.values()), np.float32)
    distances = np.abs(pixels[:, None] - palette).max(axis=2)
    close = (distances < 28).mean(axis=0)
    best = int(close.argmax())
    # What is neither the background nor coloured belongs to a texture; a plain clip has only rims of it.
    colourless = pixels.max(axis=1) - pixels.min(axis=1) < 30
    if close[best] > 0.45 and (colourless & (distances[:, best] >= 28)).mean() < 0.1:
        return np.median(pixels[distances[:, best] < 28], axis=0), names[best]
    kinds = [_texture(picture) for picture in pictures]
    return None, max(set(kinds), key=kinds.count)


def _texture(picture: Picture) -> str:
    """Stripes have one direction; a checkered pattern has few frequencies, speckles have many."""
    chroma = picture.max(axis=2) - picture.min(axis=2)
    light = picture.mean(axis=2)
    plain = chroma < 45
    light = np.where(plain, light, light[plain].mean() if plain.any() else light.mean())
    light = light - light.mean()
    dy, dx = np.gradient(light)
    inner = plain[1:-1, 1:-1]
    xx, yy, xy = ((a * b)[1:-1, 1:-1][inner].mean() if inner.any() else 0.0 for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    coherence = math.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-6)
    if coherence > 0.6:
        return "striped"
    window = np.hanning(light.shape[0])[:, None] * np.hanning(light.shape[1])
    power = np.abs(np.fft.rfft2(light * window)) ** 2
    power[0, 0] = 0
    top = np.sort(power.ravel())[::-1]
    return "checkered" if top[:12].sum() / (top.sum() + 1e-6) > 0.38 else "speckled"


def _blobs(picture: Picture, background: NDArray[np.float32] | None, most: int) -> list[_Blob]:
    side = picture.shape[0]
    if background is None:
        strength = picture.max(axis=2) - picture.min(axis=2)
        found = strength > 70
    else:
        strength = np.abs(picture - background).max(axis=2)
        found = strength > 55
    smallest = SMALLEST * (side / 64) ** 2
    blobs = []
    for part in _components(found):
        if part.sum() < smallest * 0.6:
            continue
        # The rim is mixed with the background; the strongest half is the object's own colour.
        core = part & (strength >= np.median(strength[part]))
        own = np.median(picture[core], axis=0)
        near = _grown(part)
        if background is None:
            soft = np.clip(strength / max(float(own.max() - own.min()), 1.0), 0, 1)
        else:
            toward = own - background
            soft = np.clip(((picture - background) @ toward) / float(toward @ toward), 0, 1)
        soft = np.where(near, soft, 0).astype(np.float32)
        area = float(soft.sum())
        if area < smallest:
            continue
        ys, xs = np.mgrid[0:side, 0:side] + 0.5
        blobs.append(_Blob(float((xs * soft).sum()) / area, float((ys * soft).sum()) / area, area, _named(own), soft))
    return sorted(blobs, key=lambda b: -b.area)[:most]


def _named(colour: NDArray[np.float32]) -> str:
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - colour).sum()))


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``mask`` with its neighbours, two pixels far."""
    for _ in range(2):
        padded = np.pad(mask, 1)
        mask = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Connected parts of ``mask``, by spreading labels until nothing changes."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        around = np.maximum.reduce(
            [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        )
        spread = np.where(mask, around, 0)
        if (spread == labels).all():
            break
        labels = spread
    return [labels == label for label in np.unique(labels) if label]


def _follow(seen: list[list[_Blob]]) -> list[list[_Blob | None]]:
    """Blobs of all frames as one track for each object; None where an object is not there."""
    most = max((len(blobs) for blobs in seen), default=0)
    if not most:
        return []
    start = next(i for i, blobs in enumerate(seen) if len(blobs) == most)
    tracks: list[list[_Blob | None]] = []
    for first in sorted(seen[start], key=lambda b: b.x):
        tracks.append([None] * len(seen))
        tracks[-1][start] = first
    for order in (range(start + 1, len(seen)), range(start - 1, -1, -1)):
        last = [track[start] for track in tracks]
        for i in order:
            left = list(seen[i])
            for number, track in enumerate(tracks):
                previous = last[number]
                if not left or previous is None:
                    continue
                nearest = min(left, key=lambda b, p=previous: _distance(b, p))  # type: ignore[misc]
                # What is left may be the other object: who is nearer to it takes it.
                others = [blob for n, blob in enumerate(last) if n != number and blob is not None]
                if any(_distance(nearest, other) < _distance(nearest, previous) for other in others):
                    continue
                left.remove(nearest)
                track[i] = last[number] = nearest
    return tracks


def _distance(a: _Blob, b: _Blob) -> float:
    return math.hypot(a.x - b.x, a.y - b.y) + (0 if a.colour == b.colour else 20)


def _object(track: list[_Blob | None], side: int) -> SeenObject:
    blobs = [blob for blob in track if blob is not None]
    colours = [blob.colour for blob in blobs]
    fits = {shape: [_fit(shape, blob) for blob in blobs] for shape in SHAPES}
    shape = min(SHAPES, key=lambda s: sum(error for error, _ in fits[s]))
    size = float(np.mean([_radius(shape, blob.area) for blob in blobs])) / side
    return SeenObject(
        shape,
        max(set(colours), key=colours.count),
        _motion(blobs, shape, [angle for _, angle in fits[shape]], side),
        size,
    )


def _radius(shape: str, area: float) -> float:
    return math.sqrt(area / AREA[shape])


def _fit(shape: str, blob: _Blob) -> tuple[float, float]:
    """How badly ``shape`` covers the blob (0: perfectly), and at which angle it covers it best."""
    side = blob.soft.shape[0]
    radius = _radius(shape, blob.area)
    reach = int(radius * 1.5) + 3
    x0, x1 = max(int(blob.x) - reach, 0), min(int(blob.x) + reach + 1, side)
    y0, y1 = max(int(blob.y) - reach, 0), min(int(blob.y) + reach + 1, side)
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
    part = blob.soft[y0:y1, x0:x1]
    turn = SYMMETRY[shape]
    angles = [k * turn / ANGLES for k in range(ANGLES)] if turn else [0.0]
    errors = [float(np.abs(coverage(shape, xs - blob.x, ys - blob.y, radius, angle) - part).sum()) for angle in angles]
    best = int(np.argmin(errors))
    return errors[best] / blob.area, angles[best]


def _motion(blobs: list[_Blob], shape: str, angles: list[float], side: int) -> str:
    if len(blobs) < 2:
        return "still"
    dx, dy = (blobs[-1].x - blobs[0].x) / side, (blobs[-1].y - blobs[0].y) / side
    growth = math.sqrt(blobs[-1].area / blobs[0].area)
    # As shares of the least that counts as each motion.
    moved, grown = max(abs(dx), abs(dy)) / 0.12, abs(math.log(growth)) / math.log(1.4)
    if max(moved, grown) >= 1:
        if grown > moved:
            return "growing" if growth > 1 else "shrinking"
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"
    turn = SYMMETRY[shape]
    if turn:
        steps = [(b - a + turn / 2) % turn - turn / 2 for a, b in itertools.pairwise(angles)]
        if float(np.mean(np.abs(steps))) > math.radians(9):
            return "spinning"
    return "still"
