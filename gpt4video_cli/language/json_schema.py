"""The JSON schema that an answer has to keep to: read from a file, and an answer held against it.

Schemas are checked by the package ``jsonschema``, 2020-12 unless ``$schema`` names another draft. Nothing is fetched: a
``$ref`` points into its own file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import AnswerError, InputError
from gpt4video_cli.strict_json import StrictJsonError, loads, one_line

LARGEST_FILE = 1 << 20
"""Bytes of a schema file that are read at most."""
_DATA = ("const", "default", "enum", "examples")
"""Keywords that hold values and not schemas."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold schemas by names of a person's own, which may be those of keywords."""
_LONGEST_MESSAGE = 200


def read_schema(path: str | Path) -> str:
    """The schema in a file, as JSON on one line. Raises ``InputError`` with the file, the place and the reason."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path}: too large for a schema (more than {LARGEST_FILE} bytes)")
    try:
        schema = loads(content)
        _check_schema(schema)
    except StrictJsonError as error:
        raise InputError(f"{path}: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply") from error
    return json.dumps(schema)


def _check_schema(schema: Any) -> None:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    if not isinstance(schema, dict):
        raise StrictJsonError('not a JSON schema: it must be an object such as {"type": "object"}')
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        raise StrictJsonError(f"not a JSON schema: {_violation(error)}") from error
    for reference in _references(schema):
        if not reference.startswith("#"):
            raise StrictJsonError(f"$ref {reference[:80]!r} points out of the file; only #/... is followed")
        try:
            follow(schema, reference)
        except LookupError:
            raise StrictJsonError(f"$ref {reference[:80]!r} points to nothing") from None


def _references(value: Any, *, named: bool = False) -> Iterator[str]:
    """``named``: the keys of ``value`` are names and not keywords."""
    if isinstance(value, dict):
        if not named and isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for name, inner in value.items():
            if named or name not in _DATA:
                yield from _references(inner, named=not named and name in _NAMED)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def follow(schema: Any, reference: str) -> Any:
    """What a ``#/a/b`` (RFC 6901, as a fragment) points to in ``schema``. Raises ``LookupError``."""
    from urllib.parse import unquote

    head, *names = unquote(reference.removeprefix("#")).split("/")
    if head:
        raise LookupError(reference)
    for name in names:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list):
            if not (name.isascii() and name.isdigit()):
                raise LookupError(reference)
            schema = schema[int(name)]
        elif isinstance(schema, dict):
            schema = schema[name]
        else:
            raise LookupError(reference)
    return schema


def check_answer(text: str, schema: str) -> str:
    """The one JSON document in ``text``, on one line, with what could harm a terminal escaped.

    ``schema`` as ``read_schema`` gives it. Raises ``AnswerError`` with the first violation.
    """
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    try:
        value = loads(_bare(text).encode("utf-8", "replace"))
        document = one_line(value)  # refuses numbers that are too large for JSON readers, such as 1e999
    except (StrictJsonError, ValueError) as error:
        raise AnswerError(f"the answer is not a JSON document: {error}") from error
    rules = json.loads(schema)
    kind = validator_for(rules, default=Draft202012Validator)
    # An empty registry: nothing is ever fetched.
    try:
        for violation in kind(rules, registry=Registry()).iter_errors(value):
            raise AnswerError(f"the answer does not keep to the schema: {_violation(violation)}")
    except RecursionError:
        raise AnswerError("the schema means itself, or the answer is nested too deeply for it") from None
    return document


def _bare(text: str) -> str:
    """``text`` without blanks around it, and without the Markdown fence that many models put around JSON."""
    text = text.strip()
    head, line, rest = text.partition("\n")
    if line and head in ("```", "```json") and rest.endswith("```"):
        return rest.removesuffix("```").strip()
    return text


def _violation(error: Any) -> str:
    """``$.colour: 7 is not of type 'string'``, not longer than a line."""
    message = " ".join(str(error.message).split())
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 4]} ..."
    return f"{error.json_path}: {message}"


def whole(value: Any) -> bool:
    """Whether a number of a schema is a whole one (``1.0`` is)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value % 1 == 0
