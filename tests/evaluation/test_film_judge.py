"""The judge of filmed clips, on clips whose truth is known."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.evaluation.film_judge import SeenClip, look
from gpt4video_cli.shapeworld.prompts import film_scene_of
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import REVERSED_MOTION, Scene
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4


def _simple(seed: int, shapes: int) -> Scene:
    rng = random.Random(seed)
    while True:
        scene = film_scene_of(rng, shapes=shapes)
        if scene.camera == "still" and scene.fade == "none" and all(s.presence == "always" for s in scene.shapes):
            return scene


def _truth(scene: Scene) -> set[tuple[str, str, str]]:
    return {(s.shape, s.colour, s.motion) for s in scene.shapes}


def _named(seen: SeenClip) -> set[tuple[str, str, str]]:
    return {(o.shape, o.colour, o.motion) for o in seen.objects}


def test_one_object_of_a_written_clip_is_named_rightly(tmp_path: Path) -> None:
    right = background = 0
    for seed in range(40):
        scene = _simple(seed, 1)
        write_mp4(tmp_path / "clip.mp4", render_clip(scene, side=64, frames=8), fps=8, crf=14)
        seen = look(read_clip(str(tmp_path / "clip.mp4"), SamplingPlan(frames=8)).frames)
        right += _named(seen) == _truth(scene)
        background += seen.background == scene.background
    assert right >= 39
    assert background >= 39


def test_two_objects_are_named_rightly() -> None:
    scenes = [_simple(1000 + seed, 2) for seed in range(20)]
    right = sum(_named(look(render_clip(s, side=64, frames=8), most=2)) == _truth(s) for s in scenes)
    assert right >= 18


@pytest.mark.parametrize("seed", range(6))
def test_a_clip_played_backwards_moves_the_other_way(seed: int) -> None:
    frames = render_clip(_simple(seed, 1), side=64, frames=8)
    forwards, backwards = look(frames).objects[0], look(frames[::-1]).objects[0]
    assert backwards.motion == REVERSED_MOTION.get(forwards.motion, forwards.motion)
    assert (backwards.shape, backwards.colour) == (forwards.shape, forwards.colour)


def test_an_empty_clip_has_no_object() -> None:
    assert look(np.full((8, 64, 64, 3), 128, np.uint8)) == SeenClip("gray", ())
