"""What is drawn is what the scene says: checked on the pixels, by code that knows nothing of the renderer."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from gpt4video_cli.shapeworld.render import render_clip, render_frames
from gpt4video_cli.shapeworld.scene import (
    COLOURS,
    MOTIONS,
    PLAIN_BACKGROUNDS,
    SHAPES,
    Scene,
    Shape,
    reversed_scene,
    sample_scene,
)


def pixels_of(frame: np.ndarray, colour: str) -> np.ndarray:
    """Row and column ``[n, 2]`` of the pixels that have nearly ``colour``."""
    distance = np.abs(frame.astype(int) - np.array(COLOURS[colour])).max(axis=-1)
    return np.argwhere(distance < 12)


def one(shape: str = "square", colour: str = "red", motion: str = "still", **more: float) -> Scene:
    turns = 0.6 if motion == "spinning" else 0.0
    travel = 0.4 if motion in ("left", "right", "up", "down") else 0.0
    return Scene((Shape(shape, colour, "small", motion, radius=0.12, travel=travel, turns=turns, **more),), "white")  # type: ignore[arg-type]


@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_moves_the_pixels(motion: str) -> None:
    first, last = (pixels_of(f, "red") for f in render_frames(one(motion=motion), [0.0, 1.0], 128))
    down, right = (last.mean(0) - first.mean(0)) / 128
    expected = {"left": (0, -0.4), "right": (0, 0.4), "up": (-0.4, 0), "down": (0.4, 0)}.get(motion, (0, 0))
    assert (down, right) == pytest.approx(expected, abs=0.02)
    ratio = len(last) / len(first)
    if motion == "growing":
        assert ratio > 4
    elif motion == "shrinking":
        assert ratio < 0.25
    else:
        assert ratio == pytest.approx(1, abs=0.15)


def test_spinning_turns_the_shape_in_place() -> None:
    frames = render_frames(one("cross", motion="spinning"), [0.0, 0.1], 128)
    assert np.abs(frames[0].astype(int) - frames[1]).max() > 100


@pytest.mark.parametrize(
    ("shape", "share"),
    # Area as a share of the circle around it: pi r^2 for the circle, 2 r^2 for the square, 3 sqrt(3)/4 (1.05 r)^2 for
    # the triangle; star and cross from their corners by the shoelace formula.
    [("circle", 1.0), ("square", 0.637), ("triangle", 0.456), ("star", 0.444), ("cross", 0.65)],
)
def test_shapes_cover_the_area_that_geometry_says(shape: str, share: float) -> None:
    frame = render_frames(one(shape), [0.5], 400)[0]
    darkness = (245 - frame[..., 1].astype(float)) / (245 - COLOURS["red"][1])
    assert darkness.sum() / (np.pi * (0.12 * 400) ** 2) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("background", PLAIN_BACKGROUNDS)
def test_colours_are_the_named_ones(colour: str, background: str) -> None:
    frame = render_frames(replace(one(colour=colour), background=background), [0.5], 64)[0]
    assert tuple(frame[32, 32]) == COLOURS[colour]
    assert tuple(frame[2, 2]) == PLAIN_BACKGROUNDS[background]


def test_appearing_and_disappearing() -> None:
    for presence, seen in (("appears", [False, True]), ("disappears", [True, False])):
        scene = Scene((Shape("star", "blue", "big", "still", presence, change_at=0.5),), "gray")
        frames = render_frames(scene, [0.1, 0.9], 64)
        assert [len(pixels_of(f, "blue")) > 0 for f in frames] == seen


def test_fades_and_cameras_change_the_picture() -> None:
    scene = Scene((), "striped", fade="out", texture_seed=3)
    bright, dark = render_frames(scene, [0.2, 1.0], 64)
    assert bright.mean() > 40 > dark.mean() + 39
    # A pan to the right lets the picture slide to the left: the same columns come back further left.
    pan = Scene((), "clutter", camera="right", texture_seed=5, travel=0.5)
    start, end = render_frames(pan, [0.0, 1.0], 64).astype(int)
    assert np.abs(start[:, 32:] - end[:, :32]).mean() < 2 < np.abs(start - end).mean()


def test_a_clip_played_backwards_has_the_reversed_truth() -> None:
    for seed in range(40):
        scene = sample_scene(random.Random(seed))
        forward, backward = render_clip(scene, side=48, frames=9), render_clip(reversed_scene(scene), side=48, frames=9)
        spins = any(s.motion == "spinning" for s in scene.shapes)
        if not spins:  # a spin's start angle is not part of its truth
            # The frame in which a shape appears may differ by one.
            differing = [np.abs(a.astype(int) - b).max() > 40 for a, b in zip(forward[::-1], backward, strict=True)]
            assert sum(differing) <= len([s for s in scene.shapes if s.presence != "always"])


def test_the_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    def clip(seed: int) -> np.ndarray:
        return render_clip(sample_scene(random.Random(seed)), side=48, frames=4)

    assert np.array_equal(clip(1), clip(1))
    assert not np.array_equal(clip(1), clip(2))


def test_sampled_scenes_name_each_shape_once_and_keep_it_in_view() -> None:
    rng = random.Random(7)
    for _ in range(300):
        scene = sample_scene(rng)
        assert len({(s.colour, s.shape) for s in scene.shapes}) == len(scene.shapes) <= 3
        assert {s.shape for s in scene.shapes} <= set(SHAPES)
        for shape in scene.shapes if scene.camera == "still" else ():
            for t in (0.0, 0.5, 1.0):
                x, y = shape.centre(t)
                assert 0 < x < 1 and 0 < y < 1
