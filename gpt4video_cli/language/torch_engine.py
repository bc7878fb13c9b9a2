"""The engine for every device PyTorch knows: a Hugging Face LLaMA with an optional LoRA adapter.

Letters: n tokens of a prompt or of a part of it, D width of the language model's embeddings, V size of the vocabulary.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.adapters import Adapter
from gpt4video_cli.language.end_tokens import find_end_ids
from gpt4video_cli.language.engine import GenerationStats, KeptCache, SamplingOptions, Segment
from gpt4video_cli.language.prompt_units import Unit, common_prefix, lay_out
from gpt4video_cli.language.sampling import new_generator, next_token
from gpt4video_cli.language.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    from gpt4video_cli.language.adapter import PeftAdapters

CHUNK = 512
"""Positions evaluated at once: bounds the memory for attention and the wait until a cancel is seen."""


class TorchCache:
    """Keys and values of one conversation. ``units[i]`` says what position i of ``past`` was computed from."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        from transformers.cache_utils import DynamicCache

        self.units: list[Unit] = []
        self.past = DynamicCache()
        self.epoch = self.engine.epoch

    def keep(self, length: int) -> None:
        """Drop all positions from ``length`` on."""
        if length == 0:
            self.clear()
        elif surplus := len(self.units) - length:
            self.past.crop(-surplus)
            del self.units[length:]


class TorchEngine:
    """A loaded LLaMA; see ``engine.Engine`` for what each member promises."""

    name = "torch"
    has_grammar = False

    def __init__(
        self, model: LlamaForCausalLM, tokenizer: Tokenizer, end_ids: frozenset[int], *, context_length: int
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.context_length = context_length
        self.width: int = model.config.hidden_size
        self.device = str(model.device)
        self.adapters: tuple[Adapter, ...] = ()
        self._merged: Adapter | None = None
        self._apart: PeftAdapters | None = None
        self.epoch = 0  # counts changes of adapters: a kept cache of an older one is worth nothing

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        adapter: str | Path | None = None,
        device: str = "auto",
        dtype: torch.dtype | str = "auto",
        context_length: int | None = None,
        merge_adapter: bool | None = None,
        weights: str | None = None,
        device_map: Mapping[str, str] | None = None,
    ) -> TorchEngine:
        """From a Hugging Face LLaMA folder and, if given, a PEFT LoRA folder.

        ``device`` "auto": a CUDA GPU if there is one, else the CPU. ``dtype`` "auto": float32 on a CPU (half precision
        is slow or missing on most), else bfloat16. ``context_length`` may shorten the model's own. ``merge_adapter``
        None: adds the adapter to the weights in float32, and keeps it apart in narrower formats, where rounding the
        sum would lose part of it. ``weights`` "8bit" or "4bit": linear layers so narrow (bitsandbytes), the rest in
        ``dtype``. ``device_map``: layers on several devices, see ``model.placement``; ``device`` is then the first.
        """
        folder = Path(folder)
        tokenizer = Tokenizer.load(folder)  # before the slow imports, so that a bad folder is told at once
        end_ids = find_end_ids(folder, tokenizer)
        import torch

        from gpt4video_cli.language.llama_folder import load_llama
        from gpt4video_cli.model.strict_load import choose_device, choose_dtype

        place = choose_device(device)
        number = choose_dtype(dtype, place)
        narrow = {"eight_bit": weights == "8bit", "four_bit": weights == "4bit"}
        model = load_llama(folder, device=str(place), dtype=number, device_map=device_map, **narrow)
        rows = model.config.vocab_size
        if tokenizer.size > rows:
            raise WeightsError(f"{folder}: the tokenizer has ids up to {tokenizer.size - 1}, the model has {rows} rows")
        own = None if adapter is None else Adapter("adapter", Path(adapter))
        if merge_adapter is None:
            merge_adapter = number == torch.float32 and not any(narrow.values())
        if own is not None and merge_adapter:
            from gpt4video_cli.language.adapter import attach_adapter

            model = attach_adapter(model, own.path, merge=True)
        longest = int(model.config.max_position_embeddings)
        if context_length is not None and not 1 < context_length <= longest:
            raise UsageError(f"context length must be between 2 and the model's {longest}, got {context_length}")
        engine = cls(model, tokenizer, end_ids, context_length=context_length or longest)
        if own is not None and merge_adapter:
            engine.adapters, engine._merged = (own,), own
        elif own is not None:
            engine.use_adapters([own])
        return engine

    def tokenize(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of ``text`` alone, without start or end token."""
        return self.tokenizer.encode(text, trusted=trusted)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out."""
        return self.tokenizer.decode(ids)

    def new_cache(self) -> TorchCache:
        """An empty cache for one conversation."""
        return TorchCache(self)

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Have exactly these PEFT folders in force beside the weights, of scale 0 none; nothing is loaded twice.

        All kept caches are worth nothing afterwards. Raises ``WeightsError``, and ``UsageError`` where an adapter was
        added to the weights when they were loaded.
        """
        if tuple(adapters) == self.adapters:
            return
        if self._merged is not None:
            raise UsageError(
                f"adapter {self._merged.name} was added to the weights, which cannot be undone",
                hint=f"start with --adapter {self._merged.name}, which keeps it apart, or with --engine llama",
            )
        if self._apart is None:
            from gpt4video_cli.language.adapter import PeftAdapters

            self._apart = PeftAdapters(self.model)
        self.epoch += 1
        self.adapters = ()
        self._apart.put_in_force([])
        self._apart.put_in_force(adapters)
        self.adapters = tuple(adapters)

    def generate(
        self,
        segments: Sequence[Segment],
        options: SamplingOptions,
        *,
        cache: KeptCache,
        stats: GenerationStats,
        cancel: threading.Event | None = None,
    ) -> Iterator[int]:
        """See ``Engine.generate``. Errors are raised when the first token is asked for.

        Whatever ends it (an end token, a cancel, the caller closing this iterator, an exception), ``cache`` holds
        exactly the positions that its units name. The last token before ``length`` or ``context`` is yielded without
        being evaluated: the next turn does that, and nothing is computed twice.
        """
        if not isinstance(cache, TorchCache) or cache.engine is not self:
            raise TypeError("the cache belongs to another engine")
        units, embeddings = lay_out(self, segments, self.model.config.vocab_size)
        stats.prompt_tokens = len(units)
        history = [unit for unit in units if isinstance(unit, int)]
        generator = new_generator(options.seed)
        stats.finish_reason = "cancelled"  # until the reply ends in another way
        start = time.perf_counter()
        try:
            logits = self._prefill(cache, units, embeddings, stats, cancel)
        finally:
            stats.prefill_seconds = time.perf_counter() - start
        start = time.perf_counter()
        try:
            while logits is not None and not (cancel is not None and cancel.is_set()):
                token = next_token(logits, options, history, generator)
                if token in self.end_ids:
                    stats.finish_reason = "stop"
                    return
                history.append(token)
                stats.ids.append(token)
                stats.new_tokens += 1
                yield token
                if stats.new_tokens >= options.max_tokens:
                    stats.finish_reason = "length"
                    return
                if len(units) + stats.new_tokens >= self.context_length:
                    stats.finish_reason = "context"
                    return
                if cancel is not None and cancel.is_set():
                    return
                logits = self._evaluate(cache, [token], self._embed([token], {}))
        finally:
            stats.decode_seconds = time.perf_counter() - start

    def logits(self, segments: Sequence[Segment], cache: TorchCache | None = None) -> torch.Tensor:
        """Logits float32 [V] of the token after ``segments``, for measurements. Without ``cache`` nothing is kept."""
        cache = cache or self.new_cache()
        units, embeddings = lay_out(self, segments, self.model.config.vocab_size)
        result = self._prefill(cache, units, embeddings, GenerationStats(), None)
        assert result is not None
        return result.to("cpu").float()

    def _prefill(
        self,
        cache: TorchCache,
        units: list[Unit],
        embeddings: dict[str, Any],
        stats: GenerationStats,
        cancel: threading.Event | None,
    ) -> torch.Tensor | None:
        """Bring ``cache`` to ``units`` by evaluating what it lacks; logits [V] after the last, None if cancelled."""
        if cache.epoch != self.epoch:
            cache.clear()
        shared = common_prefix(cache.units, units)
        shared = min(shared, len(units) - 1)  # the last position is always evaluated: its logits are needed
        cache.keep(shared)
        stats.reused_tokens = shared
        logits = None
        for begin in range(shared, len(units), CHUNK):
            if cancel is not None and cancel.is_set():
                return None
            chunk = units[begin : begin + CHUNK]
            logits = self._evaluate(cache, chunk, self._embed(chunk, embeddings))
            stats.evaluated_tokens += len(chunk)
        return logits

    def _embed(self, units: Sequence[Unit], embeddings: dict[str, Any]) -> torch.Tensor:
        """What the first layer gets for ``units``: [1, n, D] on the model's device, in the model's dtype."""
        import torch

        ids = torch.tensor([unit if isinstance(unit, int) else 0 for unit in units], device=self.model.device)
        with torch.inference_mode():
            result: torch.Tensor = self.model.get_input_embeddings()(ids)
            for key, given in embeddings.items():
                rows = {at: unit[1] for at, unit in enumerate(units) if not isinstance(unit, int) and unit[0] == key}
                if rows:
                    result[list(rows)] = torch.as_tensor(given)[list(rows.values())].to(result.device, result.dtype)
        return result[None]

    def _evaluate(self, cache: TorchCache, units: Sequence[Unit], inputs: torch.Tensor) -> torch.Tensor:
        """Append ``units``, embedded as ``inputs`` [1, n, D], to ``cache``; logits [V] after the last of them."""
        import torch

        first = len(cache.units)
        positions = torch.arange(first, first + len(units), device=inputs.device)[None]
        try:
            with torch.inference_mode():
                result: Any = self.model(
                    inputs_embeds=inputs,
                    position_ids=positions,
                    past_key_values=cache.past,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except BaseException:  # also Ctrl-C: some layers may hold the new positions and others not
            cache.clear()
            raise
        cache.units += units
        logits: torch.Tensor = result.logits[0, -1]
        return logits
