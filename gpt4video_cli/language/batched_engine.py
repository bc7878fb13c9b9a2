"""Several answers in one step: a ``TorchEngine`` whose ``generate`` may run in several threads at once.

Each prompt is evaluated alone, as ever. From then on the conversations that wait for their next token take that step
together: their keys and values stand in one tensor, padded on the left, each row with its own positions and a mask. A
conversation that ends takes its keys and values with it, so that its next turn is as cheap as otherwise.

The sums of a step are rounded as the shapes of the tensors have it, so an answer may differ from one written alone
where two tokens are equally likely to the last bit; and only there.

Letters: R rows, one for each conversation, L positions of the longest, D width of the language model's embeddings, V
size of its vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt4video_cli.language.engine import GenerationStats, KeptCache, SamplingOptions, Segment
from gpt4video_cli.language.prompt_units import Unit
from gpt4video_cli.language.torch_engine import TorchCache, TorchEngine

if TYPE_CHECKING:
    import torch

PATIENCE = 0.05
"""Seconds that a step waits for a conversation which is busy with something else, such as a guard."""


@dataclass(eq=False)
class _Row:
    """A conversation that waits for a step: its last token, embedded as ``inputs`` [1, 1, D]."""

    cache: TorchCache
    unit: Unit
    inputs: torch.Tensor
    logits: torch.Tensor | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class BatchedEngine(TorchEngine):
    """See the file's text. Made from a ``TorchEngine``, whose model it shares."""

    def __init__(self, engine: TorchEngine) -> None:
        vars(self).update(vars(engine))  # the same model, tokenizer and adapters
        self._device_lock = threading.Lock()
        """Held by whoever computes."""
        self._turn = threading.Condition()
        """Guards the next two."""
        self._writing: set[TorchCache] = set()
        self._waiting: list[_Row] = []
        self._together: _Together | None = None
        self.steps = 0
        """Steps that were taken, by however many conversations."""

    def generate(
        self,
        segments: Sequence[Segment],
        options: SamplingOptions,
        *,
        cache: KeptCache,
        stats: GenerationStats,
        cancel: threading.Event | None = None,
    ) -> Iterator[int]:
        """See ``Engine.generate``; the tokens of one ``cache`` are asked for by one thread at a time."""
        tokens = super().generate(segments, options, cache=cache, stats=stats, cancel=cancel)
        try:
            with closing(tokens):  # type: ignore[type-var]
                yield from tokens
        finally:
            if isinstance(cache, TorchCache):
                self._leave(cache)

    def _evaluate(self, cache: TorchCache, units: Sequence[Unit], inputs: torch.Tensor) -> torch.Tensor:
        if len(units) > 1:
            with self._device_lock:
                return super()._evaluate(cache, units, inputs)
        row = _Row(cache, units[0], inputs)
        with self._turn:
            self._writing.add(cache)
            self._waiting.append(row)
            self._turn.notify_all()
            self._turn.wait_for(lambda: row.done or self._all_wait(), PATIENCE)
        while not row.done:  # one of those who wait takes the step for all
            with self._device_lock:
                with self._turn:
                    rows, self._waiting = self._waiting, []
                if rows:
                    self._step(rows)
                    with self._turn:
                        self._turn.notify_all()
        if row.error is not None:
            raise row.error
        assert row.logits is not None
        return row.logits

    def _all_wait(self) -> bool:
        return len(self._waiting) >= len(self._writing)

    def _leave(self, cache: TorchCache) -> None:
        """The answer is complete: nobody waits for it any more, and it has its own keys and values again."""
        with self._turn:
            if cache not in self._writing:
                return
            self._writing.remove(cache)
            self._turn.notify_all()
        with self._device_lock:
            if self._together is not None and cache in self._together.caches:
                self._part()

    def _part(self) -> None:
        if self._together is not None:
            self._together.give_back()
            self._together = None

    def _step(self, rows: list[_Row]) -> None:
        """One step of all ``rows``: fills in their logits [V], or the error of each."""
        self.steps += 1
        if len(rows) > 1 and self._step_together(rows):
            return
        self._part()
        for row in rows:
            try:
                row.logits = super()._evaluate(row.cache, [row.unit], row.inputs)
            except BaseException as error:
                row.error = error

    def _step_together(self, rows: list[_Row]) -> bool:
        """Whether it could be done: where there is not enough memory for all of them, each goes alone."""
        if self._together is not None and {row.cache for row in rows} != set(self._together.caches):
            self._part()
        try:
            if self._together is None:
                self._together = _Together([row.cache for row in rows])
            self._together.step(self.model, rows)
        except Exception:
            return False
        return True


class _Together:
    """Keys and values of several conversations in one cache: row i is that of ``caches[i]``, its end on the right."""

    def __init__(self, caches: Sequence[TorchCache]) -> None:
        import torch
        from torch.nn.functional import pad
        from transformers.cache_utils import DynamicCache

        self.caches = list(caches)
        longest = max(len(cache.units) for cache in self.caches)
        self._pads = [longest - len(cache.units) for cache in self.caches]
        self._past = DynamicCache()
        for layer in range(len(self.caches[0].past.layers)):
            parts: list[tuple[torch.Tensor, torch.Tensor]] = []
            for cache, before in zip(self.caches, self._pads, strict=True):
                own = cache.past.layers[layer]
                parts.append((pad(own.keys, (0, 0, before, 0)), pad(own.values, (0, 0, before, 0))))
            keys, values = (torch.cat([part[i] for part in parts]) for i in range(2))
            self._past.update(keys, values, layer)
        for cache in self.caches:
            cache.past = DynamicCache()  # they are here now, and need not be in memory twice

    def step(self, model: Any, rows: Sequence[_Row]) -> None:
        """Append one position to each row and fill in its logits [V]. An error leaves all as it was (``give_back``)."""
        import torch

        rows = sorted(rows, key=lambda row: self.caches.index(row.cache))
        inputs = torch.cat([row.inputs for row in rows])  # [R, 1, D]
        lengths = [len(cache.units) for cache in self.caches]
        total = lengths[0] + self._pads[0] + 1
        at = torch.arange(total, device=inputs.device)
        pads = torch.tensor(self._pads, device=inputs.device)[:, None]
        with torch.inference_mode():
            result = model(
                inputs_embeds=inputs,
                position_ids=torch.tensor(lengths, device=inputs.device)[:, None],
                attention_mask=(at >= pads).long() if any(self._pads) else None,  # [R, L + 1]
                past_key_values=self._past,
                use_cache=True,
                logits_to_keep=1,
            )
        for row, logits in zip(rows, result.logits[:, -1], strict=True):
            row.cache.units.append(row.unit)
            row.logits = logits

    def give_back(self) -> None:
        """Each conversation gets its own keys and values again, without what a failed step left in some layers."""
        from transformers.cache_utils import DynamicCache

        for index, (cache, before) in enumerate(zip(self.caches, self._pads, strict=True)):
            cache.past = DynamicCache()
            for layer, both in enumerate(self._past.layers):
                own = slice(before, before + len(cache.units))
                keys, values = (one[index : index + 1, :, own] for one in (both.keys, both.values))
                cache.past.update(keys, values, layer)
