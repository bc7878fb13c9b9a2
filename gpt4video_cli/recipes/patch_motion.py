"""The encoder's third round: its frames see their neighbours, and each patch learns what happens where it lies.

After two rounds the encoder sees one frame at a time. The abstractor then has to find motion by comparing features of
several frames, which its queries can do for things that have names, but not for what has none: where the camera went
over a picture was guessed (17 of 100 right), and what came or went was told rightly in 84 of 100 clips. So the encoder
gets the temporal convolutions of mPLUG-Owl-video (``local_temporal``), which start as "no change", and every patch of a
clip learns to tell, by linear maps that are thrown away: what it shows, where it lies, where what it shows goes to, how
that thing or the camera moves, whether something comes or goes here, and its colour. A convolution over time of what a
patch of pixels holds, then a layer that rectifies, is the usual model of how motion is seen (Adelson and Bergen 1985).

Letters: B clips, T frames, P patches of a frame, S side in pixels, D width of the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.model.visual_encoder import VisualEncoder
from gpt4video_cli.recipes.clips import SampledClips
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.contrastive import PATCH, SIDE
from gpt4video_cli.recipes.patch_phrases import ENOUGH, GRID, PHRASES, UNSURE
from gpt4video_cli.shapeworld.pictures import PICTURE_COLOURS, named
from gpt4video_cli.shapeworld.render import brightness, camera_view, coverage, placed
from gpt4video_cli.shapeworld.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    MOTIONS,
    PLAIN_BACKGROUNDS,
    SHAPES,
    Scene,
    Shape,
    reversed_scene,
)
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess

OBJECTS = len(COLOURS) * len(SHAPES)
UNKNOWN = len(PHRASES)
"""What a patch of a picture without objects shows."""
MOVES = (*MOTIONS, *(f"camera {way}" for way in CAMERAS))
EVENTS = ("nothing", "comes", "came", "goes", "went")
"""What happens at a patch: in the last frame before a thing is there and in the first with it, and as it leaves."""
DARK = 0.3
"""Below this brightness of a fade nothing is asked of a frame."""
HEADS = {"what": len(PHRASES) + 1, "row": GRID, "column": GRID, "move": len(MOVES), "event": len(EVENTS)}
HEADS |= {"colour": len(PICTURE_COLOURS), "flow": 2}
"""The linear maps and how many numbers each gives; ``flow`` is a displacement, the others are choices."""
SINGLE_FRAMES = 0.1
"""Share of the steps that see frames one by one, as still images are seen."""
CAMERA_WEIGHT = 2.0
_POINTS = SIDE // 4
"""Points a side at which it is asked what lies there, four by four in a patch of 8."""


@dataclass(frozen=True)
class Labels:
    """Of each patch of a clip: int64 or float32, ``[T, P]``, and ``[T, P, 2]`` for ``flow``, in patches per frame."""

    what: NDArray[np.int64]
    move: NDArray[np.int64]
    event: NDArray[np.int64]
    colour: NDArray[np.int64]
    flow: NDArray[np.float32]


def with_neighbours(encoder: VisualEncoder) -> VisualEncoder:
    """The same encoder with temporal convolutions that add nothing to its patches yet."""
    grown = VisualEncoder(replace(encoder.config, local_temporal=True))
    grown.load_state_dict({**grown.state_dict(), **encoder.state_dict()})
    return grown


def label_clip(scene: Scene, frames: NDArray[np.uint8], times: NDArray[np.float32]) -> Labels:
    """The truth about ``scene`` for frames uint8 ``[T, S, S, 3]`` at ``times`` ``[T]`` (0-1)."""
    shape = (len(frames), GRID * GRID)
    labels = Labels(
        np.full(shape, UNSURE, np.int64),
        np.full(shape, UNSURE, np.int64),
        np.full(shape, EVENTS.index("nothing"), np.int64),
        _colours(frames) if scene.clutter else np.full(shape, UNSURE, np.int64),
        np.zeros((*shape, 2), np.float32),
    )
    for number, t in enumerate(times):
        _label_frame(labels, number, scene, times)
        if brightness(scene.fade, float(t)) < DARK:
            for each in (labels.what, labels.move, labels.event, labels.colour):
                each[number] = UNSURE
    return labels


def _label_frame(labels: Labels, number: int, scene: Scene, times: NDArray[np.float32]) -> None:
    t, step = float(times[number]), 1 / len(times)
    before, now, after = (camera_view(scene, at) for at in (t - step / 2, t, t + step / 2))
    known = scene.background in BACKGROUNDS
    labels.what[number] = OBJECTS + BACKGROUNDS.index(scene.background) if known else UNKNOWN
    labels.move[number] = MOVES.index(f"camera {scene.camera}")
    numbers = np.arange(GRID * GRID)
    x, y = (numbers % GRID + 0.5) / GRID, (numbers // GRID + 0.5) / GRID
    # Where a point of the world lies just before and just after.
    for axis, place in enumerate((x, y)):
        world = now[axis] + (place - 0.5) * now[2]
        moved = (world - after[axis]) / after[2] - (world - before[axis]) / before[2]
        labels.flow[number, :, axis] = moved * GRID
    for shape in scene.shapes:
        share = _share(shape, t, now)
        touched, covered = share > 0, share >= ENOUGH
        labels.event[number][touched] = UNSURE
        labels.event[number][covered] = _event(shape, number, times)
        if not shape.visible(t):
            continue
        for each in (labels.what, labels.move):
            each[number][touched] = UNSURE
        labels.what[number][covered] = list(COLOURS).index(shape.colour) * len(SHAPES) + SHAPES.index(shape.shape)
        if scene.camera == "still":
            labels.move[number][covered] = MOTIONS.index(shape.motion)
        labels.flow[number][covered] = GRID * _displacement(shape, t, step, (before, now, after), x, y)[covered]


View = tuple[float, float, float]


def _share(shape: Shape, t: float, view: View) -> NDArray[np.float32]:
    """How much of each patch ``shape`` covers, ``[P]``."""
    x, y, scale = placed(shape, t, view)
    points = np.arange(_POINTS, dtype=np.float32) + 0.5
    xs, ys = np.meshgrid(points - x * _POINTS, points - y * _POINTS)
    covered = coverage(shape.shape, xs, ys, shape.radius_at(t) * scale * _POINTS, shape.angle_at(t))
    share: NDArray[np.float32] = covered.reshape(GRID, _POINTS // GRID, GRID, _POINTS // GRID).mean(axis=(1, 3)).ravel()
    return share


def _event(shape: Shape, number: int, times: NDArray[np.float32]) -> int:
    """Number in ``EVENTS`` of what happens to ``shape`` at frame ``number``, beside its neighbours."""
    here = shape.visible(float(times[number]))
    if all(shape.visible(float(t)) == here for t in times[max(number - 1, 0) : number + 2]):
        return EVENTS.index("nothing")
    if shape.presence == "appears":
        return EVENTS.index("came" if here else "comes")
    return EVENTS.index("goes" if here else "went")


def _displacement(
    shape: Shape, t: float, step: float, views: tuple[View, View, View], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the points ``x, y`` of ``shape`` go in a time ``step`` around ``t``, ``[P, 2]`` in fractions of the side:
    it is carried along, grows and turns."""
    (x0, y0, s0), (x1, y1, s1), (x2, y2, s2) = (
        placed(shape, at, view) for at, view in zip((t - step / 2, t, t + step / 2), views, strict=True)
    )
    grown = (shape.radius_at(t + step / 2) * s2 - shape.radius_at(t - step / 2) * s0) / (shape.radius_at(t) * s1)
    turned = shape.angle_at(t + step / 2) - shape.angle_at(t - step / 2)
    across, down = x - x1, y - y1
    return np.stack([x2 - x0 + grown * across - turned * down, y2 - y0 + grown * down + turned * across], axis=1)


def _colours(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The colour of most of each patch, ``[T, P]``, where one has most of it."""
    # Every second pixel of every second row is enough to count.
    numbers = named(frames[:, ::2, ::2]).reshape(len(frames), GRID, PATCH // 2, GRID, PATCH // 2)
    patches = numbers.transpose(0, 1, 3, 2, 4).reshape(len(frames), GRID * GRID, -1)
    counts = (patches[..., None] == np.arange(len(PICTURE_COLOURS))).sum(axis=2)
    return np.where(counts.max(-1) > 0.6 * patches.shape[-1], counts.argmax(-1), UNSURE)


def motion_loss(said: Tensor, labels: Sequence[Labels]) -> Tensor:
    """said: what the linear maps say of each patch, ``[B, T, P, sum of HEADS]``."""
    by_name = dict(zip(HEADS, said.float().flatten(0, 2).split(list(HEADS.values()), dim=1), strict=True))
    truth = {
        name: torch.from_numpy(np.stack([getattr(each, name) for each in labels])).flatten(0, 2)
        for name in ("what", "move", "event", "colour", "flow")
    }
    what, move, event = truth["what"], truth["move"], truth["event"]
    losses = [
        _balanced(by_name["what"], what, (what >= 0) & (what < OBJECTS)),
        _balanced(by_name["move"], move, (move >= 0) & (move < len(MOTIONS))),
        _balanced(by_name["event"], event, event > 0),
        _balanced(by_name["colour"], truth["colour"], truth["colour"] >= 0),
    ]
    numbers = torch.arange(GRID * GRID).repeat(len(what) // (GRID * GRID))
    losses += [
        F.cross_entropy(by_name["row"], numbers // GRID) / 2,
        F.cross_entropy(by_name["column"], numbers % GRID) / 2,
    ]
    moving = truth["flow"].abs().sum(1) > 0
    apart = F.smooth_l1_loss(by_name["flow"], truth["flow"], reduction="none", beta=0.1).sum(1)
    losses.append(4 * (_mean(apart, moving) + _mean(apart, ~moving)))
    return torch.stack(losses).sum()


def _balanced(logits: Tensor, labels: Tensor, special: Tensor) -> Tensor:
    """Cross entropy in which the ``special`` labels weigh as much together as all others; ``UNSURE`` counts nothing."""
    losses = F.cross_entropy(logits, labels.clamp(min=0), reduction="none")
    return _mean(losses, special) + _mean(losses, (labels >= 0) & ~special) / 2


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def camera_loss(said: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """Cross entropy of what all patches of a clip say together about its camera, ``said`` as for ``motion_loss``.

    A patch of a smooth picture tells little of where it goes; a few hundred of them tell enough.
    """
    first = sum(HEADS[name] for name in ("what", "row", "column")) + len(MOTIONS)
    together = said[..., first : first + len(CAMERAS)].float().mean(dim=(1, 2))
    moved_over = [i for i, scene in enumerate(scenes) if scene.background not in PLAIN_BACKGROUNDS]
    if not moved_over:
        return together.new_zeros(())
    return F.cross_entropy(together[moved_over], torch.tensor([CAMERAS.index(scenes[i].camera) for i in moved_over]))


def with_heads(encoder: VisualEncoder, *, seed: int) -> torch.nn.ModuleDict:
    """What is trained: ``encoder``, which sees its neighbours now, and the linear maps as ``heads``."""
    torch.manual_seed(seed)
    grown = with_neighbours(encoder).requires_grad_(True).train()
    return torch.nn.ModuleDict({"encoder": grown, "heads": torch.nn.Linear(encoder.config.width, sum(HEADS.values()))})


def train_patches(
    trained: torch.nn.ModuleDict,
    clips: Sequence[SampledClips],
    options: LoopOptions,
    *,
    name: str,
    folder: Path,
    batch_size: int,
    pool: int,
    seed: int,
) -> None:
    """Train what ``with_heads`` made in place, on the first ``pool`` of each of ``clips`` in turn, half of them
    backwards. ``name``: motion, camera or together; in the last two, clips as a whole must tell what the camera does.

    One after the other, because a camera that goes over a picture is learned last and needs the most examples: after
    the round "motion" 96 % of the patches of unseen objects told how these move, but only half of the pictures their
    camera (49 %); after all three 98 % and 98 % (``told``).
    """
    config = PreprocessConfig.square(SIDE)

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{name}/{seed}/{step}")
        scenes, pixels, labels = [], [], []
        for place in range(batch_size):
            scene, shown, times = drawn(clips[place % len(clips)], pool, rng)
            scenes.append(scene)
            pixels.append(preprocess(shown, config))
            labels.append(label_clip(scene, shown, times))
        seen = torch.stack(pixels)
        if alone := rng.random() < SINGLE_FRAMES:
            seen = seen.flatten(0, 1)[:, None]
            labels = [still_labels(each) for each in labels]
        with torch.autocast("cpu", torch.bfloat16):
            said = trained["heads"](trained["encoder"](seen)[:, :, 1:])
        if alone:
            return motion_loss(said.reshape(batch_size, -1, *said.shape[2:]), labels)
        loss = motion_loss(said, labels)
        return loss if name == "motion" else loss + CAMERA_WEIGHT * camera_loss(said, scenes)

    train_loop(trained.named_parameters(), loss_of, options, folder=folder, name=f"patch_{name}")


@torch.no_grad()
def told(
    trained: torch.nn.ModuleDict, clips: Sequence[SampledClips], *, pool: int, count: int = 50
) -> dict[str, float]:
    """How much is told rightly of ``count`` clips of each source that come after the ``pool`` trained on: patches of
    objects, of their motions, of events and of colours, and the camera of pictures by all patches together."""
    right, asked = dict.fromkeys(("what", "move", "event", "colour", "camera"), 0.0), dict.fromkeys(HEADS, 0)
    asked["camera"] = 0
    trained.eval()
    for each in clips:
        for index in range(pool, min(pool + count, len(each.scenes))):
            scene, frames, times = each.scenes[index], np.array(each.frames[index]), each.times[index]
            labels = label_clip(scene, frames, times)
            pixels = preprocess(frames, PreprocessConfig.square(SIDE))[None]
            said = trained["heads"](trained["encoder"](pixels)[:, :, 1:])
            found = dict(zip(HEADS, said[0].split(list(HEADS.values()), dim=2), strict=True))
            counted = {
                "what": (labels.what >= 0) & (labels.what < OBJECTS),
                "move": (labels.move >= 0) & (labels.move < len(MOTIONS)),
                "event": labels.event > 0,
                "colour": labels.colour >= 0,
            }
            for name, there in counted.items():
                right[name] += (found[name].argmax(-1).numpy() == getattr(labels, name))[there].sum()
                asked[name] += int(there.sum())
            if scene.clutter:
                together = found["move"][..., len(MOTIONS) :].mean(dim=(0, 1))
                right["camera"] += CAMERAS[int(together.argmax())] == scene.camera
                asked["camera"] += 1
    trained.train()
    return {name: round(float(hits) / asked[name], 3) for name, hits in right.items() if asked[name]}


def still_labels(labels: Labels) -> Labels:
    """What a frame tells without its neighbours: nothing of motion and events."""
    unsure = np.full_like(labels.move, UNSURE)
    return replace(labels, move=unsure, event=unsure, flow=np.zeros_like(labels.flow))


def drawn(clips: SampledClips, pool: int, rng: random.Random) -> tuple[Scene, NDArray[np.uint8], NDArray[np.float32]]:
    """One of the first ``pool`` clips, its frames and their times; every second one is played backwards."""
    index = rng.randrange(min(pool, len(clips.scenes)))
    scene, frames, times = clips.scenes[index], clips.frames[index], clips.times[index]
    if rng.random() < 0.5:
        scene, frames, times = reversed_scene(scene), frames[::-1], 1 - times[::-1]
    return scene, np.ascontiguousarray(frames), times
