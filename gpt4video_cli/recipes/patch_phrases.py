"""The small CLIP's second round: each patch learns the words of what it shows.

After the first round a linear probe of the patches around a shape named 78 % of the shapes, one of the class token
68 %, and the abstractor, which reads patches, could not get beyond: with three shapes it named half of them. Here every
patch is compared with the phrases for everything that can be seen ("red circle", "striped background"), in the space
that CLIP shares between pictures and words, beside CLIP's own loss. A linear map, thrown away afterwards, must also
find the row and column of each patch: after the first round none could (R2 below 0), and without places nothing moves.

Letters: B frames, P patches, D width of the encoder, K phrases.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.contrastive import FIVE, PATCH, SIDE, ContrastivePair, contrastive_loss, token_batch
from gpt4video_cli.shapeworld.captions import frame_caption
from gpt4video_cli.shapeworld.render import coverage, render_frames
from gpt4video_cli.shapeworld.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, sample_scene
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess

GRID = SIDE // PATCH
PHRASES = [
    *(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES),
    *(f"{name} background" for name in BACKGROUNDS),
]
ENOUGH = 0.2
"""Share of a patch that an object must cover to be what the patch shows; less is left out of the loss."""
UNSURE = -100

Labelled = tuple[NDArray[np.uint8], list[str], NDArray[np.int64]]
"""Frames uint8 ``[n, S, S, 3]``, their captions, and the phrase of each patch ``[n, P]`` (``UNSURE``: none)."""


def draw_labelled(count: int, seed: int) -> Labelled:
    """``count`` frames in fives that differ in the shape of one object, with what each patch shows."""
    rng = random.Random(f"patches/{seed}")
    frames = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.empty((count, GRID * GRID), np.int64)
    captions = []
    for start in range(0, count, FIVE):
        scene = sample_scene(rng, shapes=rng.choice((1, 1, 2, 3)))
        scene = replace(scene, camera="still", fade="none")
        t = rng.random()
        angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.25 else rng.uniform(-0.2, 0.2)
        for place in range(min(FIVE, count - start)):
            first = replace(scene.shapes[0], shape=SHAPES[place], angle=angle, turns=0.0, presence="always")
            scene = replace(scene, shapes=(first, *scene.shapes[1:]))
            frames[start + place] = render_frames(scene, [t], SIDE)[0]
            labels[start + place] = patch_labels(scene, t)
            captions.append(frame_caption(scene, t, rng))
    return frames, captions, labels


def patch_labels(scene: Scene, t: float) -> NDArray[np.int64]:
    """Numbers in ``PHRASES`` of what each patch of ``scene`` shows at time ``t``, ``[P]``; the camera must rest."""
    pixels = np.arange(SIDE, dtype=np.float32) + 0.5
    labels = np.full(GRID * GRID, len(COLOURS) * len(SHAPES) + BACKGROUNDS.index(scene.background), np.int64)
    for shape in scene.shapes:
        if not shape.visible(t):
            continue
        x, y = shape.centre(t)
        xs, ys = np.meshgrid(pixels - x * SIDE, pixels - y * SIDE)
        covered = coverage(shape.shape, xs, ys, shape.radius_at(t) * SIDE, shape.angle_at(t))
        share = covered.reshape(GRID, PATCH, GRID, PATCH).mean(axis=(1, 3)).ravel()
        labels[share > 0] = UNSURE
        labels[share >= ENOUGH] = list(COLOURS).index(shape.colour) * len(SHAPES) + SHAPES.index(shape.shape)
    return labels


def place_waves(grid: int, width: int) -> Tensor:
    """Positions ``[grid * grid, width]`` to start from: sines and cosines of row and column, with periods of 6 to 600
    patches (Vaswani et al. 2017 for one dimension, here half of the width for each of two)."""
    quarter = width // 4
    rate = torch.exp(-math.log(100.0) * torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, grid, -1), waves[None].expand(grid, -1, -1)
    return 0.5 * torch.cat([rows, columns], dim=2).flatten(0, 1)


def patch_loss(similarities: Tensor, places: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of ``[B, P, K]`` for what a patch shows, and of ``[B, P, 2 * GRID]`` for its row and column.

    Patches with objects weigh as much together as those without.
    """
    numbers = torch.arange(GRID * GRID)
    losses = F.cross_entropy(similarities.float().flatten(0, 1), labels.flatten(), reduction="none")
    rows, columns = places.float().chunk(2, dim=2)
    for found, place in ((rows, numbers // GRID), (columns, numbers % GRID)):
        losses = losses + F.cross_entropy(found.flatten(0, 1), place.repeat(len(labels)), reduction="none") / 2
    objects = ((labels >= 0) & (labels < len(COLOURS) * len(SHAPES))).flatten().float()
    others = (labels >= len(COLOURS) * len(SHAPES)).flatten().float()
    return (losses * objects).sum() / objects.sum() + 0.5 * (losses * others).sum() / others.sum()


def train_patch_phrases(
    pair: ContrastivePair,
    tokenizer: Tokenizer,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    pool: int,
    seed: int,
) -> None:
    """Train both towers further, in place, on ``pool`` frames."""
    config = PreprocessConfig.square(SIDE)
    with torch.no_grad():
        # As learned in the first round they are a tenth of what the patches themselves bring.
        pair.encoder.embeddings.position_embedding.weight[1:] += place_waves(GRID, pair.encoder.config.width)
    frames, captions, labels = draw_labelled(pool, seed)
    phrases = token_batch(tokenizer, PHRASES)
    places = torch.nn.Linear(pair.encoder.config.width, 2 * GRID)

    def loss_of(step: int) -> Tensor:
        starts = random.Random(f"patches/{seed}/{step}").sample(range(0, pool, FIVE), batch_size // FIVE)
        chosen = [start + i for start in starts for i in range(FIVE)]
        said = [captions[i] for i in chosen]
        with torch.autocast("cpu", torch.bfloat16):
            features = pair.encoder(preprocess(frames[chosen], config))
            whole = pair.compare(features.mean(1), token_batch(tokenizer, said))
            patches = pair.compare(features[:, 1:], phrases)
            where = places(features[:, 1:])
        return patch_loss(patches, where, torch.from_numpy(labels[chosen])) + 0.5 * contrastive_loss(whole, said)

    trained = torch.nn.ModuleDict({"pair": pair, "places": places})
    train_loop(trained.named_parameters(), loss_of, options, folder=folder, name="patch_phrases")


@torch.no_grad()
def patches_right(pair: ContrastivePair, tokenizer: Tokenizer, *, count: int = 250, seed: int = 10**6) -> float:
    """Share of the patches of unseen frames that show an object and say which."""
    frames, _, labels = draw_labelled(count, seed)
    features = pair.encoder(preprocess(frames, PreprocessConfig.square(SIDE)))
    found = pair.compare(features[:, 1:], token_batch(tokenizer, PHRASES)).argmax(-1).numpy()
    objects = (labels >= 0) & (labels < len(COLOURS) * len(SHAPES))
    return float((found == labels)[objects].mean())
