"""Stage 1, align: visual encoder and language model frozen; the abstractor with its projection learns to be read.

Letters: B dialogues, L tokens, N video tokens, T frames, P patches, D_v and D_llm widths.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from gpt4video_cli.model.abstractor import Abstractor
from gpt4video_cli.model.visual_encoder import VisualEncoder
from gpt4video_cli.recipes.clips import KnownClips
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.examples import Example, answer_loss, collate, encode_dialogue
from gpt4video_cli.recipes.mixtures import kinds_about
from gpt4video_cli.recipes.pools import Pooled
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn, watching, watching_two
from gpt4video_cli.shapeworld.questions import ask
from gpt4video_cli.shapeworld.scene import Scene
from gpt4video_cli.shapeworld.wishes import watching_what_was_filmed
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess


@torch.no_grad()
def precompute_features(encoder: VisualEncoder, clips: Sequence[NDArray[np.uint8]], cache: Path) -> Tensor:
    """Features of the frozen encoder, bfloat16 ``[n, T, 1+P, D_v]``, of the clips of several arrays, each of frames
    uint8 ``[n_i, T, S, S, 3]``. They are kept at ``cache`` (npy, as 16-bit integers) and read from there as needed."""
    if not cache.exists():
        config = PreprocessConfig.square(encoder.config.image_size)
        shape = (sum(map(len, clips)), clips[0].shape[1], encoder.config.patches + 1, encoder.config.width)
        partial = cache.with_suffix(".partial.npy")
        kept = np.lib.format.open_memmap(partial, mode="w+", dtype=np.int16, shape=shape)
        done = 0
        for frames in clips:
            for start in range(0, len(frames), 64):
                chunk = np.ascontiguousarray(frames[start : start + 64])
                pixels = preprocess(chunk.reshape(-1, *chunk.shape[2:]), config).unflatten(0, chunk.shape[:2])
                with torch.autocast("cpu", torch.bfloat16):
                    features = encoder(pixels).to(torch.bfloat16)
                kept[done : done + len(chunk)] = features.view(torch.int16).numpy()
                done += len(chunk)
        kept.flush()
        os.replace(partial, cache)
    return torch.from_numpy(np.load(cache, mmap_mode="c")).view(torch.bfloat16)


LONG_FROM = 160
"""From this step on, a third of the dialogues are long or about two clips; before, one in twenty is."""

Drawn = tuple[Example, tuple[int, ...]]
"""A dialogue and the indices of the clips it shows."""


def draw_dialogues(
    tokenizer: Tokenizer,
    count: int,
    scenes: Sequence[Scene],
    video_tokens: int,
    rng: random.Random,
    *,
    step: int,
    events: float = 0.0,
) -> list[Drawn]:
    """``count`` dialogues about clips of ``scenes``: mostly one or two questions, at first mostly about single shapes;
    the share ``events`` of them about clips in which two things happen in order.

    In a long dialogue the first answers give the later ones away, so that little is learned from the clip.
    """
    single = [i for i, s in enumerate(scenes) if len(s.shapes) == 1 and s.camera == "still"] or range(len(scenes))
    eventful = [i for i, s in enumerate(scenes) if s.events() is not None] if events else []
    made: list[Drawn] = []
    while len(made) < count:
        if rng.random() < (0.05 if step < LONG_FROM else 0.33):
            made.append(_long_dialogue(tokenizer, scenes, video_tokens, rng))
            continue
        clip = rng.choice(single) if rng.random() < max(0.2, 0.8 - step / 400) else rng.randrange(len(scenes))
        if eventful and rng.random() < events:
            clip = rng.choice(eventful)
        exchanges = []
        for kind in kinds_about(scenes[clip], rng):
            asked = ask(scenes[clip], kind, rng) if kind != "any" else None
            if asked is not None:
                exchanges.append((asked.text, asked.answer))
            elif kind == "any":
                turn = watching(rng, scene=scenes[clip], turns=1).turns[0]
                exchanges.append((turn.user, turn.answer))
        if exchanges:
            turns = tuple(Turn(u, a, () if i else (0,)) for i, (u, a) in enumerate(exchanges))
            dialogue = Dialogue((scenes[clip],), turns)
            made.append((encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (clip,)))
    return made


def _long_dialogue(tokenizer: Tokenizer, scenes: Sequence[Scene], video_tokens: int, rng: random.Random) -> Drawn:
    first, second = rng.randrange(len(scenes)), rng.randrange(len(scenes))
    kind = rng.random()
    if kind < 0.2:
        dialogue = watching_what_was_filmed(rng, scenes=(scenes[first], scenes[second]))
        return encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (first, second)
    if kind < 0.5:
        dialogue = watching_two(rng, scenes=(scenes[first], scenes[second]), turns=4)
        return encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (first, second)
    dialogue = watching(rng, scene=scenes[first], turns=rng.randint(3, 6))
    return encode_dialogue(tokenizer, dialogue, rng, video_tokens=video_tokens), (first,)


def align(
    abstractor: Abstractor,
    language_model: Any,
    tokenizer: Tokenizer,
    clips: KnownClips,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    seed: int,
    name: str = "align",
    first_step: int = 0,
    events: float = 0.0,
) -> None:
    """Train ``abstractor`` in place on ``clips``; the language model stays as it is.

    A round that goes on where another ended has a ``name`` of its own, begins with dialogues as mixed as those of
    ``first_step``, and may ask more about what happens in order (``events``, see ``draw_dialogues``).
    """
    language_model.requires_grad_(False).eval()
    abstractor.requires_grad_(True).train()
    tokens = abstractor.config.tokens

    def draw(rng: random.Random, count: int, step: int) -> list[Drawn]:
        return draw_dialogues(tokenizer, count, clips.scenes, tokens, rng, step=step + first_step, events=events)

    pooled = Pooled(draw, lambda pair: len(pair[0].ids), lambda step: batch_size, f"{name}/{seed}")

    def loss_of(step: int) -> Tensor:
        batch = pooled.batch(step)
        ids, labels = collate([example for example, _ in batch])
        shown = [clip for _, shows in batch for clip in shows]
        with torch.autocast("cpu", torch.bfloat16):
            video = abstractor(clips.features(shown))
            embeddings = language_model.get_input_embeddings()(ids)
            embeddings = with_video(embeddings, [e for e, _ in batch], video)
            return answer_loss(language_model, embeddings, labels)

    train_loop(abstractor.named_parameters(), loss_of, options, folder=folder, name=name)


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
