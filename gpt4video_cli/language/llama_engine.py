"""The engine for any CPU: a GGUF file in llama.cpp, through its low-level calls.

llama-cpp-python has no call that takes embeddings, llama.cpp has: a batch holds token ids or vectors. One context with
one key/value cache serves all conversations, each as a sequence of its own; where the cache is full, the conversation
that was silent for longest is forgotten and evaluated anew when it goes on.

Letters: n positions of a prompt or of a part of it, D width of the language model's embeddings, V size of its
vocabulary.
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
from gpt4video_cli.language.gguf_header import GgufHeader, read_gguf_header
from gpt4video_cli.language.llama_adapter import PROBE_TOKENS, LlamaAdapters
from gpt4video_cli.language.llama_context import LlamaContext, LlamaModel
from gpt4video_cli.language.llama_options import CONVERSATIONS, DEFAULTS, LlamaOptions
from gpt4video_cli.language.llama_sampler import LlamaSampler
from gpt4video_cli.language.llama_sequences import LlamaCache, LlamaSequences
from gpt4video_cli.language.llama_state import fingerprint, pack, unpack
from gpt4video_cli.language.prompt_units import Unit, common_prefix, lay_out
from gpt4video_cli.language.tokenizer import Tokenizer, read_json

if TYPE_CHECKING:
    import numpy as np

CHUNK = 512
"""Positions evaluated at once: bounds the memory of a batch."""


class LlamaEngine:
    """A loaded GGUF file; see ``engine.Engine`` for what each member promises. Safe to use from several threads."""

    name = "llama"
    has_grammar = True

    def __init__(
        self,
        model: LlamaModel,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        *,
        context_length: int,
        cells: int,
        kind: str,
        options: LlamaOptions,
        merged: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        """``kind`` of its weights (``q8_0``). ``cells``: positions that all conversations have together, at least
        ``context_length``. ``merged``: an adapter is part of the weights. ``chunk``: positions evaluated at once."""
        self.tokenizer = tokenizer
        self.end_ids = end_ids
        self.context_length = context_length
        self.width = model.width
        self.kind = kind
        self.device = "cpu" if options.gpu_layers == 0 or not _has_gpu() else "gpu"
        self.adapters: tuple[Adapter, ...] = ()
        self._merged = merged
        self._model = model
        self._context = LlamaContext(
            model,
            options,
            kind=kind,
            cells=cells,
            chunk=min(chunk, context_length),
            sequences=CONVERSATIONS + 1,
        )
        self._sequences = LlamaSequences(self._context, range(CONVERSATIONS), cells)
        self._loaded = LlamaAdapters(model)
        self._lock = threading.RLock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        folder: str | Path,
        *,
        options: LlamaOptions = DEFAULTS,
        context_length: int | None = None,
    ) -> LlamaEngine:
        """From a GGUF file and the Hugging Face LLaMA folder that it was made from, whose tokenizer is used.

        ``context_length`` may shorten the model's own. Raises ``WeightsError`` where the two do not belong together.
        """
        path, folder = Path(path), Path(folder)
        tokenizer = Tokenizer.load(folder)
        end_ids = find_end_ids(folder, tokenizer)
        header = read_gguf_header(path)
        check_header(header, folder, tokenizer.size)
        longest = header.context_length
        if context_length is not None and not 1 < context_length <= longest:
            raise UsageError(f"context length must be between 2 and the model's {longest}, got {context_length}")
        if options.kv_type == "q8_0" and header.head_width % 32:
            raise UsageError(
                f"--kv-type q8_0 needs heads whose width is a multiple of 32, those of {path.name} are "
                f"{header.head_width} wide"
            )
        model = LlamaModel(path, options)
        kind, length = kind_of(path), context_length or longest
        return cls(
            model,
            tokenizer,
            end_ids,
            context_length=length,
            cells=options.cache(header, kind, length)[0],
            kind=kind,
            options=options,
            merged=bool(header.values.get("gpt4video.adapter_merged")),
        )

    def close(self) -> None:
        """Free the memory. Nothing can be generated afterwards."""
        with self._lock:
            self._context.close()
            self._model.close()

    def tokenize(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of ``text`` alone, without start or end token."""
        return self.tokenizer.encode(text, trusted=trusted)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out."""
        return self.tokenizer.decode(ids)

    def new_cache(self) -> LlamaCache:
        """An empty cache for one conversation."""
        return LlamaCache(self._sequences)

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Have exactly these GGUF adapters in force, of scale 0 none; nothing is loaded twice.

        All kept caches are forgotten: they were computed with others. Raises ``WeightsError``; no adapter is in force
        then.
        """
        with self._lock:
            if self._merged:
                raise UsageError(
                    f"{self._model.path.name} holds an adapter in its weights, which cannot be taken out",
                    hint="export the model without --merge-adapter",
                )
            if tuple(adapters) == self.adapters:
                return
            self._sequences.forget_all()
            self.adapters = ()
            self._loaded.put_in_force(adapters, self._context, self._probe)
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

        Whatever ends it, ``cache`` holds exactly the positions that its units name. The last token before ``length`` or
        ``context`` is yielded without being evaluated: the next turn does that, and nothing is computed twice.
        """
        if not isinstance(cache, LlamaCache) or cache.sequences is not self._sequences:
            raise TypeError("the cache belongs to another engine")
        units, given = lay_out(self, segments, self._model.vocabulary)
        embeddings = {key: as_float32(value) for key, value in given.items()}
        stats.prompt_tokens = prompt = len(units)
        history = [unit for unit in units if isinstance(unit, int)]
        sampler = LlamaSampler(options, history, self._model, context_length=self.context_length)
        stats.finish_reason = "cancelled"  # until the reply ends in another way
        start = time.perf_counter()
        try:
            token = self._next(cache, units, embeddings, sampler, stats, cancel)
        finally:
            stats.prefill_seconds = time.perf_counter() - start
        start = time.perf_counter()
        try:
            while token is not None:
                if token in self.end_ids:
                    stats.finish_reason = "stop"
                    return
                units.append(token)
                stats.ids.append(token)
                stats.new_tokens += 1
                yield token
                if stats.new_tokens >= options.max_tokens:
                    stats.finish_reason = "length"
                    return
                if prompt + stats.new_tokens >= self.context_length:
                    stats.finish_reason = "context"
                    return
                token = self._next(cache, units, embeddings, sampler, None, cancel)
        finally:
            stats.decode_seconds = time.perf_counter() - start
            sampler.close()

    def save_state(self, cache: LlamaCache) -> bytes:
        """What ``cache`` holds, to be stored; empty for an empty one. A 7B model has 0.5 MB for each position."""
        with self._lock:
            if cache.sequence is None:
                return b""
            return pack(cache.units, self._context.state(cache.sequence), made_by=self._made_by())

    def load_state(self, data: bytes) -> LlamaCache:
        """The cache that ``save_state`` stored; an empty one where another model, or other adapters, made it.

        Raises ``SessionFileError`` for what is no such state.
        """
        cache = self.new_cache()
        with self._lock:
            found = unpack(data, made_by=self._made_by()) if data else None
            if found is None or len(found[0]) > self.context_length:
                return cache
            units, state = found
            sequence = self._sequences.take(cache, len(units))
            if self._context.restore(sequence, state) and self._context.length(sequence) == len(units):
                cache.units = units
            else:
                cache.clear()
        return cache

    def _made_by(self) -> dict[str, Any]:
        adapters = [[fingerprint(adapter.path), adapter.scale] for adapter in self.adapters if adapter.scale != 0]
        return {"model": fingerprint(self._model.path), "adapters": adapters}

    def logits(self, segments: Sequence[Segment], cache: LlamaCache | None = None) -> np.ndarray:
        """Logits float32 [V] of the token after ``segments``, for measurements. Without ``cache`` nothing is kept."""
        units, given = lay_out(self, segments, self._model.vocabulary)
        embeddings = {key: as_float32(value) for key, value in given.items()}
        kept = cache or self.new_cache()
        with self._lock:
            self._bring(kept, units, embeddings, GenerationStats(), None)
            logits = self._context.logits().copy()
            if cache is None:
                kept.clear()
        return logits

    def _next(
        self,
        cache: LlamaCache,
        units: list[Unit],
        embeddings: Mapping[str, np.ndarray],
        sampler: LlamaSampler,
        stats: GenerationStats | None,
        cancel: threading.Event | None,
    ) -> int | None:
        """The id after ``units``, None if cancelled. ``stats``: given for the first token of a reply."""
        with self._lock:  # the context holds the logits of one conversation: they are sampled before another computes
            if not self._bring(cache, units, embeddings, stats, cancel) or (cancel is not None and cancel.is_set()):
                return None
            return sampler.next_token(self._context)

    def _bring(
        self,
        cache: LlamaCache,
        units: list[Unit],
        embeddings: Mapping[str, np.ndarray],
        stats: GenerationStats | None,
        cancel: threading.Event | None,
    ) -> bool:
        """Bring ``cache`` to ``units`` by evaluating what it lacks; False if cancelled."""
        shared = len(units) - 1  # the last position is always evaluated: its logits are needed
        if stats is not None or len(cache.units) != shared:  # else one token more: nothing needs to be compared
            shared = min(shared, common_prefix(cache.units, units))
            cache.keep(shared)
        if stats is not None:
            stats.reused_tokens = shared
        sequence = self._sequences.take(cache, len(units))
        begin = shared
        while begin < len(units):
            if cancel is not None and cancel.is_set():
                return False
            end = _run_end(units, begin, self._context.chunk)
            if not self._evaluate(cache, units, begin, end, embeddings, sequence, cancel):
                return False
            if stats is not None:
                stats.evaluated_tokens += end - begin
            begin = end
        return True

    def _evaluate(
        self,
        cache: LlamaCache,
        units: list[Unit],
        begin: int,
        end: int,
        embeddings: Mapping[str, np.ndarray],
        sequence: int,
        cancel: threading.Event | None,
    ) -> bool:
        """Append ``units[begin:end]``, all tokens or all of one clip, to ``cache``; False if cancelled."""
        # Asking whether to stop costs 1 µs for each operation, 0.2 ms for a bundle-sized model: not for single tokens.
        stop = None if end - begin == 1 else cancel.is_set if cancel is not None else lambda: False
        how: Any = {"sequence": sequence, "first": begin, "wanted": end == len(units), "stop": stop}
        unit = units[begin]
        try:
            if isinstance(unit, int):
                done = self._context.decode_tokens(units[begin:end], **how)  # type: ignore[arg-type]
            else:
                key, row = unit
                done = self._context.decode_embeddings(embeddings[key][row : row + end - begin], **how)
        except BaseException:  # also Ctrl-C: some layers may hold the new positions and others not
            cache.clear()
            raise
        if done:
            cache.units += units[begin:end]
        return done

    def _probe(self) -> np.ndarray:
        """Logits after a few tokens from all over the vocabulary, in a sequence of their own."""
        size = self._model.vocabulary
        ids = [number * size // PROBE_TOKENS for number in range(PROBE_TOKENS)][: self.context_length]
        self._sequences.forget_all()
        try:
            self._context.decode_tokens(ids, sequence=CONVERSATIONS, first=0, wanted=True)
            return self._context.logits().copy()
        finally:
            self._context.forget(CONVERSATIONS)


def _run_end(units: Sequence[Unit], begin: int, longest: int) -> int:
    """Where the positions from ``begin`` on that one batch can hold end: only tokens, or consecutive rows of a clip."""
    end, first = begin + 1, units[begin]
    while end < len(units) and end - begin < longest:
        unit = units[end]
        if isinstance(first, int) != isinstance(unit, int):
            break
        if not isinstance(first, int) and unit != (first[0], first[1] + end - begin):
            break
        end += 1
    return end


def as_float32(embeddings: Any) -> np.ndarray:
    """A numpy array or torch tensor as a contiguous numpy array float32; torch is not imported for that."""
    import numpy as np

    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().cpu().float().numpy()
    return np.ascontiguousarray(embeddings, np.float32)


def kind_of(path: Path) -> str:
    """``q8_0`` for ``model-q8_0.gguf``."""
    return path.stem.rpartition("-")[2].lower()


def check_header(header: GgufHeader, folder: Path, tokens: int) -> None:
    """Raise ``WeightsError`` unless a GGUF file is of the language model in ``folder``, with ``tokens`` token ids."""
    config = read_json(folder / "config.json")
    again = "make it again with: gpt4video models export"
    if header.architecture != "llama":
        raise WeightsError(
            f"{header.path}: its architecture is {header.architecture!r}, only 'llama' is supported", hint=again
        )
    width, rows = config.get("hidden_size"), config.get("vocab_size")
    if header.width != width:
        raise WeightsError(
            f"{header.path}: its embeddings are {header.width} wide, those of {folder / 'config.json'} (and the video "
            f"embeddings) {width}",
            hint=f"it is another model's; {again}",
        )
    if header.vocabulary != rows or tokens > header.vocabulary:
        raise WeightsError(
            f"{header.path}: its vocabulary has {header.vocabulary} tokens, that of {folder} {max(tokens, rows or 0)}",
            hint=f"it is another model's; {again}",
        )


def _has_gpu() -> bool:
    from gpt4video_cli.language.llama_library import library

    return bool(library().llama_supports_gpu_offload())
