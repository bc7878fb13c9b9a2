"""Dialogue -> token ids and labels, laid out exactly as the paper's prompt template lays out a chat.

Letters: L tokens of an example, N video tokens of a clip.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.data.samples import IGNORED, Sample, StandIn, lay_out
from gpt4video_cli.model.prompt import PAPER, PromptClip, PromptTurn
from gpt4video_cli.shapeworld.captions import describe, facts
from gpt4video_cli.shapeworld.dialogues import Dialogue

START, END = 1, 2
MOST_EMPTY = 9
"""Fewer placeholders than this stand between the folded facts about a clip."""
NOISE = 0.2
"""Noise on folded facts, in standard deviations of the word embeddings: a video's tokens are never exact either."""
_FUNCTION_WORDS = frozenset("there is are the a an to it from but then at".split())


@dataclass
class Example(Sample):
    """A dialogue about ShapeWorld clips; a clip's key is the number of its scene."""

    folded: list[tuple[int, list[int]]] = field(default_factory=list)
    """(position, token ids of a sentence): the sentence stands at that one position, folded to one embedding."""


def encode_dialogue(
    tokenizer: Tokenizer,
    dialogue: Dialogue,
    rng: random.Random,
    *,
    video_tokens: int | None = None,
    folded: bool = False,
) -> Example:
    """Lay out ``dialogue``. Clips are ``video_tokens`` placeholders (id 0), or descriptions where that is None.

    With ``folded`` a description is a list of facts, each folded to one embedding, at random places among a few
    placeholders that say nothing: it looks like the tokens of a video, which is what it stands for.
    """

    def encode(words: str, trusted: bool = True) -> list[int]:
        return tokenizer.encode(words, add_special_tokens=False).ids  # type: ignore[no-any-return]

    facts_of: dict[str, list[tuple[int, list[int]]]] = {}
    turns = []
    for turn in dialogue.turns:
        clips = []
        for clip in turn.clips:
            scene = dialogue.scenes[clip]
            if folded:
                sentences = [encode(content_words(fact)) for fact in facts(scene, rng)]
                slots = len(sentences) + rng.randrange(MOST_EMPTY)
                facts_of[str(clip)] = list(zip(rng.sample(range(slots), len(sentences)), sentences, strict=True))
                ids = [0] * slots
            else:
                ids = [0] * video_tokens if video_tokens is not None else encode(describe(scene, rng))
            clips.append(PromptClip(str(clip), StandIn(tuple(ids)), clip + 1, len(turn.clips) == 1))
        turns.append(PromptTurn(turn.user, tuple(clips), turn.answer))
    sample = lay_out(PAPER, encode, turns)
    places = [(start + place, ids) for start, key in sample.clips for place, ids in facts_of.get(key, [])]
    return Example(sample.ids, sample.labels, sample.clips, places)


def content_words(sentence: str) -> str:
    """``sentence`` without what says nothing by itself, "The red star grows." -> " red star grows".

    The blank in front of every word makes it the token that it is within a sentence.
    """
    words = re.findall(r"[a-z]+", sentence.lower())
    return "".join(f" {word}" for word in words if word not in _FUNCTION_WORDS)


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """ids and labels, both int64 ``[B, L]``, padded on the right.

    There, causal attention never looks back from padding, so that no mask is needed.
    """
    longest = max(len(e.ids) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        n = len(example.ids)
        ids[row, :n] = torch.tensor(example.ids)
        labels[row, :n] = torch.tensor(example.labels)
    return ids, labels


def embed(words: torch.nn.Module, examples: Sequence[Example], ids: Tensor, *, seed: int) -> Tensor:
    """Embeddings ``[B, L, D]`` of ``ids`` ``[B, L]``, with the folded sentences of ``examples`` at their places.

    A folded sentence is the sum of the embeddings of its tokens.
    """
    embeddings: Tensor = words(ids)
    folded = [(row, place, tokens) for row, e in enumerate(examples) for place, tokens in e.folded]
    if not folded:
        return embeddings
    each = torch.cat([torch.full((len(tokens),), i) for i, (_, _, tokens) in enumerate(folded)])
    tokens = torch.tensor([t for _, _, tokens in folded for t in tokens])
    sums = torch.zeros(len(folded), embeddings.shape[-1]).index_add(0, each, words(tokens))
    generator = torch.Generator().manual_seed(seed)
    empty = (ids == 0)[..., None]
    noise = NOISE * embeddings.detach().std() * torch.randn(embeddings.shape, generator=generator)
    embeddings = torch.where(empty, noise.to(embeddings.dtype), embeddings)
    rows, places = torch.tensor([[row, place] for row, place, _ in folded]).T
    return embeddings.index_put((rows, places), sums.to(embeddings.dtype), accumulate=True)


def answer_loss(language_model: Any, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Equation (5): mean negative log likelihood of the assistant's tokens, given everything before each.

    ``embeddings`` float ``[B, L, D_llm]``, ``labels`` int64 ``[B, L]`` with ``IGNORED`` where nothing is learned. Only
    the positions that count go through the output layer.
    """
    hidden = language_model.model(inputs_embeds=embeddings).last_hidden_state
    counts = labels[:, 1:] != IGNORED
    logits = language_model.lm_head(hidden[:, :-1][counts])
    return F.cross_entropy(logits.float(), labels[:, 1:][counts])
