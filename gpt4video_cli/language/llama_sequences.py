"""Which conversation has which sequence of llama.cpp's one key/value cache, and who must go when it is full."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable

from gpt4video_cli.language.llama_context import LlamaContext
from gpt4video_cli.language.prompt_units import Unit


class LlamaCache:
    """Keys and values of one conversation. ``units[i]`` says what position i was computed from.

    ``sequence``: its number in the context; None before the first use, and after it had to make room for another.
    """

    def __init__(self, sequences: LlamaSequences) -> None:
        self.sequences = sequences
        self.units: list[Unit] = []
        self.sequence: int | None = None

    def clear(self) -> None:
        """Forget everything."""
        self.sequences.release(self)

    def keep(self, length: int) -> None:
        """Drop all positions from ``length`` on."""
        if length == 0:
            self.clear()
        elif length < len(self.units):
            assert self.sequence is not None
            self.sequences.context.forget(self.sequence, length)
            del self.units[length:]


class LlamaSequences:
    """The sequences ``numbers`` of a context with room for ``cells`` positions in all. Its users lock it."""

    def __init__(self, context: LlamaContext, numbers: Iterable[int], cells: int) -> None:
        self.context = context
        self._free = list(numbers)
        self._cells = cells
        self._taken: OrderedDict[int, weakref.ref[LlamaCache]] = OrderedDict()  # the longest silent first

    def take(self, cache: LlamaCache, length: int) -> int:
        """The sequence of ``cache``, with room for ``length`` positions in it; others are forgotten for that."""
        for number, reference in list(self._taken.items()):
            if reference() is None:  # the conversation is gone
                self._drop(number)
        if cache.sequence is None:
            if not self._free:
                self._forget_oldest(cache)
            cache.sequence = self._free.pop()
            self._taken[cache.sequence] = weakref.ref(cache)
        self._taken.move_to_end(cache.sequence)
        while self._used_by_others(cache) + length > self._cells:
            self._forget_oldest(cache)
        return cache.sequence

    def release(self, cache: LlamaCache) -> None:
        """Give back what ``cache`` has."""
        if cache.sequence is not None:
            self._drop(cache.sequence)
        cache.units, cache.sequence = [], None

    def forget_all(self) -> None:
        """Every conversation must be evaluated anew."""
        for number, reference in list(self._taken.items()):
            cache = reference()
            if cache is not None:
                self.release(cache)
            else:
                self._drop(number)

    def _drop(self, number: int) -> None:
        self.context.forget(number)
        del self._taken[number]
        self._free.append(number)

    def _used_by_others(self, cache: LlamaCache) -> int:
        others = [reference() for number, reference in self._taken.items() if number != cache.sequence]
        return sum(len(other.units) for other in others if other is not None)

    def _forget_oldest(self, keeping: LlamaCache) -> None:
        oldest = next(number for number in self._taken if number != keeping.sequence)
        cache = self._taken[oldest]()
        if cache is not None:
            self.release(cache)
        else:
            self._drop(oldest)
