"""Batches of like length for steps that follow each other, drawn from a seed and the number of the step alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
POOLED = 8
"""Steps whose batches are cut from one pool."""


class Pooled(Generic[T]):
    """Cuts batches from pools that are sorted by length, so that little is padded, and shuffles them.

    draw: generator of random numbers, how many, and the first step of the pool -> so many samples.
    size_at: the first step of a pool -> samples of a batch.
    """

    def __init__(
        self,
        draw: Callable[[random.Random, int, int], list[T]],
        length: Callable[[T], int],
        size_at: Callable[[int], int],
        seed: str,
    ) -> None:
        self._draw, self._length, self._size_at, self._seed = draw, length, size_at, seed
        self._pool = -1
        self._batches: list[list[T]] = []

    def batch(self, step: int) -> list[T]:
        """The samples of ``step``."""
        pool, place = divmod(step, POOLED)
        if pool != self._pool:
            rng, first = random.Random(f"{self._seed}/{pool}"), pool * POOLED
            size = self._size_at(first)
            ordered = sorted(self._draw(rng, size * POOLED, first), key=self._length)
            self._batches = [ordered[i * size : (i + 1) * size] for i in range(POOLED)]
            rng.shuffle(self._batches)
            self._pool = pool
        return self._batches[place]
