"""Answers that are JSON: what a grammar lets through keeps to its schema, and what has no grammar is checked and tried
again. The model is small, random and knows no JSON, so nothing but the grammar can make it write some."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.errors import AnswerError, CancelledError, InputError, UsageError
from gpt4video_cli.language.engine import GenerationStats, SamplingOptions
from gpt4video_cli.language.json_answer import TRIES, WARM, stream_json
from gpt4video_cli.language.json_grammar import grammar_of
from gpt4video_cli.language.json_schema import check_answer, read_schema
from gpt4video_cli.language.llama_engine import LlamaEngine
from gpt4video_cli.language.llama_grammar import LlamaGrammar
from gpt4video_cli.language.llama_library import library
from gpt4video_cli.language.torch_engine import TorchEngine
from tests.language.asking import prompt

COLOUR = {"enum": ["red", 'light "blue"\\', "grün", None, 3]}
COUNT = {"type": "integer", "minimum": 1, "exclusiveMaximum": 7}
SCHEMAS: dict[str, Any] = {
    "members": {
        "type": "object",
        "properties": {"a": COLOUR, 'b "quoted"': COUNT, "c": {"type": "boolean"}, "d": {"type": "null"}},
        "required": ['b "quoted"', "d"],
    },
    "none required": {"properties": {"a": COUNT, "b": COUNT, "c": COUNT}, "additionalProperties": False},
    "items": {"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [COLOUR, COUNT], "items": {"const": True}, "minItems": 4, "maxItems": 5},
    "tuple of a draft before": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [COLOUR, COUNT],
        "additionalItems": False,
    },
    "texts": {
        "type": "array",
        "items": {"type": "string", "minLength": 2, "maxLength": 4},
        "minItems": 3,
        "maxItems": 3,
    },
    "references": {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"leaf": COUNT, "left": {"anyOf": [{"$ref": "#/$defs/leaf~1or not"}, {"type": "null"}]}},
                "required": ["leaf", "left"],
            },
            "leaf/or not": {"allOf": [{"const": {"deep": [1, "é"]}}]},
        },
    },
    "number": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
}


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path, tiny_language_folder: Path) -> LlamaEngine:
    return LlamaEngine.load(tiny_gguf, tiny_language_folder)


def ask(engine: Any, schema: Any, **options: Any) -> str:
    stats, cache = GenerationStats(), engine.new_cache()
    wanted = SamplingOptions(**{"max_tokens": 200, "schema": json.dumps(schema)} | options)
    return "".join(stream_json(engine, prompt("what is it?"), wanted, cache=cache, stats=stats))


@pytest.mark.parametrize("name", SCHEMAS)
def test_under_a_grammar_even_a_random_model_keeps_to_the_schema(name: str, engine: LlamaEngine) -> None:
    answers = {
        ask(engine, SCHEMAS[name], temperature=heat, seed=seed) for seed, heat in enumerate((0.0, 1.0, 2.0, 3.0))
    }
    for answer in answers:
        assert check_answer(answer, json.dumps(SCHEMAS[name])) == answer and "\n" not in answer
    assert len(answers) > 1, "the grammar leaves a choice, and the model takes it"


def lets_through(engine: LlamaEngine, schema: Any, text: str) -> bool:
    """Whether the grammar allows ``text``, token by token, and an end behind it."""
    grammar = LlamaGrammar(json.dumps(schema), engine._model)
    chain = library().llama_sampler_init_greedy()
    (end,) = engine.end_ids
    try:
        for token in (*engine.tokenize(text), end):
            logits = np.zeros(engine._model.vocabulary, np.float32)
            logits[token] = 1
            if grammar.next_token(logits, chain) != token:
                return False
    finally:
        library().llama_sampler_free(chain)
    return True


OPEN = {"properties": {"a": COUNT}, "required": ["z"], "additionalProperties": {"enum": [1, 2]}}


@pytest.mark.parametrize(
    ("schema", "text", "allowed"),
    [
        ({}, '{"a": [1, -2.5e-3, {"b": null}], "c": "\\u00e9\\n é"}', True),
        ({}, " [true,false]", True),
        ({}, '{"a": 1,}', False),
        ({}, "01", False),
        ({}, '"\x7f"', False),
        ({}, '"a\nb"', False),
        ({"type": "object"}, "[]", False),
        ({"type": "object", "additionalProperties": False}, "{}", True),
        ({"type": "object", "additionalProperties": False}, '{"a": 1}', False),
        (OPEN, '{"a": 3, "z": 1}', True),
        (OPEN, '{"z": 2, "other": 1, "more": 2}', True),
        (OPEN, '{"a": 3}', False),
        (OPEN, '{"z": 3}', False),
        ({"type": "array", "maxItems": 0}, "[]", True),
        ({"items": {"type": "boolean"}, "minItems": 1}, "[]", False),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "maxItems": 2}, "[1, 2]", True),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "maxItems": 2}, "[1, 2, 2]", False),
        ({"type": "array", "items": {"minLength": 1.0}, "minItems": 1.0, "maxItems": 2.0}, '["a"]', True),
        ({"type": "integer", "minimum": 0}, "-1", False),
        ({"type": "integer", "minimum": -3, "maximum": 300}, "-299", True),
        ({"type": "integer"}, "1.5", False),
        ({"type": "string", "maxLength": 5000}, '"' + "x" * 20 + '"', True),
        ({"enum": [{"a": [1, "b"]}]}, '{"a": [1, "b"]}', True),
    ],
)
def test_what_a_grammar_lets_through(schema: Any, text: str, allowed: bool, engine: LlamaEngine) -> None:
    assert lets_through(engine, schema, text) is allowed


def test_where_no_token_goes_on_it_is_an_error_and_not_the_end_of_the_process(engine: LlamaEngine) -> None:
    grammar = LlamaGrammar('{"const": "x"}', engine._model)
    logits = np.full(engine._model.vocabulary, -np.inf, np.float32)
    with pytest.raises(AnswerError, match="no token that goes on"):
        grammar.next_token(logits, None)


def test_without_a_grammar_it_writes_no_json(engine: LlamaEngine) -> None:
    stats = GenerationStats()
    ids = list(
        engine.generate(prompt("what is it?"), SamplingOptions(max_tokens=40), cache=engine.new_cache(), stats=stats)
    )
    with pytest.raises(AnswerError, match="not a JSON document"):
        check_answer(engine.detokenize(ids), "{}")


def test_the_first_try_is_first_rate(engine: LlamaEngine) -> None:
    """A grammar never needs a second try for the shape: one reply's tokens are all that was computed."""
    stats = GenerationStats()
    options = SamplingOptions(max_tokens=200, schema=json.dumps(SCHEMAS["members"]))
    (answer,) = stream_json(engine, prompt("x"), options, cache=engine.new_cache(), stats=stats)
    assert stats.finish_reason == "stop" and stats.reused_tokens == 0
    assert json.loads(engine.detokenize(stats.ids)) == json.loads(answer)


def test_cut_inside_the_json(engine: LlamaEngine) -> None:
    with pytest.raises(AnswerError, match="cut inside its JSON after 6 tokens"):
        ask(engine, {"type": "string", "minLength": 100}, max_tokens=6)
    # The last allowed token may complete the document: that is no cut.
    for most in (1, 2, 3):
        stats, options = GenerationStats(), SamplingOptions(max_tokens=most, schema='{"const": 1}')
        try:
            answer = list(stream_json(engine, prompt("x"), options, cache=engine.new_cache(), stats=stats))
        except AnswerError:
            assert most == 1, "a blank and the number are two tokens at most"
        else:
            assert answer == ["1"] and stats.finish_reason == "stop"


def test_a_stop_string_inside_a_text_does_not_cut_it(engine: LlamaEngine) -> None:
    assert ask(engine, {"const": "###Human: <video>x</video>"}, stop=("###Human",)) == '"###Human: <video>x</video>"'


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "^a"}}}, "'pattern' at #/properties/a"),
        ({"type": "array", "items": {"not": {}}}, "'not' at #/items"),
        ({"allOf": [{"type": "object"}, {"required": ["a"]}]}, "'allOf' of several schemas at #"),
        ({"anyOf": [{"type": "null"}], "minLength": 2}, "'anyOf' beside 'minLength' at #"),
        ({"$ref": "#"}, "means itself"),
        (
            {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "itself",
        ),
        ({"properties": {"a": False}}, "#/properties/a is false"),
    ],
)
def test_what_a_grammar_cannot_say_is_named(schema: Any, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        grammar_of(json.dumps(schema))
    assert part in raised.value.line()


@pytest.mark.parametrize(
    ("text", "schema", "part"),
    [
        ("{", {}, "not a JSON document"),
        ('{"a": 1} and more', {}, "not a JSON document"),
        ('{"a": 1, "a": 2}', {}, "given twice"),
        ("1e999", {}, "not a JSON document"),
        ("NaN", {}, "not a number"),
        (
            '{"a": [1, "x"]}',
            {"properties": {"a": {"items": {"type": "integer"}}}},
            "$.a[1]: 'x' is not of type 'integer'",
        ),
        ('"abc"', {"maxLength": 2}, "$: 'abc' is too long"),
        ("[1, 1]", {"uniqueItems": True}, "has non-unique elements"),
        ("1", {"$ref": "#"}, "the schema means itself"),
    ],
)
def test_a_violation_is_named(text: str, schema: Any, part: str) -> None:
    with pytest.raises(AnswerError) as raised:
        check_answer(text, json.dumps(schema))
    assert part in raised.value.line() and len(raised.value.line()) < 300


def test_a_document_in_a_fence_and_with_dangerous_letters() -> None:
    assert check_answer(' ```json\n{"a": 1}\n```\n', "{}") == '{"a": 1}'
    assert check_answer('"\x9b\u202e\\ud800"', "{}") == '"\\u009b\\u202e\\ud800"'


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot be read: No such file"),
        ("{'a': 1}", "not JSON"),
        ("[]", "must be an object"),
        ('{"type": "objekt"}', "not a JSON schema: $.type: 'objekt'"),
        ('{"properties": {"a": {"$ref": "https://example.org/s.json"}}}', "points out of the file"),
        ('{"properties": {"a": {"$ref": "#/$defs/a"}}}', "points to nothing"),
        ('{"properties": {"enum": {"$ref": "#/$defs/a"}}}', "points to nothing"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "too large"),
    ],
)
def test_bad_schema_files(content: str | None, part: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as raised:
        read_schema(path)
    assert str(path) in raised.value.line() and part in raised.value.line()


def test_references_in_data_are_no_references(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"const": {"$ref": "elsewhere"}}')
    assert check_answer('{"$ref": "elsewhere"}', read_schema(path))


# --- without a grammar --------------------------------------------------------------------------------------------


class Scripted:
    """An engine without a grammar that says what it is told to, byte by byte, and notes how it was asked."""

    has_grammar = False

    def __init__(self, *replies: str, spells: str = "") -> None:
        self.replies = list(replies)
        self.asked: list[SamplingOptions] = []
        self.lacks = spells

    def tokenize(self, text: str, *, trusted: bool = False) -> list[int]:
        return [ord(letter) for letter in text if letter not in self.lacks]

    def detokenize(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def new_cache(self) -> None:
        return None

    def generate(
        self,
        segments: Any,
        options: SamplingOptions,
        *,
        cache: Any,
        stats: GenerationStats,
        cancel: threading.Event | None = None,
    ) -> Iterator[int]:
        self.asked.append(options)
        stats.finish_reason = "stop"
        stats.decode_seconds = 1.0
        for token in self.tokenize(self.replies.pop(0)):
            if cancel is not None and cancel.is_set():
                stats.finish_reason = "cancelled"
                return
            stats.ids.append(token)
            stats.new_tokens += 1
            yield token


def test_other_tries_are_drawn_otherwise() -> None:
    engine, stats = Scripted("It is red.", '{"a": "x"}', ' {"a": 1}'), GenerationStats()
    options = SamplingOptions(seed=5, schema='{"properties": {"a": {"type": "integer"}}}')
    assert list(stream_json(engine, prompt("x"), options, cache=None, stats=stats)) == ['{"a": 1}']  # type: ignore[arg-type]
    assert engine.asked[0] == options
    assert [one.seed for one in engine.asked] == [5, 6, 7] and {one.temperature for one in engine.asked[1:]} == {WARM}
    assert stats.new_tokens == len(' {"a": 1}') and stats.decode_seconds == 3.0


def test_after_the_last_try_the_first_violation_is_told() -> None:
    with pytest.raises(AnswerError, match=r"\$\.a: 'x' is not of type 'integer' \(the last of 3 tries\).*") as raised:
        ask(Scripted(*['{"a": "x", "b": "y"}'] * TRIES), {"properties": {n: {"type": "integer"} for n in "ab"}})
    assert "describe it in the prompt" in raised.value.line() and raised.value.exit_code == 1


def test_a_vocabulary_that_cannot_spell_json_is_told_before_anything_is_written() -> None:
    engine = Scripted(spells="}")
    with pytest.raises(UsageError, match="cannot spell }"):
        ask(engine, {})
    assert not engine.asked


def test_a_stopped_answer_is_no_answer(engine: LlamaEngine) -> None:
    for asked in (engine, Scripted("{}")):
        stop, options = threading.Event(), SamplingOptions(schema="{}")
        stop.set()
        with pytest.raises(CancelledError):
            list(
                stream_json(
                    asked,
                    prompt("x"),
                    options,
                    cache=asked.new_cache(),
                    stats=GenerationStats(),
                    cancel=stop,  # type: ignore[arg-type]
                )
            )


def test_pytorch_checks_and_gives_up(tiny_language_folder: Path) -> None:
    with pytest.raises(AnswerError, match=r"not a JSON document.*the last of 3 tries"):
        ask(TorchEngine.load(tiny_language_folder, device="cpu"), {"type": "object"}, max_tokens=8)
