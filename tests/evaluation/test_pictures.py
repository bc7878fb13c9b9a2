"""The measurement on clips that a camera films over pictures."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.evaluation.landscapes import landscape
from gpt4video_cli.evaluation.pictures import SIDE, evaluate, photograph_world, scene_over


def test_landscapes_differ_and_stay_the_same() -> None:
    first = landscape(1, 64)
    assert first.shape == (64, 64, 3) and 0 <= first.min() <= first.max() <= 255
    assert np.array_equal(first, landscape(1, 64)) and not np.array_equal(first, landscape(2, 64))


def test_many_landscapes_have_a_main_colour_and_they_are_not_all_the_same() -> None:
    worlds = [landscape(index, 2 * SIDE) for index in range(40)]
    colours = [scene_over(world, random.Random(i)).dominant for i, world in enumerate(worlds)]
    assert sum(map(bool, colours)) > 25 and len(set(colours)) > 5


def test_a_photograph_is_cut_and_not_stretched(tmp_path: Path) -> None:
    picture = np.zeros((60, 300, 3), np.uint8)
    picture[:, ::2] = 255
    Image.fromarray(picture).save(tmp_path / "photo.png")
    for seed in range(5):
        world = photograph_world([tmp_path / "photo.png"], random.Random(seed))
        assert world.shape == (2 * SIDE, 2 * SIDE, 3) and world.dtype == np.float32
        changes = (np.diff((world[SIDE, :, 0] > 128).astype(int)) != 0).sum()
        assert 28 <= changes <= 61  # of 30 to 60 columns, however large they are drawn


def test_a_random_model_is_measured(tiny_model_folder: Path) -> None:
    with Assistant.open(str(tiny_model_folder)) as assistant:
        result = evaluate(assistant, 3, lambda index, _: landscape(index, 2 * SIDE))
    assert result["camera"]["asked"] == result["fade"]["asked"] == 3 and result["camera"]["right"] == 0
