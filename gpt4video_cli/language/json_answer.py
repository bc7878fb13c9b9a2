"""An answer that is one JSON document of a schema: written under a grammar where the engine has one, checked always."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from gpt4video_cli.errors import AnswerError, CancelledError, UsageError
from gpt4video_cli.language.engine import Engine, GenerationStats, KeptCache, SamplingOptions, Segment
from gpt4video_cli.language.json_schema import check_answer
from gpt4video_cli.language.stream import stream_text

TRIES = 3
"""The first as the options say; the others drawn with another seed, and not greedily, which would change nothing."""
WARM = 0.7
"""Temperature of the later tries at least."""
_SIGNS = '{}[]":,\\-.0123456789eE' + "truefalsn"


def stream_json(
    engine: Engine,
    segments: Sequence[Segment],
    options: SamplingOptions,
    *,
    cache: KeptCache,
    stats: GenerationStats,
    cancel: threading.Event | None = None,
) -> Iterator[str]:
    """``stream_text`` for ``options.schema``: yields the whole document, on one line, once it is known to be right.

    Raises ``AnswerError`` with the first violation of the last try, and at once where ``options.max_tokens`` or the
    context ended inside a document that a grammar kept right so far: another try would be as long. ``UsageError``
    where the vocabulary cannot spell JSON, ``CancelledError`` where ``cancel`` said so. ``stats`` are those of the try
    that gave the answer, with the seconds of all.
    """
    schema = options.schema
    assert schema is not None
    check_spelling(engine)
    if engine.has_grammar:
        options = replace(options, stop=())  # the template's stop strings may stand in a document's texts
    for number in range(TRIES):
        own = GenerationStats()
        warm = replace(options, temperature=max(options.temperature, WARM), seed=options.seed + number)
        tokens = stream_text(engine, segments, warm if number else options, cache=cache, stats=own, cancel=cancel)
        text = "".join(tokens)
        own.prefill_seconds += stats.prefill_seconds
        own.decode_seconds += stats.decode_seconds
        for field in fields(own):
            setattr(stats, field.name, getattr(own, field.name))
        if stats.finish_reason == "cancelled":
            raise CancelledError("the answer was stopped before its JSON was complete")
        try:
            document = check_answer(text, schema)
        except AnswerError as error:
            cut = engine.has_grammar and stats.finish_reason in ("length", "context")
            if cut:
                raise AnswerError(
                    f"the answer was cut inside its JSON after {stats.new_tokens} tokens",
                    hint="give more with --max-tokens, or bounds to the schema (maxLength, maxItems)",
                ) from error
            if number + 1 == TRIES:
                raise AnswerError(f"{error} (the last of {TRIES} tries)", hint=_hint(engine)) from error
            continue
        stats.finish_reason = "stop"  # also where the last token that was allowed completed it
        yield document
        return


def check_spelling(engine: Engine) -> None:
    """Raise ``UsageError`` where the vocabulary lacks a sign that JSON is written with."""
    for sign in _SIGNS:
        if engine.detokenize(engine.tokenize(sign)).strip() != sign:
            raise UsageError(
                f"--schema: this model cannot write JSON: its vocabulary cannot spell {sign}",
                hint="use another model",
            )


def _hint(engine: Engine) -> str | None:
    if engine.has_grammar:
        return None
    return "the PyTorch engine cannot force the form: describe it in the prompt, or use --engine llama"
