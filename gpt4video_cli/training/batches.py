"""Which dialogues make up each step, drawn from the step's number alone; and how they share rows.

Letters: R rows of a micro-batch, L positions of a row, N video tokens of a clip, D width of the language model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gpt4video_cli.data.samples import IGNORED
from gpt4video_cli.training.dialogue_set import ClipUse, TrainingSample

WINDOW = 32
"""Batches that are drawn together and sorted by length, so that dialogues of like length meet; fewer where an epoch has
fewer, or a dialogue would meet itself from other epochs."""


class Order:
    """An endless series of batches: epoch after epoch in random order, cut; with ``bucketing`` into batches of like
    length.

    Batches go on over the end of an epoch, so that none is short. Each is a function of ``seed`` and its number.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int, bucketing: bool = True) -> None:
        self.size = batch_size
        self.together = min(WINDOW, max(len(lengths) // batch_size, 1))
        """Batches that are drawn together."""
        self._lengths, self._seed, self._bucketing = lengths, seed, bucketing
        self._window: tuple[int, list[list[int]]] = (-1, [])
        self._epoch: tuple[int, list[int]] = (-1, [])

    def batch(self, step: int) -> list[int]:
        """Indices of the samples of a step, longest first."""
        number, place = divmod(step, self.together)
        if self._window[0] != number:
            self._window = number, self._cut(number)
        return self._window[1][place]

    def _cut(self, number: int) -> list[list[int]]:
        count = self.together * self.size
        first = number * count
        drawn = [self._at(first + i) for i in range(count)]
        if self._bucketing:
            drawn.sort(key=self._rank)
        batches = [sorted(drawn[i : i + self.size], key=self._rank) for i in range(0, count, self.size)]
        random.Random(f"batches/{self._seed}/{number}").shuffle(batches)
        return batches

    def _rank(self, index: int) -> tuple[int, int]:
        return -self._lengths[index], index

    def _at(self, place: int) -> int:
        epoch, within = divmod(place, len(self._lengths))
        if self._epoch[0] != epoch:
            order = list(range(len(self._lengths)))
            random.Random(f"epoch/{self._seed}/{epoch}").shuffle(order)
            self._epoch = epoch, order
        return self._epoch[1][within]


def shares(batch: Sequence[int], *, processes: int, micro_batch_size: int) -> list[list[list[int]]]:
    """For each process its micro-batches, as many for each; of like length, because ``batch`` is sorted by it.

    Sizes differ by one at most, so that no process waits long for another; with fewer samples than processes some are
    empty.
    """
    rounds = max(1, -(-len(batch) // (micro_batch_size * processes)))
    count = rounds * processes
    ends = [len(batch) * i // count for i in range(count + 1)]
    micro = [list(batch[start:end]) for start, end in pairwise(ends)]
    return [micro[rank::processes] for rank in range(processes)]


@dataclass(frozen=True, eq=False)
class Rows:
    """A micro-batch. ``ids``, ``positions`` int64 ``[R, L]``; ``owner`` int64 ``[R, L]``: which sample a position
    belongs to, -1 for padding; ``packed``: whether a row has more than one; ``clips``: (row, first position, clip) in
    the order of their features. Learned are the ``targets``, int64 ``[n]``, each from the state at its place in
    ``sources``, int64 ``[n]``, counted over the flattened rows."""

    ids: Tensor
    positions: Tensor
    owner: Tensor
    sources: Tensor
    targets: Tensor
    packed: bool
    clips: tuple[tuple[int, int, ClipUse], ...]


ROOMS = (1, 2, 4)
"""Row lengths that are tried for packing, as multiples of the longest sample."""


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of ``lengths`` by row: each goes into the first row of ``room`` that has place for it, longest first."""
    rows: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((i for i, free in enumerate(left) if free >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(index)
        left[row] -= lengths[index]
    return rows


def row_cost(rows: int, length: int, width: int) -> int:
    """What a LLaMA layer of that width computes for so many rows, in units of its multiplications: 12 D^2 of a position
    in its linear layers, 2 D for each position that it may look at."""
    return rows * length * (6 * width + length)


def packed_rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices of ``lengths`` by row, several in one where that is less work than one in each.

    Long rows have little padding, but attention costs the square of their length: for a narrow model, or samples of
    like length, single rows are the faster ones.
    """
    single = [[index] for index in range(len(lengths))]
    longest = max(lengths, default=1)
    best, least = single, row_cost(len(single), longest, width)
    for multiple in ROOMS:
        rows = first_fit(lengths, longest * multiple)
        length = max(sum(lengths[i] for i in row) for row in rows) if rows else 1
        # A mask in place of the built-in causal attention: it looks at all pairs, not at half of them.
        cost = row_cost(len(rows), length, width) + len(rows) * length * length
        if cost < least:
            best, least = rows, cost
    return best


def make_rows(samples: Sequence[TrainingSample], places: Sequence[Sequence[int]] | None = None) -> Rows:
    """Lay samples into rows: one in each, or as ``places`` says, which has indices of ``samples`` by row."""
    chosen = [[index] for index in range(len(samples))] if places is None else places
    rows = [[samples[index] for index in row] for row in chosen]
    width = max((sum(len(sample.ids) for sample in row) for row in rows), default=1)
    ids = torch.zeros(max(1, len(rows)), width, dtype=torch.long)
    labels, positions, owner = torch.full_like(ids, IGNORED), torch.zeros_like(ids), torch.full_like(ids, -1)
    clips = []
    number = 0
    for r, row_samples in enumerate(rows):
        at = 0
        for sample in row_samples:
            n = len(sample.ids)
            ids[r, at : at + n] = torch.tensor(sample.ids)
            labels[r, at + 1 : at + n] = torch.tensor(sample.labels[1:])  # nothing foretells a sample's first token
            positions[r, at : at + n] = torch.arange(n)
            owner[r, at : at + n] = number
            clips += [(r, at + use.position, use) for use in sample.clips]
            at += n
            number += 1
    learned = (labels.flatten() != IGNORED).nonzero()[:, 0]
    packed = any(len(row_samples) > 1 for row_samples in rows)
    return Rows(ids, positions, owner, learned - 1, labels.flatten()[learned], packed, tuple(clips))


def attention_mask(rows: Rows) -> Tensor | None:
    """bool ``[R, 1, L, L]``: what each position may look at, within its own sample and not ahead. None where plain
    causal attention does the same: one sample in each row, padding behind it."""
    if not rows.packed:
        return None
    same = rows.owner[:, :, None] == rows.owner[:, None, :]
    return (same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril())[:, None]
