"""Stage 1, align: visual encoder and language model frozen; the abstractor with its projection learns to be read.

Letters: B dialogues, L tokens, N video tokens, T frames, P patches, D_v and D_llm widths.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.model.abstractor import Abstractor
from gpt4video_cli.model.visual_encoder import VisualEncoder
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn, watching, watching_two
from gpt4video_cli.shapeworld.questions import ask
from gpt4video_cli.shapeworld.scene import Scene
from gpt4video_cli.training.clips import scene_at
from gpt4video_cli.training.examples import IGNORED, Example, collate, encode_dialogue
from gpt4video_cli.training.loop import LoopOptions, train_loop
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess


@torch.no_grad()
def precompute_features(encoder: VisualEncoder, frames: NDArray[np.uint8]) -> Tensor:
    """Features of the frozen encoder, bfloat16 ``[n, T, 1+P, D_v]``, of frames uint8 ``[n, T, S, S, 3]``."""
    config = PreprocessConfig.square(encoder.config.image_size)
    parts = []
    for start in range(0, len(frames), 64):
        chunk = np.ascontiguousarray(frames[start : start + 64])
        pixels = preprocess(chunk.reshape(-1, *chunk.shape[2:]), config)
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(pixels)
        parts.append(features.to(torch.bfloat16).unflatten(0, chunk.shape[:2]))
    return torch.cat(parts)


SHORT_STEPS = 300
"""So many steps see one or two questions a clip; the first half of them clips with one shape and nothing else."""


def draw_dialogues(
    tokenizer: Tokenizer, count: int, scenes: Sequence[Scene], video_tokens: int, rng: random.Random, *, step: int
) -> list[tuple[Example, tuple[int, ...]]]:
    """``count`` dialogues about one or two of the clips of ``scenes``, with the clips' indices; easy ones at first."""
    easy = [i for i, s in enumerate(scenes) if len(s.shapes) == 1 and s.camera == "still" and s.fade == "none"]
    choice = easy if step < SHORT_STEPS // 2 else range(len(scenes))
    made: list[tuple[Example, tuple[int, ...]]] = []
    for _ in range(count):
        first, second = rng.choice(choice), rng.choice(choice)
        if step < SHORT_STEPS:
            dialogue = watching(rng, scene=scenes[first], turns=rng.randint(1, 2))
            made.append((encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (first,)))
            continue
        if rng.random() < 0.12:
            dialogue = watching_two(rng, scenes=(scenes[first], scenes[second]), turns=6)
            indices: tuple[int, ...] = (first, second)
        else:
            dialogue = watching(rng, scene=scenes[first], turns=rng.randint(5, 8))
            indices = (first,)
        made.append((encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), indices))
    return made


def draw_short_dialogues(
    tokenizer: Tokenizer, count: int, scenes: Sequence[Scene], video_tokens: int, rng: random.Random, *, step: int
) -> list[tuple[Example, tuple[int, ...]]]:
    """For the second round: one or two questions a clip, most of them about motion and shape; few long dialogues.

    In a long dialogue the first answers give the later ones away, so that little is learned from the clip: after 430
    steps of the first round colours were 71 % right, shapes 32 % and motion 13 %.
    """
    single = [i for i, s in enumerate(scenes) if len(s.shapes) == 1 and s.camera == "still"]
    made: list[tuple[Example, tuple[int, ...]]] = []
    for _ in range(count):
        if rng.random() < 0.06:
            made += draw_dialogues(tokenizer, 1, scenes, video_tokens, rng, step=SHORT_STEPS)
            continue
        clip = rng.choice(single) if rng.random() < max(0.2, 0.8 - step / 1000) else rng.randrange(len(scenes))
        turns: list[Turn] = []
        for kind in rng.choices(("motion", "shape", "colour", "count", "yesno", "any"), (8, 5, 3, 2, 3, 6), k=2):
            asked = ask(scenes[clip], kind, rng) if kind != "any" else None
            if asked is not None:
                turns.append(Turn(asked.text, asked.answer, () if turns else (0,)))
            elif kind == "any":
                turn = watching(rng, scene=scenes[clip], turns=1).turns[0]
                turns.append(Turn(turn.user, turn.answer, () if turns else (0,)))
        if turns:
            dialogue = Dialogue((scenes[clip],), tuple(turns))
            made.append((encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (clip,)))
        else:
            made += draw_dialogues(tokenizer, 1, scenes, video_tokens, rng, step=SHORT_STEPS)
    return made


Drawer = Callable[..., list[tuple[Example, tuple[int, ...]]]]


def answer_loss(language_model: Any, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Equation (5): mean negative log likelihood of the assistant's tokens, given everything before each.

    ``embeddings`` float ``[B, L, D_llm]``, ``labels`` int64 ``[B, L]`` with ``IGNORED`` where nothing is learned. Only
    the positions that count go through the output layer.
    """
    hidden = language_model.model(inputs_embeds=embeddings).last_hidden_state
    counts = labels[:, 1:] != IGNORED
    logits = language_model.lm_head(hidden[:, :-1][counts])
    return F.cross_entropy(logits.float(), labels[:, 1:][counts])


def align(
    abstractor: Abstractor,
    language_model: Any,
    tokenizer: Tokenizer,
    features: Tensor,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    seed: int,
    draw: Drawer = draw_dialogues,
    name: str = "align",
) -> None:
    """Train ``abstractor`` in place on ``features`` of the training clips; the language model stays as it is."""
    language_model.requires_grad_(False).eval()
    abstractor.requires_grad_(True).train()
    pools: dict[int, list[list[tuple[Example, tuple[int, ...]]]]] = {}
    tokens = abstractor.config.tokens
    scenes = [scene_at(seed, i) for i in range(len(features))]
    if draw is draw_dialogues:
        _match_scale(abstractor, language_model, features[:32].float())

    def loss_of(step: int) -> Tensor:
        pool, place = divmod(step, 8)
        if pool not in pools:
            rng = random.Random(f"{name}/{seed}/{pool}")
            size = batch_size * 2 if draw is draw_dialogues and step < SHORT_STEPS else batch_size
            drawn = draw(tokenizer, size * 8, scenes, tokens, rng, step=pool * 8)
            drawn.sort(key=lambda pair: len(pair[0].ids))
            batches = [drawn[i * size : (i + 1) * size] for i in range(8)]
            rng.shuffle(batches)
            pools.clear()
            pools[pool] = batches
        batch = pools[pool][place]
        ids, labels, _ = collate([example for example, _ in batch])
        shown = [clip for _, clips in batch for clip in clips]
        with torch.autocast("cpu", torch.bfloat16):
            video = abstractor(features[shown].float())
            embeddings = language_model.get_input_embeddings()(ids)
            embeddings = with_video(embeddings, [e for e, _ in batch], video)
            return answer_loss(language_model, embeddings, labels)

    train_loop(abstractor.named_parameters(), loss_of, options, folder=folder, name=name)


@torch.no_grad()
def _match_scale(abstractor: Abstractor, language_model: Any, features: Tensor) -> None:
    """Let the video embeddings start as large as the embeddings of words, which the language model is used to."""
    words = language_model.get_input_embeddings().weight
    abstractor.projection.weight.mul_(words.std() / abstractor(features).std())


def with_video(embeddings: Tensor, examples: list[Example], video: Tensor) -> Tensor:
    """Put ``video`` ``[clips, N, D_llm]`` where the examples have their clips, in ``embeddings`` ``[B, L, D_llm]``."""
    # Gradients must reach the video tokens, so positions are gathered and written once, out of place.
    rows, columns = [], []
    for row, example in enumerate(examples):
        for start, _scene in example.clips:
            rows.append(row)
            columns.append(start)
    offsets = torch.arange(video.shape[1])
    row_index = torch.tensor(rows)[:, None].expand(-1, video.shape[1])
    column_index = torch.tensor(columns)[:, None] + offsets
    return embeddings.index_put((row_index, column_index), video.to(embeddings.dtype))
