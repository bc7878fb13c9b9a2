"""JSON from a stranger -> frozen dataclasses, or an error that names the place. Nothing is converted or ignored."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from typing import Any, Literal, NoReturn, TypeVar

from gpt4video_cli.errors import UsageError

MAX_INTEGER = 2**64
T = TypeVar("T")


class StrictJsonError(ValueError):
    """One line: where and what."""


def loads(content: bytes) -> Any:
    """Parsed JSON in UTF-8. NaN, infinities and a key given twice are errors."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except StrictJsonError:
        raise
    except UnicodeDecodeError as error:
        raise StrictJsonError("not a text file in UTF-8") from error
    except RecursionError as error:
        raise StrictJsonError("nested too deeply") from error
    except ValueError as error:
        raise StrictJsonError(f"not JSON: {error}") from error


_NOT_PRINTABLE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(value: Any, *, indent: int | None = None) -> str:
    """``value`` as JSON, on one line unless ``indent`` is given. What could harm a terminal is escaped, not lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    return _NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def from_json(value: Any, kind: type[T], where: str) -> T:
    """``value`` as the dataclass ``kind``: the fields' annotations are the schema, a field with a default may miss."""
    result: T = _read(value, kind, where)
    return result


def _read(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(value, kind, where)
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _read(value, inner, where)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise StrictJsonError(f"{where} is none of {', '.join(map(str, arguments))}")
    if origin is tuple and type(value) is list:
        return tuple(_read(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if kind is float and type(value) in (int, float) and abs(value) <= MAX_INTEGER and math.isfinite(value):
        return float(value)
    if kind is int and type(value) is int and abs(value) <= MAX_INTEGER:
        return value
    if kind in (str, bool) and type(value) is kind:
        return value
    expected = "list" if origin is tuple else kind.__name__
    raise StrictJsonError(f"{where} is not a valid {expected}")


def _read_dataclass(value: Any, kind: Any, where: str) -> Any:
    if type(value) is not dict:
        raise StrictJsonError(f"{where} is not an object")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            raise StrictJsonError(f"{where} has an unknown field {name[:40]!r}")
    hints = typing.get_type_hints(kind)
    given = {}
    for name, field in fields.items():
        if name in value:
            given[name] = _read(value[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise StrictJsonError(f"{where} has no field {name!r}")
    try:
        return kind(**given)
    except (UsageError, ValueError, TypeError) as error:
        raise StrictJsonError(f"{where}: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StrictJsonError("a field is given twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise StrictJsonError(f"{name} is not a number")
