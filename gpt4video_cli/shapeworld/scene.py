"""What can happen in ShapeWorld, and a sampler of scenes whose truth is known.

Coordinates are fractions of the frame's side: x to the right, y downwards, (0, 0) the top left corner. Time t runs
from 0 (first frame) to 1 (last frame).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 32, 32),
    "green": (34, 160, 54),
    "blue": (40, 72, 225),
    "yellow": (250, 226, 36),
    "purple": (138, 42, 184),
    "orange": (250, 138, 18),
    "pink": (255, 140, 196),
    "cyan": (20, 205, 222),
}
SIZES: dict[str, tuple[float, float]] = {"small": (0.125, 0.15), "big": (0.21, 0.25)}
"""Radius of the circle around a shape, as a fraction of the side."""
PLAIN_BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "gray": (128, 128, 128),
    "brown": (105, 66, 38),
}
TEXTURED_BACKGROUNDS = ("striped", "checkered", "speckled")
BACKGROUNDS = (*PLAIN_BACKGROUNDS, *TEXTURED_BACKGROUNDS)
DIRECTIONS: dict[str, tuple[float, float]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOTIONS = (*DIRECTIONS, "still", "growing", "shrinking", "spinning")
SIZELESS = ("growing", "shrinking")
"""Motions during which a shape is neither small nor big."""
CAMERAS = ("still", "left", "right", "up", "down", "in", "out")
"""Where the camera goes: a pan to the left lets the picture slide to the right; in and out are zooms."""
FADES = ("none", "in", "out")
PRESENCES = ("always", "appears", "disappears")
ORDERED_APART = 0.2
"""What appears or disappears so much later than another does so after it, to the eye; a fraction of the clip."""
PICTURE = "picture"
"""Background of clips that show no objects but look like a photograph (``pictures.py``)."""
MONOCHROME = "monochrome"
"""The same in white, grays and black alone."""
REVERSED_MOTION = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "growing": "shrinking",
    "shrinking": "growing",
}


@dataclass(frozen=True)
class Shape:
    """One object. ``x, y`` is its centre at t = 0.5, ``travel`` the length of its path, ``angle`` in radians.

    ``size`` and ``motion`` are "" for an object that is asked for in any size or with any motion.
    """

    shape: str
    colour: str
    size: str
    motion: str
    presence: str = "always"
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.2
    travel: float = 0.0
    angle: float = 0.0
    turns: float = 0.0
    change_at: float = 0.5
    """When it appears or disappears, as a fraction of the clip."""

    def centre(self, t: float) -> tuple[float, float]:
        """Where the centre is at time ``t``."""
        dx, dy = DIRECTIONS.get(self.motion, (0.0, 0.0))
        return self.x + dx * self.travel * (t - 0.5), self.y + dy * self.travel * (t - 0.5)

    def radius_at(self, t: float) -> float:
        """Radius at time ``t``; growing shapes go from half to one and a half of ``radius``."""
        if self.motion == "growing":
            return self.radius * (0.5 + t)
        if self.motion == "shrinking":
            return self.radius * (1.5 - t)
        return self.radius

    def angle_at(self, t: float) -> float:
        """Orientation at time ``t`` in radians."""
        return self.angle + 2 * math.pi * self.turns * t

    def visible(self, t: float) -> bool:
        """Whether the shape is there at time ``t``."""
        if self.presence == "appears":
            return t >= self.change_at
        if self.presence == "disappears":
            return t < self.change_at
        return True


@dataclass(frozen=True)
class Scene:
    """A clip's whole truth. ``clutter`` clips show no ShapeWorld object at all, only noise or a picture.

    ``dominant``: the colour of most of a picture, or "" where none has the most.
    """

    shapes: tuple[Shape, ...]
    background: str
    camera: str = "still"
    fade: str = "none"
    clutter: bool = False
    texture_seed: int = 0
    travel: float = 0.4
    """How far the camera goes: a fraction of the side for pans, of the scale for zooms."""
    dominant: str = ""

    def events(self) -> tuple[Shape, Shape] | None:
        """What appears or disappears first and what last, where exactly two shapes do, clearly one after the other."""
        changing = sorted((s for s in self.shapes if s.presence != "always"), key=lambda s: s.change_at)
        if len(changing) != 2 or changing[1].change_at - changing[0].change_at < ORDERED_APART:
            return None
        return changing[0], changing[1]


def _sample_shape(rng: random.Random, *, camera_moves: bool) -> Shape:
    shape = rng.choice(SHAPES)
    motions = [m for m in MOTIONS if not (shape == "circle" and m == "spinning")]
    motion = "still" if camera_moves else rng.choice(motions)
    size = rng.choice(tuple(SIZES))
    radius = rng.uniform(*SIZES[size])
    if motion in SIZELESS:
        radius = rng.uniform(0.14, 0.19)
    presence = "always"
    if not camera_moves and rng.random() < 0.15:
        presence = rng.choice(PRESENCES[1:])
    travel = rng.uniform(0.3, 0.6) if motion in DIRECTIONS else 0.0
    if presence != "always" and motion != "still":
        travel = max(travel, 0.45)
    reach = radius * (1.5 if motion in SIZELESS else 1.0) + 0.02
    dx, dy = DIRECTIONS.get(motion, (0, 0))
    margin_x, margin_y = reach + abs(dx) * travel / 2, reach + abs(dy) * travel / 2
    return Shape(
        shape,
        rng.choice(tuple(COLOURS)),
        size,
        motion,
        presence,
        x=rng.uniform(min(margin_x, 0.5), max(1 - margin_x, 0.5)),
        y=rng.uniform(min(margin_y, 0.5), max(1 - margin_y, 0.5)),
        radius=radius,
        travel=travel,
        angle=rng.uniform(-0.2, 0.2) if motion != "spinning" else rng.uniform(0, 2 * math.pi),
        turns=rng.choice((-1, 1)) * rng.uniform(0.4, 0.9) if motion == "spinning" else 0.0,
        change_at=rng.uniform(0.35, 0.65),
    )


def _apart(a: Shape, b: Shape) -> bool:
    """Whether two shapes never touch, checked at five times."""
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        (ax, ay), (bx, by) = a.centre(t), b.centre(t)
        if math.hypot(ax - bx, ay - by) < a.radius_at(t) + b.radius_at(t):
            return False
    return True


def sample_scene(rng: random.Random, *, shapes: int | None = None, plain: bool = False) -> Scene:
    """Draw a scene. ``shapes`` fixes how many objects it has; ``plain`` leaves out camera moves, fades and clutter.

    Objects of one scene differ in colour or shape, so that "the red circle" names exactly one of them.
    """
    if not plain and shapes is None and rng.random() < 0.04:
        return Scene((), "clutter", clutter=True, camera=rng.choice(CAMERAS), texture_seed=rng.getrandbits(32))
    camera = rng.choice(CAMERAS[1:]) if not plain and rng.random() < 0.15 else "still"
    background = rng.choice(TEXTURED_BACKGROUNDS if camera != "still" else BACKGROUNDS)
    wanted = shapes if shapes is not None else rng.choices((0, 1, 2, 3), (0.05, 0.45, 0.3, 0.2))[0]
    if camera != "still":
        wanted = min(wanted, 2)
    placed: list[Shape] = []
    for _ in range(400):
        if len(placed) == wanted:
            break
        new = _sample_shape(rng, camera_moves=camera != "still")
        if len(placed) and wanted == 3:
            new = replace(new, radius=min(new.radius, 0.21))
        names = {(s.colour, s.shape) for s in placed}
        if (new.colour, new.shape) not in names and all(_apart(new, s) for s in placed):
            placed.append(new)
    dark = background == "black" and not placed
    fade = rng.choice(FADES[1:]) if not plain and not dark and rng.random() < 0.1 else "none"
    return Scene(
        tuple(placed),
        background,
        camera,
        fade,
        texture_seed=rng.getrandbits(32),
        travel=rng.uniform(0.3, 0.5),
    )


def sample_events(rng: random.Random) -> Scene:
    """Draw a scene in which two shapes appear or disappear, one clearly after the other (``Scene.events``)."""
    while True:
        scene = sample_scene(rng, shapes=rng.choice((2, 2, 3)), plain=True)
        if len(scene.shapes) < 2:
            continue
        first, last = rng.uniform(0.2, 0.4), rng.uniform(0.6, 0.8)
        early, late = (rng.choice(PRESENCES[1:]) for _ in range(2))
        # What is there for a fifth of the clip only has no time to show how it moves.
        changed = (
            _brief(replace(scene.shapes[0], presence=early, change_at=first), first if early == "disappears" else 1.0),
            _brief(replace(scene.shapes[1], presence=late, change_at=last), 1 - last if late == "appears" else 1.0),
        )
        others = tuple(replace(s, presence="always") for s in scene.shapes[2:])
        shapes = [*changed, *others]
        if all(_apart(a, b) for i, a in enumerate(shapes) for b in shapes[:i]):
            rng.shuffle(shapes)
            return replace(scene, shapes=tuple(shapes))


def _brief(shape: Shape, shown: float) -> Shape:
    """``shape``, resting if it is seen for less than half of the clip (``shown``)."""
    return shape if shown >= 0.5 else replace(shape, motion="still", travel=0.0, turns=0.0)


def sample_picture(rng: random.Random) -> Scene:
    """Draw a clip that looks like a photograph, mostly with a camera that moves over it."""
    return Scene(
        (),
        PICTURE,
        rng.choice((*CAMERAS, *CAMERAS[1:])),
        rng.choice(("none", "none", *FADES)),
        clutter=True,
        texture_seed=rng.getrandbits(32),
        travel=rng.uniform(0.25, 0.5),
        dominant=rng.choice((*COLOURS, *PLAIN_BACKGROUNDS, "", "", "")),
    )


def sample_monochrome(rng: random.Random) -> Scene:
    """Draw a clip that looks like a black-and-white photograph, mostly gray."""
    dominant = rng.choice(("gray", "gray", "gray", "white", "black", ""))
    return replace(sample_picture(rng), background=MONOCHROME, dominant=dominant)


def sample_any(rng: random.Random) -> Scene:
    """Mostly ordinary scenes, a tenth each with events in order and pictures without objects."""
    choice = rng.random()
    return sample_scene(rng) if choice < 0.8 else sample_events(rng) if choice < 0.9 else sample_picture(rng)


def reversed_scene(scene: Scene) -> Scene:
    """The truth of the same clip played backwards."""
    cameras = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}
    fades = {"in": "out", "out": "in"}
    presences = {"appears": "disappears", "disappears": "appears"}
    return replace(
        scene,
        camera=cameras.get(scene.camera, scene.camera),
        fade=fades.get(scene.fade, scene.fade),
        shapes=tuple(
            replace(
                s,
                motion=REVERSED_MOTION.get(s.motion, s.motion),
                presence=presences.get(s.presence, s.presence),
                change_at=1 - s.change_at,
                turns=-s.turns,
            )
            for s in scene.shapes
        ),
    )
