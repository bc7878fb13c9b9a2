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

from gpt4video_cli.shapeworld.captions import describe, facts
from gpt4video_cli.shapeworld.dialogues import Dialogue

IGNORED = -100
"""Label of a position that does not count in the loss (PyTorch's convention)."""
START, END = 1, 2
MOST_EMPTY = 9
"""Fewer placeholders than this stand between the folded facts about a clip."""
NOISE = 0.2
"""Noise on folded facts, in standard deviations of the word embeddings: a video's tokens are never exact either."""
_FUNCTION_WORDS = frozenset("there is are the a an to it from but then at".split())


@dataclass
class Example:
    """``ids`` and ``labels`` of length L; ``clips`` holds (position of the first video token, scene index)."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    clips: list[tuple[int, int]] = field(default_factory=list)
    folded: list[tuple[int, list[int]]] = field(default_factory=list)
    """(position, token ids of a sentence): the sentence stands at that one position, folded to one embedding."""

    def add(self, ids: Sequence[int], *, learn: bool = False) -> None:
        """Append ``ids``; only those to ``learn`` count in the loss (equation 5: the assistant's tokens)."""
        self.ids.extend(ids)
        self.labels.extend(ids if learn else [IGNORED] * len(ids))


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

    def text(words: str) -> list[int]:
        return tokenizer.encode(words, add_special_tokens=False).ids  # type: ignore[no-any-return]

    example = Example()
    example.add([START])
    for i, turn in enumerate(dialogue.turns):
        if i:
            example.add(text("\n"))
        for clip in turn.clips:
            # The first clip has no number where it came alone (paper, section 3.4: <video> and <videoX>).
            tag = "video" if clip == 0 and len(turn.clips) == 1 else f"video{clip + 1}"
            example.add(text(f"###Human: <{tag}>"))
            if folded:
                sentences = [text(content_words(fact)) for fact in facts(dialogue.scenes[clip], rng)]
                slots = len(sentences) + rng.randrange(MOST_EMPTY)
                places = rng.sample(range(len(example.ids), len(example.ids) + slots), len(sentences))
                example.folded += zip(places, sentences, strict=True)
                example.add([0] * slots)
            elif video_tokens is None:
                example.add(text(describe(dialogue.scenes[clip], rng)))
            else:
                example.clips.append((len(example.ids), clip))
                example.add([0] * video_tokens)
            example.add(text(f"</{tag}>\n"))
        example.add(text("###Human: "))
        example.add(text(turn.user))
        example.add(text("\n###AI: "))
        example.add([*text(turn.answer), END], learn=True)
    return example


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
