"""Train the bundle's small CLIP: an image tower (kept) and a text tower (thrown away), contrastively on frames.

Letters: B batch, S side in pixels, D width of the towers, E width of the shared space.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.shapeworld.captions import frame_caption
from gpt4video_cli.shapeworld.render import render_frames
from gpt4video_cli.shapeworld.scene import PLAIN_BACKGROUNDS, SHAPES, SIZES, Scene, sample_scene
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess

SIDE = 80
"""S: 100 patches of 8 x 8 pixels, so that a small shape is almost three patches wide."""
PATCH = 8
FIVE = len(SHAPES)
WINDOW = 6
PHASES = {"big": 900, "one": 1700, "all": 10**9}
"""Name of each phase and the step at which it ends: one big shape on a plain background; one shape of any kind; and
everything. The first two look at ``WINDOW`` x ``WINDOW`` patches around the shape only, a third of the work."""


class TextTower(nn.Module):
    """Token ids ``[B, L]`` (0 is padding) -> text features ``[B, D]``: two transformer layers, mean over the words."""

    def __init__(self, vocabulary: int, width: int = 128, layers: int = 2, longest: int = 96) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(longest, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, width // 32, width * 4, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        there = ids != 0
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        x = self.layers(x, src_key_padding_mask=~there)
        return (x * there[..., None]).sum(1) / there.sum(1, keepdim=True)


class ContrastivePair(nn.Module):
    """Both towers with their projections into the shared space (CLIP, arXiv 2103.00020, figure 3).

    Differs from CLIP in one thing: the image feature is the mean over class token and patches, so that every patch
    feature learns to say what it sees.
    """

    def __init__(self, encoder: VisualEncoder, vocabulary: int, shared: int = 192) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = TextTower(vocabulary)
        self.image_projection = nn.Linear(encoder.config.width, shared, bias=False)
        self.text_projection = nn.Linear(128, shared, bias=False)
        self.scale = nn.Parameter(torch.tensor(math.log(14.0)))

    def forward(self, pixels: Tensor, ids: Tensor, patches: Tensor | None = None) -> Tensor:
        """Similarities ``[B, B]``, image by text, of pixels ``[B, 3, S, S]`` and token ids ``[B, L]``.

        patches: int64 ``[B, n]``, the only patches to look at (FLIP, arXiv 2212.00794, drops them at random; here the
        background goes first), or None for all.
        """
        features = self.encoder(pixels) if patches is None else _partial(self.encoder, pixels, patches)
        return self.compare(features.mean(1), ids)

    def compare(self, features: Tensor, ids: Tensor) -> Tensor:
        """Similarities ``[..., B]`` of features ``[..., D]``, of pictures or of patches, with texts ``[B, L]``."""
        image = F.normalize(self.image_projection(features), dim=-1)
        text = F.normalize(self.text_projection(self.text(ids)), dim=-1)
        return image @ text.T * self.scale.exp().clamp(max=100)


def _partial(encoder: VisualEncoder, pixels: Tensor, patches: Tensor) -> Tensor:
    """What ``encoder`` makes of the class token and of some patches, each with its own position: ``[B, 1+n, D]``."""
    x = encoder.embeddings(pixels)
    kept = torch.cat([torch.zeros_like(patches[:, :1]), patches + 1], dim=1)
    x = encoder.pre_layrnorm(x.gather(1, kept[..., None].expand(-1, -1, x.shape[2])))
    for layer in cast(nn.ModuleList, encoder.encoder["layers"]):
        x = layer(x, 1)
    return encoder.post_layernorm(x)


def contrastive_loss(similarities: Tensor, captions: list[str]) -> Tensor:
    """CLIP's symmetric cross entropy; frames of a batch that share a caption share its probability."""
    numbers = torch.tensor([captions.index(c) for c in captions])
    same = (numbers[:, None] == numbers).float()
    targets = same / same.sum(1, keepdim=True)
    logits = similarities.float()
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


Drawn = tuple[NDArray[np.uint8], list[str], NDArray[np.int64]]
"""Frames uint8 ``[n, S, S, 3]``, their captions, and the patches around one object of each, ``[n, WINDOW ** 2]``."""


def draw_frames(count: int, seed: int, phase: str) -> Drawn:
    """``count`` frames in fives (frames ``5k`` to ``5k+4``); ``phase`` is one of ``PHASES``.

    Most fives differ in nothing but the shape of one object. In a random batch colour, size, place and background tell
    almost all frames apart, and an encoder trained on such batches learned no shapes: a linear probe of its features
    named 29 % of them (chance 20 %).
    """
    rng = random.Random(f"frames/{seed}/{phase}")
    frames = np.empty((count, SIDE, SIDE, 3), np.uint8)
    windows = np.zeros((count, WINDOW**2), np.int64)
    captions = []
    for start in range(0, count, FIVE):
        twins = phase != "all" or rng.random() < 0.85
        scene, t = _scene_of(rng, phase if twins else "any"), rng.random()
        angle = rng.uniform(0, 2 * math.pi) if phase != "big" and rng.random() < 0.25 else rng.uniform(-0.2, 0.2)
        # Drawn at another size and shrunk, as decoded clips are.
        side = rng.choice((SIDE, SIDE, 112))
        for place in range(min(FIVE, count - start)):
            if twins:
                first = replace(scene.shapes[0], shape=SHAPES[place], angle=angle, turns=0.0, presence="always")
                scene = replace(scene, shapes=(first, *scene.shapes[1:]))
                windows[start + place] = _window(*first.centre(t))
            elif place:
                scene, t = _scene_of(rng, "any"), rng.random()
            # Fades leave too little light at their dark end to see what the caption says.
            scene = replace(scene, fade="none")
            frame = render_frames(scene, [t], side)[0]
            frames[start + place] = frame if side == SIDE else _shrunk(frame)
            captions.append(frame_caption(scene, t, rng))
    return frames, captions, windows


def _scene_of(rng: random.Random, phase: str) -> Scene:
    if phase == "any":
        return sample_scene(rng)
    if phase == "all":
        return sample_scene(rng, shapes=rng.choice((1, 1, 2, 3)))
    scene = sample_scene(rng, shapes=1, plain=True)
    if phase == "one":
        return scene
    shape = replace(scene.shapes[0], size="big", motion="still", x=rng.uniform(0.28, 0.72), y=rng.uniform(0.28, 0.72))
    big = replace(shape, radius=rng.uniform(*SIZES["big"]), travel=0.0)
    return replace(scene, shapes=(big,), background=rng.choice(tuple(PLAIN_BACKGROUNDS)))


def _window(x: float, y: float) -> NDArray[np.int64]:
    """Numbers of the ``WINDOW ** 2`` patches around the point ``(x, y)`` (fractions of the side)."""
    grid = SIDE // PATCH
    left, top = (min(max(round(v * grid - WINDOW / 2), 0), grid - WINDOW) for v in (x, y))
    rows, columns = np.mgrid[top : top + WINDOW, left : left + WINDOW]
    return (rows * grid + columns).ravel()


def _shrunk(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def token_batch(tokenizer: Tokenizer, captions: list[str]) -> Tensor:
    """int64 ``[B, L]``, padded with 0."""
    encoded = [tokenizer.encode(c, add_special_tokens=False).ids[:96] for c in captions]
    ids = torch.zeros(len(encoded), max(map(len, encoded)), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids


def train_contrastive(
    encoder: VisualEncoder,
    tokenizer: Tokenizer,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    pool: int,
    seed: int,
) -> ContrastivePair:
    """Train ``encoder`` in place, phase after phase, each on ``pool`` frames; returns both towers."""
    torch.manual_seed(seed)
    pair = ContrastivePair(encoder, tokenizer.get_vocab_size())
    config = PreprocessConfig.square(SIDE)
    drawn: dict[str, Drawn] = {}

    def loss_of(step: int) -> Tensor:
        phase = next(name for name, until in PHASES.items() if step < until)
        if phase not in drawn:
            drawn.clear()
            drawn[phase] = draw_frames(pool, seed, phase)
        frames, captions, windows = drawn[phase]
        starts = random.Random(f"{seed}/{step}").sample(range(0, pool, FIVE), batch_size // FIVE)
        chosen = [start + i for start in starts for i in range(FIVE)]
        said = [captions[i] for i in chosen]
        patches = None if phase == "all" else torch.from_numpy(windows[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            similarities = pair(preprocess(frames[chosen], config), token_batch(tokenizer, said), patches)
        return contrastive_loss(similarities, said)

    train_loop(pair.named_parameters(), loss_of, options, folder=folder, name="contrastive")
    return pair


@torch.no_grad()
def retrieval(pair: ContrastivePair, tokenizer: Tokenizer, *, batch_size: int = 255, seed: int = 10**6) -> float:
    """Share of unseen frames whose own caption is the most similar of ``batch_size``, twins among them."""
    frames, captions, _ = draw_frames(batch_size, seed, "all")
    best = pair(preprocess(frames, PreprocessConfig.square(SIDE)), token_batch(tokenizer, captions)).argmax(1)
    # Two scenes may have the same caption by chance: those count as found.
    return sum(captions[int(b)] == c for b, c in zip(best, captions, strict=True)) / batch_size


def small_encoder_config() -> VisualEncoderConfig:
    """The bundle's ViT: 100 patches of 8 x 8 pixels + class token, 128 wide."""
    return VisualEncoderConfig(
        width=128,
        layers=5,
        heads=4,
        mlp_width=512,
        patch_size=PATCH,
        image_size=SIDE,
        final_norm=True,
    )
