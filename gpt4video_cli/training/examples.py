"""Dialogue -> token ids and labels, laid out exactly as the paper's prompt template lays out a chat.

Letters: L tokens of an example, N video tokens of a clip.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gpt4video_cli.shapeworld.captions import describe
from gpt4video_cli.shapeworld.dialogues import Dialogue

IGNORED = -100
"""Label of a position that does not count in the loss (PyTorch's convention)."""
START, END = 1, 2


@dataclass
class Example:
    """``ids`` and ``labels`` of length L; ``clips`` holds (position of the first video token, scene index)."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    clips: list[tuple[int, int]] = field(default_factory=list)

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
) -> Example:
    """Lay out ``dialogue``. Clips are ``video_tokens`` placeholders (id 0), or descriptions where that is None."""

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
            if video_tokens is None:
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


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """ids, labels and attention mask, each int64 ``[B, L]``, padded on the right."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        n = len(example.ids)
        ids[row, :n] = torch.tensor(example.ids)
        labels[row, :n] = torch.tensor(example.labels)
        mask[row, :n] = 1
    return ids, labels, mask
