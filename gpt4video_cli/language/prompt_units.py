"""A prompt as one unit for each position: what engines compare with their kept cache. Shared by all engines.

Letters: n positions of a segment, D width of the language model's embeddings, V size of its vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt4video_cli.errors import ContextFullError, UsageError
from gpt4video_cli.language.engine import Engine, Segment, TextSegment, TokenSegment, check_width

Unit = int | tuple[str, int]
"""One position of a prompt as the cache compares it: a token id, or (key, i) for the i-th vector of embeddings."""


def lay_out(engine: Engine, segments: Sequence[Segment], vocabulary: int) -> tuple[list[Unit], dict[str, Any]]:
    """Segments as one unit for each position, and the embeddings [n, D] by key.

    ``vocabulary``: V of the model. Raises ``ContextFullError`` where they fill the engine's context, ``UsageError`` for
    ids that are not below V and for nothing at all, ``WeightsError`` for embeddings of another width.
    """
    units: list[Unit] = []
    embeddings: dict[str, Any] = {}
    for segment in segments:
        if isinstance(segment, TextSegment):
            units += engine.tokenize(segment.text, trusted=segment.trusted)
        elif isinstance(segment, TokenSegment):
            if not all(0 <= id_ < vocabulary for id_ in segment.ids):
                raise UsageError("the conversation's tokens are not this model's", hint="it was had with another one")
            units += segment.ids
        else:
            check_width(segment, engine.width)
            known = embeddings.setdefault(segment.key, segment.embeddings)
            if known.shape != segment.embeddings.shape:
                raise ValueError(f"two different embeddings have the key {segment.key!r}")
            units += [(segment.key, i) for i in range(segment.embeddings.shape[0])]
    if not units:
        raise UsageError("the prompt is empty")
    if len(units) >= engine.context_length:
        raise ContextFullError(
            f"the message needs {len(units)} tokens, the language model's context has {engine.context_length}",
            hint="shorten it, or use fewer clips",
        )
    return units, embeddings


def common_prefix(old: Sequence[Unit], new: Sequence[Unit]) -> int:
    """How many leading units are the same."""
    length = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        length += 1
    return length
