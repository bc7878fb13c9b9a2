"""A JSON schema as a grammar (GBNF, the notation of llama.cpp's ``grammars/README.md``) for constrained decoding.

What the grammar lets through may still break bounds that no grammar counts (``maximum`` of a real number,
``uniqueItems``): every answer is checked against the schema as well. A keyword that would change the shape and is not
translated is an error that names it, never ignored. llama-cpp-python has a converter too; it asserts where it cannot
follow, writes constants with a quote in them as broken rules, and lets control characters into strings.

Chosen here, where a schema leaves it open: members come in the order of ``properties``, there are none beyond those
unless ``additionalProperties`` says so itself, and blanks stand only behind ``,`` and ``:``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.json_schema import follow, whole

_MOST_REPEATS = 1000
"""A count above this is left to the check of the answer: llama.cpp writes repetitions out and refuses 2,000."""
_MOST_INTEGERS = 256
"""An integer with a range of at most so many values is written as a choice among them."""

_BASE = {
    "ws": '" "?',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "natural": '"0" | [1-9] [0-9]{0,14}',
    "integer": '"-"? natural',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "member": 'string ":" ws value',
    "object": '"{" (member ("," ws member)*)? "}"',
    "array": '"[" (value ("," ws value)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_UNTRANSLATED = (
    "not if then else contains minContains maxContains pattern patternProperties propertyNames dependencies "
    "dependentRequired dependentSchemas unevaluatedItems unevaluatedProperties $dynamicRef $recursiveRef"
).split()
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_SHAPING = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *(k for ks in _OF_TYPE.values() for k in ks))


def grammar_of(schema: str) -> str:
    """The grammar of the documents that ``schema`` (JSON) allows; its first rule is ``root``.

    Raises ``UsageError`` for a keyword that cannot be translated, with its place.
    """
    try:
        return _Rules(json.loads(schema)).text()
    except RecursionError:
        raise UsageError("--schema: the schema is nested too deeply for a grammar") from None


class _Rules:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # of what stands in a rule, so that nothing stands in two
        self._referred: dict[str, str] = {}
        # A blank first: the tokens that begin a reply begin with one in many vocabularies.
        self._rules["root"] = f"ws {self._visit(schema, '#', frozenset())}"

    def text(self) -> str:
        return "".join(f"{name} ::= {rule}\n" for name, rule in {**self._rules, **_BASE}.items())

    def _rule(self, body: str) -> str:
        if body not in self._names:
            self._names[body] = f"r{len(self._names)}"
            self._rules[self._names[body]] = body
        return self._names[body]

    def _visit(self, schema: Any, at: str, through: frozenset[str]) -> str:
        """The name of the rule for ``schema``, which stands ``at`` a place. ``through``: references that led here
        without a member or an item between them."""
        if schema is True:
            return "value"
        if schema is False:
            raise UsageError(f"--schema: {at} is false, which no answer can keep to")
        for name in _UNTRANSLATED:
            if name in schema:
                raise UsageError(
                    f"--schema: the llama.cpp engine cannot hold an answer to {name!r} at {at}",
                    hint="leave it out, or use --engine torch, which checks the answer afterwards",
                )
        for name in ("enum", "const"):
            if name in schema:
                values = schema[name] if name == "enum" else [schema[name]]
                return self._rule(" | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in values))
        for name in ("$ref", "anyOf", "oneOf", "allOf"):
            if name in schema:
                self._check_alone(schema, name, at)
                return self._combined(schema[name], name, at, through)
        kinds = schema.get("type", _kind(schema))
        if isinstance(kinds, list):
            return self._rule(" | ".join(self._typed(schema, kind, at) for kind in kinds))
        return self._typed(schema, kinds, at)

    def _check_alone(self, schema: Mapping[str, Any], name: str, at: str) -> None:
        beside = [other for other in _SHAPING if other in schema and other != name]
        if beside or (name == "allOf" and len(schema[name]) > 1):
            what = f"{name!r} beside {beside[0]!r}" if beside else "'allOf' of several schemas"
            raise UsageError(
                f"--schema: the llama.cpp engine cannot hold an answer to {what} at {at}",
                hint="write it as one schema, or use --engine torch, which checks the answer afterwards",
            )

    def _combined(self, value: Any, name: str, at: str, through: frozenset[str]) -> str:
        if name != "$ref":
            return self._rule(
                " | ".join(self._visit(one, f"{at}/{name}/{index}", through) for index, one in enumerate(value))
            )
        if value in through:
            raise UsageError(f"--schema: {value} at {at} means itself")
        if value not in self._referred:
            self._referred[value] = f"ref{len(self._referred)}"
            self._rules[self._referred[value]] = self._visit(follow(self._schema, value), value, through | {value})
        return self._referred[value]

    def _typed(self, schema: Mapping[str, Any], kind: str | None, at: str) -> str:
        if kind == "object" and any(name in schema for name in _OF_TYPE["object"]):
            return self._object(schema, at)
        if kind == "array" and any(name in schema for name in _OF_TYPE["array"]):
            return self._array(schema, at)
        if kind == "string" and any(name in schema for name in _OF_TYPE["string"]):
            least, most = _count(schema, "minLength") or 0, _count(schema, "maxLength")
            return self._rule(rf'"\"" char{_repeat(least, most)} "\""')
        if kind == "integer":
            return self._integer(schema)
        return kind or "value"

    def _object(self, schema: Mapping[str, Any], at: str) -> str:
        members = {name: (inner, f"{at}/properties/{name}") for name, inner in schema.get("properties", {}).items()}
        required = schema.get("required", ())
        more = schema.get("additionalProperties", not members and not required)
        members |= {name: (more or True, at) for name in required if name not in members}
        extra = "" if more is False else self._rule(f'string ":" ws {self._visit(more, at, frozenset())}')
        tail = {True: '""', False: '""'}  # what follows, by whether a member was written before
        if extra:
            tail = {True: f'("," ws {extra})*', False: f'({extra} ("," ws {extra})*)?'}
        for name, (inner, place) in reversed(members.items()):
            key = _literal(json.dumps(name, ensure_ascii=False))
            member = self._rule(f'{key} ":" ws {self._visit(inner, place, frozenset())}')
            first, later = f"{member} {tail[True]}", f'"," ws {member} {tail[True]}'
            if name not in required:
                first, later = f"{first} | {tail[False]}", f"{later} | {tail[True]}"
            tail = {True: self._rule(later), False: self._rule(first)}
        return self._rule(f'"{{" {tail[False]} "}}"')

    def _array(self, schema: Mapping[str, Any], at: str) -> str:
        items, first = schema.get("items", True), schema.get("prefixItems", [])
        if isinstance(items, list):  # as drafts before 2020-12 write it
            items, first = schema.get("additionalItems", True), items
        most, least = _count(schema, "maxItems"), max(0, (_count(schema, "minItems") or 0) - len(first))
        first = first if most is None else first[:most]
        fixed = [self._visit(one, f"{at}/prefixItems/{index}", frozenset()) for index, one in enumerate(first)]
        start = ' "," ws '.join(fixed)
        more = None if most is None else most - len(fixed)
        if items is False or more == 0 or (fixed and "items" not in schema and not least):
            return self._rule(f'"[" {start} "]"')
        item = self._visit(items, f"{at}/items", frozenset())
        if fixed:
            return self._rule(f'"[" {start} ("," ws {item}){_repeat(least, more)} "]"')
        inner = f'{item} ("," ws {item}){_repeat(max(0, least - 1), None if more is None else more - 1)}'
        return self._rule(f'"[" {inner} "]"' if least else f'"[" ({inner})? "]"')

    def _integer(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minimum"), schema.get("maximum")
        if whole(schema.get("exclusiveMinimum")):
            least = max(schema["exclusiveMinimum"] + 1, schema["exclusiveMinimum"] + 1 if least is None else least)
        if whole(schema.get("exclusiveMaximum")):
            most = min(schema["exclusiveMaximum"] - 1, schema["exclusiveMaximum"] - 1 if most is None else most)
        if (
            least is not None
            and most is not None
            and whole(least)
            and whole(most)
            and 0 <= most - least < _MOST_INTEGERS
        ):
            return self._rule(" | ".join(f'"{value}"' for value in range(int(least), int(most) + 1)))
        return "natural" if least is not None and least >= 0 else "integer"


def _kind(schema: Mapping[str, Any]) -> str | None:
    """The type that the keywords of a schema without one speak of."""
    return next((kind for kind, names in _OF_TYPE.items() if any(name in schema for name in names)), None)


def _count(schema: Mapping[str, Any], name: str) -> int | None:
    """A length or a number of items; ``2.0`` is one too."""
    return None if name not in schema else int(schema[name])


def _repeat(least: int, most: int | None) -> str:
    least = least if least <= _MOST_REPEATS else 0
    if most is None or most > _MOST_REPEATS:
        return f"{{{least},}}" if least else "*"
    return f"{{{least},{most}}}"


def _literal(text: str) -> str:
    """``text`` as the grammar quotes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
