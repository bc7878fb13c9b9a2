"""The one protocol that every language engine speaks: segments in, token ids out as they come.

Letters used in this room: n tokens of a segment, D width of the language model's embeddings (``D_llm``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.adapters import Adapter


@dataclass(frozen=True)
class TextSegment:
    """Text to be tokenised on its own.

    ``trusted`` text comes from a prompt template and may spell special tokens (``<s>``, ``</s>``); text that a person
    typed is not trusted and never becomes a special token.
    """

    text: str
    trusted: bool = False


@dataclass(frozen=True)
class TokenSegment:
    """Token ids as the engine itself produced them in an earlier turn (so that the kept cache matches exactly)."""

    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EmbeddingSegment:
    """Video embeddings ``[n, D_llm]``: numpy float32, or a torch tensor where torch is at work anyway (training).

    Every engine brings them to its own device and type. ``key`` names their content for the prefix cache.
    """

    key: str
    embeddings: Any


Segment = TextSegment | TokenSegment | EmbeddingSegment


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 switch those filters off. ``schema``: the answer is one
    document of this JSON schema (``json_schema.read_schema``); an engine with a grammar allows only tokens that
    continue one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    schema: str | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise UsageError(f"top-k must be 0 (off) or more, got {self.top_k}")
        if self.repetition_penalty <= 0:
            raise UsageError(f"repetition-penalty must be above 0, got {self.repetition_penalty}")
        if self.max_tokens < 1:
            raise UsageError(f"max-tokens must be 1 or more, got {self.max_tokens}")


@dataclass
class GenerationStats:
    """Filled in while ``Engine.generate`` runs. Seconds are wall-clock."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    evaluated_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finish_reason: str = ""
    ids: list[int] = field(default_factory=list)


class KeptCache(Protocol):
    """The key/value cache of one conversation, kept between turns. Opaque to everybody but its engine."""

    def clear(self) -> None:
        """Forget everything."""


class Engine(Protocol):
    """A loaded language model. Several conversations may share it, each with its own ``KeptCache``."""

    name: str
    context_length: int
    """Most tokens (text and video embeddings together) that a prompt and its answer may have."""
    width: int
    """D_llm: width of the embeddings that ``EmbeddingSegment`` must have."""
    device: str
    end_ids: frozenset[int]
    """Token ids that end a reply; they are never yielded."""
    has_grammar: bool
    """Whether ``SamplingOptions.schema`` is kept to token by token; else it is only checked afterwards."""
    adapters: tuple[Adapter, ...]
    """The LoRA adapters in force."""

    def tokenize(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of ``text`` alone, without start or end token."""
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out."""
        ...

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Have exactly these adapters in force; scale 0 counts as off. Kept caches are worth nothing afterwards.

        What was loaded before is not loaded again. Raises ``WeightsError`` for one that does not fit or changes
        nothing, and has none in force then.
        """
        ...

    def new_cache(self) -> KeptCache:
        """An empty cache for one conversation."""
        ...

    def generate(
        self,
        segments: Sequence[Segment],
        options: SamplingOptions,
        *,
        cache: KeptCache,
        stats: GenerationStats,
        cancel: threading.Event | None = None,
    ) -> Iterator[int]:
        """Yield token ids as they come, until an end token, ``options.max_tokens``, the context's end or ``cancel``.

        Only what ``cache`` does not already hold (longest common prefix) is evaluated. Stop strings are not the
        engine's business: ``language.stream.stream_text`` cuts them for every engine alike. Raises
        ``ContextFullError`` when the segments alone fill the context.
        """
        ...


def check_width(segment: EmbeddingSegment, width: int) -> None:
    """Raise ``WeightsError`` if the embeddings are not ``[n, width]``."""
    from gpt4video_cli.errors import WeightsError

    shape = tuple(segment.embeddings.shape)
    if len(shape) != 2 or shape[1] != width:
        raise WeightsError(
            f"video embeddings have shape {list(shape)}, the language model needs [n, {width}]",
            hint="the abstractor was trained for another language model",
        )
