"""The card of a model: what it is, how to talk to it, what was measured, what it cannot do. TOML, read strictly.

schema = 1
name = "bundle"
summary = "one line"
licence = "Apache-2.0"
limits = ["what it cannot do", ...]
parameters = 7000000000     of all parts together
[prompt]      template = "paper"
[sampling]    frames = 8, mode = "exact"
[vision]      final_norm = true
[generation]  temperature = 0.0, top_p = 1.0, max_tokens = 128
[parts.NAME]  where its weights come from: repository, revision, files (patterns), format (of ``models import``)
[measured]    any numbers, in tables if you like
[training]    what a training run notes of itself
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError

SCHEMA = 1
FILE_NAME = "card.toml"
SAMPLING_MODES = ("exact", "keyframe")

Measured = Mapping[str, Any]
"""Numbers by name; a value may again be such a table."""


@dataclass(frozen=True)
class Download:
    """A hub repository that holds a part of a model, and what turns it into one."""

    repository: str
    format: str
    """A format of ``gpt4video models import``."""
    revision: str | None = None
    """A branch, tag or commit; None: main."""
    files: tuple[str, ...] = ()
    """Patterns of the files that are needed; none: see ``sources.needed``."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise WeightsError(f"repository is {self.repository!r}; it must be OWNER/NAME")


@dataclass(frozen=True)
class Card:
    """A model's card. Sampling and generation are its defaults; the command line may override them."""

    name: str
    summary: str
    licence: str
    template: str = "paper"
    """Name of a prompt template of ``model.prompt``."""
    frames: int = 4
    """Frames to take of a clip; 4 is the paper's default."""
    mode: str = "exact"
    """``exact`` or ``keyframe`` sampling."""
    final_norm: bool = False
    """Whether the visual encoder's last layer norm is used on all tokens."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    folder: str | None = None
    """Where the weights are, if not beside the card: ``package:PACKAGE/FOLDER`` or a path. See ``weights.locate``."""
    parameters: int | None = None
    """Of all parts together, where they are published or were counted."""
    parts: Mapping[str, Download] = field(default_factory=dict)
    """Where weights that do not ship come from."""
    made_from: str = ""
    citation: str = ""
    limits: tuple[str, ...] = ()
    measured: Measured = field(default_factory=dict)
    training: Measured = field(default_factory=dict)
    """What ``gpt4video train`` notes of its run: numbers and texts (data, hashes), in tables if there are several."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise WeightsError(f"name {self.name!r} may have letters, digits, dots, dashes and underscores only")
        if self.frames < 1:
            raise WeightsError(f"sampling.frames must be 1 or more, got {self.frames}")
        if self.mode not in SAMPLING_MODES:
            raise WeightsError(f"sampling.mode is {self.mode!r}, known are {', '.join(SAMPLING_MODES)}")
        if not 0 <= self.temperature < float("inf"):
            raise WeightsError(f"generation.temperature must be 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise WeightsError(f"generation.top_p must be above 0 and at most 1, got {self.top_p}")
        if self.max_tokens < 1:
            raise WeightsError(f"generation.max_tokens must be 1 or more, got {self.max_tokens}")


@dataclass(frozen=True)
class _Key:
    """Where a field of ``Card`` stands in the file, its type there, and whether it must be there."""

    table: str
    key: str
    kind: type
    required: bool = False


_KEYS: dict[str, _Key] = {
    "name": _Key("", "name", str, required=True),
    "summary": _Key("", "summary", str, required=True),
    "licence": _Key("", "licence", str, required=True),
    "folder": _Key("", "folder", str),
    "parameters": _Key("", "parameters", int),
    "made_from": _Key("", "made_from", str),
    "citation": _Key("", "citation", str),
    "limits": _Key("", "limits", list),
    "template": _Key("prompt", "template", str, required=True),
    "frames": _Key("sampling", "frames", int, required=True),
    "mode": _Key("sampling", "mode", str),
    "final_norm": _Key("vision", "final_norm", bool, required=True),
    "temperature": _Key("generation", "temperature", float),
    "top_p": _Key("generation", "top_p", float),
    "max_tokens": _Key("generation", "max_tokens", int),
}
_TABLES = ("prompt", "sampling", "vision", "generation")


def read_card(path: str | Path) -> Card:
    """The card in ``path``. An unknown key or a missing field is a ``WeightsError`` with the file's and its name."""
    return parse_card(card_text(path), str(path))


def card_text(path: str | Path) -> str:
    """What stands in a card's file, of whatever kind. Raises ``WeightsError`` with the file's name."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: card is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error


def card_content(text: str) -> dict[str, Any]:
    """A card's tables, of whatever kind, without the schema. Raises ``WeightsError`` for what no card is."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"not valid TOML ({error})") from error
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        found = "is missing" if schema is None else f"is {schema!r}"
        raise WeightsError(f"schema {found}, this program reads {SCHEMA}", hint="use a matching gpt4video")
    return content


@contextmanager
def errors_named(source: str) -> Iterator[None]:
    """What is wrong with a card, of whatever kind, says in which file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}", hint=error.hint) from error


def card_kind(path: Path) -> str:
    """What ``kind`` says in a card's first table; empty for an assistant's card and a file that cannot be read."""
    try:
        head = path.read_text(encoding="utf-8").partition("\n[")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    found = re.search(r'^kind\s*=\s*"(.*)"', head, re.MULTILINE)
    return found[1] if found else ""


def parse_card(text: str, source: str = FILE_NAME) -> Card:
    """The card that ``text`` holds; ``source`` names it in errors."""
    with errors_named(source):
        return _parse(text)


def _parse(text: str) -> Card:
    content = card_content(text)
    values: dict[str, Any] = {
        "measured": measured_numbers(content.pop("measured", {})),
        "training": measured_numbers(content.pop("training", {}), "training", texts=True),
        "parts": _parts(content.pop("parts", {})),
    }
    tables: dict[str, Any] = {"": content, **{name: content.pop(name, {}) for name in _TABLES}}
    for name, place in _KEYS.items():
        where = f"{place.table}.{place.key}" if place.table else place.key
        table = tables[place.table]
        if not isinstance(table, dict):
            raise WeightsError(f"{place.table} must be a table")
        if place.key in table:
            values[name] = typed(table.pop(place.key), place.kind, where)
        elif place.required:
            raise WeightsError(f"{where} is missing")
    for name, table in tables.items():
        for key in table:
            raise WeightsError(f"unknown key {f'{name}.{key}' if name else key}")
    return Card(**values)


_PART = {"repository": str, "format": str, "revision": str, "files": list}


def _parts(tables: Any) -> dict[str, Download]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise WeightsError("parts must be a table of tables")
    parts = {}
    for name, table in tables.items():
        for key in table:
            if key not in _PART:
                raise WeightsError(f"unknown key parts.{name}.{key}")
        for key in ("repository", "format"):
            if key not in table:
                raise WeightsError(f"parts.{name}.{key} is missing")
        values = {key: typed(value, _PART[key], f"parts.{name}.{key}") for key, value in table.items()}
        try:
            parts[name] = Download(**values)
        except WeightsError as error:
            raise WeightsError(f"parts.{name}.{error}") from error
    return parts


def typed(value: Any, kind: type, where: str) -> Any:
    """``value`` if it is of ``kind`` (a whole number serves as a float, a list of strings as a tuple)."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (list, tuple):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise WeightsError(f"{where} must be a list of strings")
        return tuple(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise WeightsError(f"{where} must be of type {kind.__name__}, found {value!r}")
    return value


def measured_numbers(value: Any, where: str = "measured", *, texts: bool = False) -> dict[str, Any]:
    """``value`` if it is a table of numbers, with ``texts`` also of strings, or of such tables."""
    if not isinstance(value, dict):
        raise WeightsError(f"{where} must be a table of numbers")
    for key, item in value.items():
        if isinstance(item, dict):
            measured_numbers(item, f"{where}.{key}", texts=texts)
        elif texts and isinstance(item, str):
            continue
        elif isinstance(item, bool) or not isinstance(item, int | float):
            raise WeightsError(f"{where}.{key} must be a number, found {item!r}")
    return value


def render_card(card: Card) -> str:
    """The card as TOML; ``parse_card`` gives it back unchanged."""
    lines = [f"schema = {SCHEMA}"]
    for table in ("", *_TABLES):
        if table:
            lines += ["", f"[{table}]"]
        for name, place in _KEYS.items():
            value = getattr(card, name)
            if place.table == table and (place.required or table or value not in (None, "", ())):
                lines.append(f"{place.key} = {toml_value(value)}")
    for name, part in card.parts.items():
        lines += ["", f"[parts.{_toml_key(name)}]"]
        values = {key: getattr(part, key) for key in _PART}
        lines += [f"{key} = {toml_value(value)}" for key, value in values.items() if value not in (None, ())]
    tables = [*_measured_lines(card.measured, "measured"), *_measured_lines(card.training, "training")]
    return "\n".join([*lines, *tables]) + "\n"


def _measured_lines(values: Measured, table: str) -> list[str]:
    if not values:
        return []
    lines = ["", f"[{table}]"]
    lines += [f"{_toml_key(key)} = {toml_value(item)}" for key, item in values.items() if not isinstance(item, Mapping)]
    for key, item in values.items():
        if isinstance(item, Mapping):
            lines += _measured_lines(item, f"{table}.{_toml_key(key)}")
    return lines


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + "".join(f"\n    {toml_value(item)}," for item in value) + ("\n" if value else "") + "]"
    return repr(value)
