"""The encoder's third round: what patches are told about motion and events, and that it is learned."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpt4video_cli.model.visual_encoder import VisualEncoder
from gpt4video_cli.recipes.clips import SampledClips, sampled_clips
from gpt4video_cli.recipes.contrastive import SIDE, small_encoder_config
from gpt4video_cli.recipes.patch_motion import (
    EVENTS,
    HEADS,
    MOVES,
    Labels,
    camera_loss,
    drawn,
    label_clip,
    told,
    train_patches,
    with_heads,
    with_neighbours,
)
from gpt4video_cli.recipes.patch_phrases import GRID, PHRASES, UNSURE
from gpt4video_cli.shapeworld.pictures import PICTURE_COLOURS
from gpt4video_cli.shapeworld.render import render_frames
from gpt4video_cli.shapeworld.scene import CAMERAS, PICTURE, Scene, Shape, reversed_scene, sample_scene
from gpt4video_cli.training.loop import LoopOptions

TIMES = (np.arange(8, dtype=np.float32) + 0.5) / 8


def labelled(scene: Scene) -> tuple[NDArray[np.uint8], Labels]:
    frames = render_frames(scene, TIMES.astype(float), SIDE)
    return frames, label_clip(scene, frames, TIMES)


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_flow_of_a_picture_says_where_its_points_go(camera: str) -> None:
    """What is seen at a patch is found again where the flow says, better than where it was."""
    scene = Scene((), PICTURE, camera, clutter=True, texture_seed=3, travel=0.5)
    frames, labels = labelled(scene)
    stayed, followed = [], []
    for row, column in ((2, 2), (3, 6), (5, 5), (6, 3), (7, 7)):
        for number in range(7):
            across, down = labels.flow[number, row * GRID + column] * SIDE / GRID
            y, x = row * 8, column * 8
            patch = frames[number, y : y + 8, x : x + 8].astype(float)
            for found, (dx, dy) in ((stayed, (0, 0)), (followed, (round(across), round(down)))):
                there = frames[number + 1, y + dy : y + dy + 8, x + dx : x + dx + 8].astype(float)
                found.append(np.abs(there - patch).mean())
    if camera == "still":
        assert np.array_equal(labels.flow, np.zeros_like(labels.flow))
    else:
        assert np.mean(followed) < 0.7 * np.mean(stayed)
    assert set(labels.move.ravel()) == {MOVES.index(f"camera {camera}")}


def test_the_flow_of_objects_is_their_motion() -> None:
    middle = Shape("square", "red", "big", "right", radius=0.24, travel=0.4)
    cases = {"right": (0.4, 0.0), "up": (0.0, -0.4), "still": (0.0, 0.0)}
    for motion, (across, down) in cases.items():
        shape = replace(middle, motion=motion, travel=0.4 if motion != "still" else 0.0)
        _, labels = labelled(Scene((shape,), "white"))
        at = labels.what[4] == PHRASES.index("red square")
        assert at.sum() >= 4 and set(labels.move[4][at]) == {MOVES.index(motion)}
        wanted = np.tile((across / 8 * GRID, down / 8 * GRID), (at.sum(), 1))
        assert labels.flow[4][at] == pytest.approx(wanted, abs=1e-4)
        assert not labels.flow[4][~at].any()
    _, labels = labelled(Scene((replace(middle, motion="growing", travel=0.0, x=0.5, y=0.5),), "white"))
    at = np.flatnonzero(labels.what[4] == PHRASES.index("red square"))
    outwards = np.stack([at % GRID - 4.5, at // GRID - 4.5], axis=1)
    assert (labels.flow[4][at] * outwards).sum(1).min() > 0  # every point away from the centre
    _, labels = labelled(Scene((replace(middle, motion="spinning", travel=0.0, turns=0.5, x=0.5, y=0.5),), "white"))
    at = np.flatnonzero(labels.what[4] == PHRASES.index("red square"))
    outwards = np.stack([at % GRID - 4.5, at // GRID - 4.5], axis=1)
    turned = labels.flow[4][at]
    assert np.abs((turned * outwards).sum(1)).max() < 1e-4  # across the line to the centre
    assert (outwards[:, 0] * turned[:, 1] - outwards[:, 1] * turned[:, 0]).min() > 0  # clockwise: y points down


def test_what_comes_and_goes_is_told_in_the_frames_beside_the_change() -> None:
    shape = Shape("circle", "blue", "big", "still", "appears", radius=0.22, change_at=0.5)
    for scene in (Scene((shape,), "white"), reversed_scene(Scene((shape,), "white"))):
        _, labels = labelled(scene)
        told = [{EVENTS[i] for i in row if i > 0} for row in labels.event]
        words = ("comes", "came") if scene.shapes[0].presence == "appears" else ("goes", "went")
        assert told == [set(), set(), set(), {words[0]}, {words[1]}, set(), set(), set()]
        there = [PHRASES.index("blue circle") in row for row in labels.what]
        assert there == [shape.visible(t) for shape in scene.shapes for t in TIMES]


def test_dark_frames_are_not_asked_about() -> None:
    _, labels = labelled(Scene((), "white", fade="in"))
    unsure = [set(row) == {UNSURE} for row in labels.what]
    assert unsure == [True, False, False, False, False, False, False, False]


def test_patches_of_pictures_have_the_colour_that_is_seen() -> None:
    for colour in ("green", "gray", "blue"):
        _, labels = labelled(Scene((), PICTURE, clutter=True, texture_seed=5, dominant=colour))
        known = labels.colour[labels.colour >= 0]
        assert len(known) > 200 and (known == PICTURE_COLOURS.index(colour)).mean() > 0.5
    _, labels = labelled(sample_scene(random.Random(1), shapes=2, plain=True))
    assert set(labels.colour.ravel()) == {UNSURE}


def test_temporal_convolutions_add_nothing_before_they_are_trained() -> None:
    torch.manual_seed(0)
    encoder = VisualEncoder(small_encoder_config())
    grown = with_neighbours(encoder)
    frames = encoder.pre_layrnorm(encoder.embeddings(torch.randn(4, 3, SIDE, SIDE)))
    before, after = (each.encoder["layers"][0] for each in (encoder, grown))  # type: ignore[index]
    torch.testing.assert_close(after(frames, 4)[:, 1:], before(frames, 1)[:, 1:], rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        after.temporal.up_proj.weight.normal_()
    assert (after(frames, 4)[:, 1:] - before(frames, 1)[:, 1:]).abs().max() > 0.1


def test_clips_are_drawn_once_with_the_times_at_which_they_were_seen(tmp_path: Path) -> None:
    clips = sampled_clips("pictures", 3, frames=8, side=SIDE, seed=0, cache=tmp_path / "pictures")
    again = sampled_clips("pictures", 3, frames=8, side=SIDE, seed=0, cache=tmp_path / "pictures")
    assert clips.frames.shape == (3, 8, SIDE, SIDE, 3) and np.array_equal(clips.frames, again.frames)
    for scene, frames, times in zip(clips.scenes, clips.frames, clips.times, strict=True):
        assert ((times >= 0) & (times <= 1)).all() and (np.diff(times) > 0).all()
        rendered = render_frames(scene, times.astype(float), SIDE)
        assert np.abs(rendered.astype(float) - frames).mean() < 12  # other size, and compressed


def test_every_second_clip_is_played_backwards(tmp_path: Path) -> None:
    clips = sampled_clips("clips", 1, frames=8, side=SIDE, seed=0, cache=tmp_path / "clips")
    ways = set()
    for seed in range(12):
        scene, frames, times = drawn(clips, 10, random.Random(seed))
        backwards = not np.array_equal(frames, clips.frames[0])
        ways.add(backwards)
        assert scene == (reversed_scene(clips.scenes[0]) if backwards else clips.scenes[0])
        assert np.array_equal(frames, clips.frames[0][::-1] if backwards else clips.frames[0])
        assert (np.diff(times) > 0).all()
    assert ways == {False, True}


@pytest.mark.parametrize("name", ("motion", "camera", "together"))
def test_the_third_round_teaches_patches(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scenes = [replace(sample_scene(random.Random(n), shapes=1, plain=True), background="striped") for n in range(4)]
    frames = np.stack([render_frames(scene, TIMES.astype(float), SIDE) for scene in scenes])
    clips = [SampledClips(frames, np.tile(TIMES, (4, 1)), scenes)]
    encoder = VisualEncoder(small_encoder_config())
    options = LoopOptions(steps=10, learning_rate=1e-3, warm_up=2, log_every=2, muon_rate=3e-3)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trained = with_heads(encoder, seed=0)
    train_patches(trained, clips, options, name=name, folder=tmp_path, batch_size=2, pool=4, seed=0)
    losses = [json.loads(line)["loss"] for line in (tmp_path / f"patch_{name}.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    shares = told(trained, clips, pool=2)
    assert set(shares) == {"what", "move"} and all(0 <= share <= 1 for share in shares.values())
    grown = cast(VisualEncoder, trained["encoder"])
    assert grown.config.local_temporal and grown.encoder["layers"][0].temporal.up_proj.weight.any()  # type: ignore[union-attr,index]


def test_patches_tell_the_camera_together() -> None:
    scenes = [Scene((), PICTURE, camera, clutter=True) for camera in CAMERAS]
    said = torch.zeros(len(scenes), 2, 3, sum(HEADS.values()))
    assert camera_loss(said, scenes).item() == pytest.approx(math.log(len(CAMERAS)))
    first = len(PHRASES) + 1 + 2 * GRID + MOVES.index("camera still")
    for row in range(len(scenes)):
        said[row, 0, 1, first + row] = 60.0  # one patch is sure, the others know nothing
    assert camera_loss(said, scenes).item() < 0.01
    assert camera_loss(said, [Scene((), "white")] * len(scenes)).item() == 0  # nothing to see a camera by
