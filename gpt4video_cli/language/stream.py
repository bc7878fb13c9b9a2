"""Token ids of any engine -> text as it comes: whole characters only, cut at stop strings.

Two things are held back until they are decided: bytes that are not yet a character, and text that could be the
beginning of a stop string. So the pieces joined are the same text, however the model split it into tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from gpt4video_cli.language.engine import Engine, GenerationStats, KeptCache, SamplingOptions, Segment

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders put where bytes are not (yet) UTF-8."""


def stream_text(
    engine: Engine,
    segments: Sequence[Segment],
    options: SamplingOptions,
    *,
    cache: KeptCache,
    stats: GenerationStats,
    cancel: threading.Event | None = None,
) -> Iterator[str]:
    """Yield the reply's text in non-empty pieces. Afterwards ``stats.ids`` are the ids of exactly that text.

    The next turn gives ``stats.ids`` back as a ``TokenSegment``, so its prompt agrees with ``cache`` as far as the
    text was kept; what the engine computed beyond a stop string is dropped there as any other changed suffix.
    A stop string may cut in the middle of a token: the ids before it stay and the rest of the text is tokenised anew.
    Bytes at the end that are no character (a reply cut by ``max_tokens``) are dropped from the text and the ids.
    """
    text = TextDecoder(engine.detokenize)
    stops = StopFilter(options.stop)
    kept: list[str] = []
    whole = False
    tokens = engine.generate(segments, options, cache=cache, stats=stats, cancel=cancel)
    try:
        for token in tokens:
            if piece := stops.feed(text.feed(token)):
                kept.append(piece)
                yield piece
            if stops.found:
                break
        whole = not stops.found
    finally:
        close = getattr(tokens, "close", None)  # a generator: lets the engine leave its cache in order now, not later
        if close is not None:
            cast(Callable[[], None], close)()
        if stops.found:
            stats.finish_reason = "stop"
        if whole:
            stats.ids = stats.ids[: text.complete]
        else:  # cut by a stop string, or the caller closed this generator before its end
            stats.ids = ids_of_text(engine, stats.ids, "".join(kept))
    if piece := stops.rest():
        yield piece


class TextDecoder:
    """Token ids, one at a time -> text, with characters whose bytes are split across tokens held back.

    Decodes a short window instead of the whole reply at each token. The window starts at the previous piece of text,
    because SentencePiece decoders drop a space at the beginning of whatever they decode (the way of text-generation-
    inference's ``decode_token``).
    """

    def __init__(self, detokenize: Callable[[Sequence[int]], str]) -> None:
        self._detokenize = detokenize
        self._ids: list[int] = []
        self._start = 0
        self.complete = 0
        """How many of the ids given so far are in the text given so far."""

    def feed(self, token: int) -> str:
        """The text that ``token`` completes, often "" or more than the token's own."""
        self._ids.append(token)
        before = self._detokenize(self._ids[self._start : self.complete])
        now = self._detokenize(self._ids[self._start :])
        if now.endswith(REPLACEMENT):
            return ""
        piece = now[len(before) :]
        if piece:  # else the window would begin at a token without text, and a space after it would be dropped
            self._start = self.complete
        self.complete = len(self._ids)
        return piece


class StopFilter:
    """Text in any pieces -> the text before the first stop string.

    First means first complete: of two stop strings that overlap, the one that ends earlier cuts. That choice, unlike
    "begins earlier", does not depend on how the text was split.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(string for string in stop if string)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """What of the text so far is certain to stay and was not given before."""
        self._held += piece
        hits = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if hits:
            self.found = True
            certain, self._held = self._held[: min(hits)[1]], ""
            return certain
        return self._give(len(self._held) - self._undecided())

    def rest(self) -> str:
        """The held text, when no more follows."""
        return self._give(len(self._held))

    def _give(self, length: int) -> str:
        certain, self._held = self._held[:length], self._held[length:]
        return certain

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(map(len, self._stop), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


def ids_of_text(engine: Engine, ids: Sequence[int], text: str) -> list[int]:
    """Ids of ``text``, a beginning of the text of ``ids``: as many of ``ids`` as fit, the rest tokenised anew.

    Where a tokenizer cannot continue a text (SentencePiece puts a space before whatever it is given) all of ``text``
    is tokenised anew; if even that spells something else, only the ids that fit are returned.
    """
    fitting = list(ids)
    while fitting and not text.startswith(engine.detokenize(fitting)):
        fitting.pop()
    rest = text[len(engine.detokenize(fitting)) :]
    if not rest:
        return fitting
    for candidate in (fitting + engine.tokenize(rest), engine.tokenize(text)):
        if engine.detokenize(candidate) == text:
            return candidate
    return fitting
