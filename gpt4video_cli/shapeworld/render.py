"""Scene -> frames uint8 ``[T, H, W, 3]`` RGB, drawn with antialiased edges by signed distances.

Letters: T frames, S side of the square frame in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpt4video_cli.shapeworld.pictures import picture_of
from gpt4video_cli.shapeworld.scene import COLOURS, MONOCHROME, PICTURE, PLAIN_BACKGROUNDS, Scene, Shape

Frame = NDArray[np.float32]


def _polygon(shape: str, radius: float, angle: float) -> NDArray[np.float32]:
    """Corners ``[n, 2]`` around the origin, in pixels, in order."""
    if shape == "square":
        spokes = [(k * math.pi / 2 + math.pi / 4, 1.0) for k in range(4)]
    elif shape == "triangle":
        spokes = [(k * 2 * math.pi / 3 - math.pi / 2, 1.05) for k in range(3)]
    elif shape == "star":
        spokes = [(k * math.pi / 5 - math.pi / 2, 1.08 if k % 2 == 0 else 0.44) for k in range(10)]
    elif shape == "cross":
        w, far = 0.3, 1.0
        tip, inner = math.hypot(w, far), math.hypot(w, w)
        a = math.atan2(w, far)
        spokes = []
        for k in range(4):
            base = k * math.pi / 2
            spokes += [(base - a, tip), (base + a, tip), (base + math.pi / 4, inner)]
    else:
        raise ValueError(f"no polygon for {shape}")
    return np.array(
        [(radius * r * math.cos(p + angle), radius * r * math.sin(p + angle)) for p, r in spokes], np.float32
    )


def coverage(shape: str, xs: Frame, ys: Frame, radius: float, angle: float) -> Frame:
    """How much of each pixel the shape covers, 0-1. ``xs, ys`` are pixel centres relative to the shape's centre."""
    if shape == "circle":
        distance = np.hypot(xs, ys) - radius
        return np.clip(0.5 - distance, 0, 1)
    corners = _polygon(shape, radius, angle)
    following = np.roll(corners, -1, axis=0)
    nearest = np.full(xs.shape, np.inf, np.float32)
    inside = np.zeros(xs.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, following, strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = xs - ax, ys - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        # Even-odd rule: a ray to the right crosses this edge.
        crosses = (ay > ys) != (by > ys)
        if ey != 0:
            inside ^= crosses & (wx < ex * wy / ey)
    distance = np.sqrt(nearest)
    return np.clip(0.5 + np.where(inside, distance, -distance), 0, 1).astype(np.float32)


def _draw(frame: Frame, shape: Shape, t: float, x: float, y: float, scale: float = 1.0) -> None:
    """Paint ``shape`` onto ``frame`` with its centre at ``(x, y)`` (fractions of the side)."""
    side = frame.shape[0]
    radius = shape.radius_at(t) * scale * side
    cx, cy = x * side, y * side
    reach = radius * 1.1 + 2
    x0, x1 = max(int(cx - reach), 0), min(int(cx + reach) + 1, side)
    y0, y1 = max(int(cy - reach), 0), min(int(cy + reach) + 1, side)
    if x0 >= x1 or y0 >= y1:
        return
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
    cover = coverage(shape.shape, xs - cx, ys - cy, radius, shape.angle_at(t))[..., None]
    colour = np.array(COLOURS[shape.colour], np.float32)
    frame[y0:y1, x0:x1] = frame[y0:y1, x0:x1] * (1 - cover) + colour * cover


def _blurred_noise(rng: np.random.Generator, side: int, cells: int) -> Frame:
    """Smooth colour noise ``[side, side, 3]`` 0-255 with about ``cells`` blobs a side."""
    coarse = rng.uniform(0, 255, (cells + 1, cells + 1, 3)).astype(np.float32)
    at = np.linspace(0, cells, side, endpoint=False, dtype=np.float32)
    low = at.astype(int)
    part = (at - low)[:, None]
    part = part * part * (3 - 2 * part)
    rows = coarse[low] * (1 - part[:, None]) + coarse[low + 1] * part[:, None]
    return rows[:, low] * (1 - part[None]) + rows[:, low + 1] * part[None]


def texture(kind: str, seed: int, side: int) -> Frame:
    """A background picture ``[side, side, 3]`` 0-255, always the same for the same seed."""
    rng = np.random.default_rng(seed)
    if kind in PLAIN_BACKGROUNDS:
        return np.broadcast_to(np.array(PLAIN_BACKGROUNDS[kind], np.float32), (side, side, 3)).copy()
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) / side
    # Pale or dark gray tones, so that a texture is never taken for a coloured shape.
    dark = rng.uniform(20, 110)
    light = dark + rng.uniform(60, 110)
    if kind == "striped":
        angle = rng.uniform(0, math.pi)
        wave = np.sin(2 * math.pi * rng.uniform(5, 9) * 2 * (xs * math.cos(angle) + ys * math.sin(angle)))
        mask = np.clip(wave * 4 + 0.5, 0, 1)
    elif kind == "checkered":
        cells = rng.uniform(4, 7) * 2
        shift = rng.uniform(0, 1, 2)
        mask = ((np.floor(xs * cells + shift[0]) + np.floor(ys * cells + shift[1])) % 2).astype(np.float32)
    elif kind == "speckled":
        cells = int(rng.integers(26, 44))
        mask = np.clip((_blurred_noise(rng, side, cells)[..., 0] - 150) / 25, 0, 1)
    elif kind == "clutter":
        picture = np.zeros((side, side, 3), np.float32)
        total = 0.0
        for cells in (2, 4, 9, 19, 40):
            weight = rng.uniform(0.2, 1.0)
            picture += weight * _blurred_noise(rng, side, cells)
            total += weight
        grain = rng.normal(0, rng.uniform(0, 14), (side, side, 1)).astype(np.float32)
        return np.clip((picture / total - 128) * rng.uniform(1.2, 2.6) + rng.uniform(70, 180) + grain, 0, 255)
    else:
        raise ValueError(f"no such background: {kind}")
    return (dark + (light - dark) * mask)[..., None].repeat(3, axis=2).astype(np.float32)


def camera_view(scene: Scene, t: float) -> tuple[float, float, float]:
    """Centre of the view in world coordinates (the start frame is 0-1 around 0.5) and its width, at time ``t``."""
    x = y = 0.5
    width = 1.0
    offset = scene.travel * (t - 0.5)
    if scene.camera == "left":
        x -= offset
    elif scene.camera == "right":
        x += offset
    elif scene.camera == "up":
        y -= offset
    elif scene.camera == "down":
        y += offset
    elif scene.camera == "in":
        width = 1.0 - 1.3 * offset
    elif scene.camera == "out":
        width = 1.0 + 1.3 * offset
    return x, y, width


def placed(shape: Shape, t: float, view: tuple[float, float, float]) -> tuple[float, float, float]:
    """Centre of ``shape`` in the frame at time ``t``, in fractions of its side, and the factor by which it is scaled.

    view: see ``camera_view``.
    """
    x, y = shape.centre(t)
    left, top, width = view
    return (x - left) / width + 0.5, (y - top) / width + 0.5, 1 / width


def _look(world: Frame, side: int, x: float, y: float, width: float) -> Frame:
    """Bilinear crop of ``world`` (which spans -0.5..1.5 in both directions) seen through the view."""
    size = world.shape[0]
    at = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    columns = np.clip((x + at * width + 0.5) / 2 * size - 0.5, 0, size - 1.001)
    rows = np.clip((y + at * width + 0.5) / 2 * size - 0.5, 0, size - 1.001)
    c0, r0 = columns.astype(int), rows.astype(int)
    cf, rf = (columns - c0)[None, :, None], (rows - r0)[:, None, None]
    top = world[r0][:, c0] * (1 - cf) + world[r0][:, c0 + 1] * cf
    bottom = world[r0 + 1][:, c0] * (1 - cf) + world[r0 + 1][:, c0 + 1] * cf
    return top * (1 - rf) + bottom * rf


def render_frames(
    scene: Scene, times: NDArray[np.float64] | list[float], side: int = 128, *, world: Frame | None = None
) -> NDArray[np.uint8]:
    """Frames uint8 ``[T, side, side, 3]`` of ``scene`` at ``times`` (fractions of the clip, 0-1).

    world: what the camera goes over, ``[S, S, 3]`` with values 0-255, S about twice ``side`` so that there is somewhere
    to go; without it, the scene's own background.
    """
    if world is None:
        if scene.background in (PICTURE, MONOCHROME):
            monochrome = scene.background == MONOCHROME
            world = picture_of(scene.texture_seed, side * 2, scene.dominant, monochrome=monochrome)
        else:
            world = texture(scene.background, scene.texture_seed, side * 2)
    frames = np.empty((len(times), side, side, 3), np.uint8)
    still = None
    if scene.camera == "still":
        still = world[:side, :side] if scene.background in PLAIN_BACKGROUNDS else _look(world, side, 0.5, 0.5, 1.0)
    for i, t in enumerate(times):
        x, y, width = camera_view(scene, float(t))
        frame = still.copy() if still is not None else _look(world, side, x, y, width)
        for shape in scene.shapes:
            if shape.visible(float(t)):
                _draw(frame, shape, float(t), *placed(shape, float(t), (x, y, width)))
        frames[i] = np.clip(frame * brightness(scene.fade, float(t)) + 0.5, 0, 255).astype(np.uint8)
    return frames


def brightness(fade: str, t: float) -> float:
    """0-1: fades take the first or the last 40 % of the clip."""
    if fade == "in":
        return min(t / 0.4, 1.0)
    if fade == "out":
        return min((1 - t) / 0.4, 1.0)
    return 1.0


def render_clip(scene: Scene, *, side: int = 128, frames: int = 24, world: Frame | None = None) -> NDArray[np.uint8]:
    """The whole clip, ``frames`` evenly spaced times from first to last: uint8 ``[frames, side, side, 3]``."""
    return render_frames(scene, np.linspace(0, 1, frames), side, world=world)
