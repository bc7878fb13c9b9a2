"""Pictures and the judge of their main colour."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from gpt4video_cli.shapeworld.pictures import PICTURE_COLOURS, UNCOLOURED, dominant_colour, named, picture_of
from gpt4video_cli.shapeworld.render import render_frames
from gpt4video_cli.shapeworld.scene import COLOURS, PICTURE, PLAIN_BACKGROUNDS, Scene, sample_monochrome


def test_colours_have_the_names_that_shapeworld_gives_them() -> None:
    for name, rgb in (COLOURS | PLAIN_BACKGROUNDS).items():
        assert dominant_colour(np.full((4, 4, 3), rgb, np.uint8)) == name


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((135, 206, 235), "blue"),  # sky
        ((34, 139, 34), "green"),  # forest
        ((139, 69, 19), "brown"),  # saddle
        ((255, 192, 203), "pink"),
        ((128, 0, 128), "purple"),
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((255, 165, 0), "orange"),
        ((0, 0, 128), "blue"),  # navy
        ((64, 224, 208), "cyan"),  # turquoise
    ],
)
def test_named_colours_of_the_web(rgb: tuple[int, int, int], name: str) -> None:
    assert PICTURE_COLOURS[int(named(np.array([[rgb]]))[0, 0])] == name


def test_half_and_half_has_no_main_colour() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2] = COLOURS["red"]
    assert dominant_colour(picture) == ""


@pytest.mark.parametrize("name", (*PICTURE_COLOURS, ""))
def test_drawn_pictures_have_the_main_colour_that_was_asked_for(name: str) -> None:
    for seed in range(8):
        picture = picture_of(seed, 128, name)
        assert picture.shape == (128, 128, 3) and 0 <= picture.min() <= picture.max() <= 255
        assert dominant_colour(picture) == name
    assert np.array_equal(picture_of(3, 64, name), picture_of(3, 64, name))
    assert not np.array_equal(picture_of(3, 64, name), picture_of(4, 64, name))


@pytest.mark.parametrize("name", (*UNCOLOURED, ""))
def test_pictures_in_black_and_white_have_no_colours(name: str) -> None:
    for seed in range(8):
        picture = picture_of(seed, 128, name, monochrome=True)
        assert dominant_colour(picture) == name
        coloured = ~np.isin(named(picture), [PICTURE_COLOURS.index(each) for each in UNCOLOURED])
        assert coloured.mean() < 0.001
    scene = sample_monochrome(random.Random(name))
    assert not np.isin(named(render_frames(replace(scene, dominant=name), [0.5])[0]), range(len(COLOURS))).any()


def test_a_camera_moves_over_a_picture_of_ones_own() -> None:
    world = np.zeros((128, 128, 3), np.float32)
    world[:, 64:] = 200
    scene = Scene((), PICTURE, "right", clutter=True, travel=0.4)
    first, last = render_frames(scene, [0.0, 1.0], 64, world=world)
    assert first.mean() < last.mean()  # what is on the right comes into view
