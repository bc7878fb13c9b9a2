"""Train the bundle's small CLIP: an image tower (kept) and a text tower (thrown away), contrastively on frames.

Letters: B batch, S side in pixels, D width of the towers, E width of the shared space.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.shapeworld.captions import frame_caption
from gpt4video_cli.shapeworld.render import render_frames
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.training.loop import LoopOptions, train_loop
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess

SIDE = 64


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

    Differs from CLIP in its loss: the sigmoid loss of SigLIP (arXiv 2303.15343), which does better in small batches.
    The image feature is the mean over class token and patches, so that every patch feature learns to say what it sees.
    """

    def __init__(self, encoder: VisualEncoder, vocabulary: int, shared: int = 192) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = TextTower(vocabulary)
        self.image_projection = nn.Linear(encoder.config.width, shared, bias=False)
        self.text_projection = nn.Linear(128, shared, bias=False)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-6.0))

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Similarities ``[B, B]``, image by text, of pixels ``[B, 3, S, S]`` and token ids ``[B, L]``."""
        image = F.normalize(self.image_projection(self.encoder(pixels).mean(1)), dim=-1)
        text = F.normalize(self.text_projection(self.text(ids)), dim=-1)
        return image @ text.T * self.scale.exp() + self.bias


def sigmoid_loss(similarities: Tensor) -> Tensor:
    """Each pair is a yes/no question (SigLIP, equation 1); mean over images."""
    signs = 2 * torch.eye(len(similarities)) - 1
    return -F.logsigmoid(signs * similarities.float()).sum() / len(similarities)


def draw_frames(count: int, seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """``count`` frames uint8 ``[count, S, S, 3]`` of as many scenes, and their captions."""
    rng = random.Random(f"frames/{seed}")
    frames = np.empty((count, SIDE, SIDE, 3), np.uint8)
    captions = []
    for i in range(count):
        scene, t = sample_scene(rng), rng.random()
        if scene.fade != "none":
            t = 0.5
        # Drawn at another size and shrunk, as decoded clips are.
        side = rng.choice((64, 64, 96))
        frame = render_frames(scene, [t], side)[0]
        frames[i] = frame if side == SIDE else _shrunk(frame)
        captions.append(frame_caption(scene, t, rng))
    return frames, captions


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
    """Train ``encoder`` in place on ``pool`` frames; returns the pair for measuring retrieval."""
    torch.manual_seed(seed)
    pair = ContrastivePair(encoder, tokenizer.get_vocab_size())
    config = PreprocessConfig.square(SIDE)

    frames, captions = draw_frames(pool, seed)

    def loss_of(step: int) -> Tensor:
        chosen = random.Random(f"{seed}/{step}").sample(range(pool), batch_size)
        pixels = preprocess(frames[chosen], config)
        with torch.autocast("cpu", torch.bfloat16):
            similarities = pair(pixels, token_batch(tokenizer, [captions[i] for i in chosen]))
        return sigmoid_loss(similarities)

    train_loop(pair.named_parameters(), loss_of, options, folder=folder, name="contrastive")
    return pair


@torch.no_grad()
def retrieval(pair: ContrastivePair, tokenizer: Tokenizer, *, batch_size: int = 256, seed: int = 10**6) -> float:
    """Share of unseen frames whose own caption is the most similar of ``batch_size``."""
    frames, captions = draw_frames(batch_size, seed)
    best = pair(preprocess(frames, PreprocessConfig.square(SIDE)), token_batch(tokenizer, captions)).argmax(1)
    # Two scenes may have the same caption by chance: those count as found.
    return sum(captions[int(b)] == c for b, c in zip(best, captions, strict=True)) / batch_size


def small_encoder_config() -> VisualEncoderConfig:
    """The bundle's ViT: 64 patches of 8 x 8 pixels + class token, 128 wide."""
    return VisualEncoderConfig(
        width=128,
        layers=5,
        heads=4,
        mlp_width=512,
        patch_size=8,
        image_size=SIDE,
        final_norm=True,
    )
