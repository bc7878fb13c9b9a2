"""The card of a text-to-video model: which diffusers pipeline, what it can do, how. TOML, read strictly.

schema = 1
kind = "generator"                       which tells it from an assistant's card
name, summary, licence                   as in an assistant's card; also folder, made_from, citation, limits
repository, revision, variant, files     of the hub, where the weights are not in a folder; files: patterns, if not all
parameters                               of all parts together
[pipeline]        class = "WanPipeline", dtype = "bfloat16" (on a GPU), prompt_tokens = 512, memory_gb = 8.2
[pipeline.dtypes] vae = "float32"        parts that differ
[parts.NAME]      class, repository, revision: a part that is not in the model's own folder
[defaults]        width, height, frames, fps, steps, guidance, scheduler, negative_prompt, strength, and shortcuts:
                  guidance_pass, guidance_until, cache_threshold, cache_every
[rules]           what it can do: size_multiple, min_side, max_side, sizes, frames_multiple, frames_offset, min_frames,
                  max_frames, min_steps, min_guidance, schedulers
[call]            more arguments of the pipeline's call
[scheduler]       settings which a scheduler gets that is built by name
[measured]        any numbers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.card import (
    FILE_NAME,
    Measured,
    card_content,
    card_text,
    errors_named,
    measured_numbers,
    typed,
)

KIND = "generator"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Defaults:
    """What a request gets where it says nothing. Pixels, frames, frames per second, denoising steps."""

    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    scheduler: str = "default"
    """A name of ``gallery.schedulers``; ``default`` is the one that the model was saved with."""
    negative_prompt: str = ""
    strength: float = 0.6
    """For models that start from a clip: how much of it is drawn anew, above 0 to 1."""
    guidance_pass: str = "default"
    """``batched`` or ``in-turn``, see ``gallery.generator.FilmRequest``, as the next three; default: the pipeline's."""
    guidance_until: float = 1.0
    cache_threshold: float = 0.0
    cache_every: int = 1


@dataclass(frozen=True)
class Rules:
    """What the model can do. Width and height are multiples of ``size_multiple`` pixels, frames k*multiple + offset."""

    size_multiple: int = 8
    min_side: int = 16
    max_side: int = 4096
    sizes: tuple[str, ...] = ()
    """``WIDTHxHEIGHT``; if there are any, no other size is possible."""
    frames_multiple: int = 1
    frames_offset: int = 0
    min_frames: int = 1
    max_frames: int = 1024
    min_steps: int = 1
    min_guidance: float = 0.0
    schedulers: tuple[str, ...] = ()
    """Names of the only schedulers that work; empty: all of the model's kind."""


@dataclass(frozen=True)
class Part:
    """A component from another hub repository, such as AnimateDiff's motion module."""

    class_name: str
    repository: str
    revision: str | None = None


@dataclass(frozen=True)
class GeneratorCard:
    """A text-to-video model's card. See the module's first lines for the file."""

    name: str
    summary: str
    licence: str
    pipeline: str
    """Name of the pipeline's class in diffusers."""
    defaults: Defaults
    rules: Rules = field(default_factory=Rules)
    dtype: str = "float32"
    """On a GPU; on a CPU it is float32."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    """How many tokens of a prompt the text encoder reads."""
    memory_gb: float | None = None
    """GPU memory that a clip of the default size takes, where somebody measured it."""
    repository: str | None = None
    revision: str | None = None
    variant: str | None = None
    files: tuple[str, ...] = ()
    """Patterns of the repository's files that are needed; none: see ``sources.needed``."""
    parameters: int | None = None
    """Of all parts together, where they are published or were counted."""
    folder: str | None = None
    """Where the weights are, if not beside the card: ``package:PACKAGE/FOLDER`` or a path."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    made_from: str = ""
    citation: str = ""
    limits: tuple[str, ...] = ()
    measured: Measured = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise WeightsError(f"name {self.name!r} may have letters, digits, dots, dashes and underscores only")
        if not self.pipeline.isidentifier():
            raise WeightsError(f"pipeline.class is {self.pipeline!r}; it must be the name of a class")
        for where, dtype in [("pipeline.dtype", self.dtype), *(("pipeline.dtypes", d) for d in self.dtypes.values())]:
            if dtype not in DTYPES:
                raise WeightsError(f"{where} is {dtype!r}, known are {', '.join(DTYPES)}")
        for name in ("size_multiple", "min_side", "max_side", "frames_multiple", "min_frames", "max_frames"):
            if getattr(self.rules, name) < 1:
                raise WeightsError(f"rules.{name} must be 1 or more, got {getattr(self.rules, name)}")
        for size in self.rules.sizes:
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
                raise WeightsError(f"rules.sizes has {size!r}; it must be WIDTHxHEIGHT")
        if self.repository is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise WeightsError(f"repository is {self.repository!r}; it must be OWNER/NAME")


_HEAD = (
    "name",
    "summary",
    "licence",
    "repository",
    "revision",
    "variant",
    "files",
    "parameters",
    "folder",
    "made_from",
    "citation",
    "limits",
)
_PIPELINE = {"class": "pipeline", "dtype": "dtype", "prompt_tokens": "prompt_tokens", "memory_gb": "memory_gb"}
_TYPES: dict[str, Any] = {
    "prompt_tokens": int,
    "parameters": int,
    "files": tuple,
    "memory_gb": float,
    "limits": tuple,
    "schedulers": tuple,
    "sizes": tuple,
}


def read_generator_card(path: str | Path) -> GeneratorCard:
    """The card in ``path``. An unknown key or a missing field is a ``WeightsError`` with the file's and its name."""
    return parse_generator_card(card_text(path), str(path))


def parse_generator_card(text: str, source: str = FILE_NAME) -> GeneratorCard:
    """The card that ``text`` holds; ``source`` names it in errors."""
    with errors_named(source):
        return _parse(text)


def _parse(text: str) -> GeneratorCard:
    content = card_content(text)
    if content.pop("kind", None) != KIND:
        raise WeightsError(f'kind is not "{KIND}"', hint="this is no text-to-video model")
    tables = {
        name: _table(content.pop(name, {}), name)
        for name in ("pipeline", "parts", "defaults", "rules", "call", "scheduler", "measured")
    }
    pipeline = tables["pipeline"]
    values: dict[str, Any] = {"dtypes": _table(pipeline.pop("dtypes", {}), "pipeline.dtypes")}
    for key, name in _PIPELINE.items():
        if key in pipeline:
            values[name] = typed(pipeline.pop(key), _TYPES.get(name, str), f"pipeline.{key}")
    for key in _HEAD:
        if key in content:
            values[key] = typed(content.pop(key), _TYPES.get(key, str), key)
    _no_more(content, "")
    _no_more(pipeline, "pipeline.")
    for name, where in [
        ("name", "name"),
        ("summary", "summary"),
        ("licence", "licence"),
        ("pipeline", "pipeline.class"),
    ]:
        if name not in values:
            raise WeightsError(f"{where} is missing")
    _check_plain(tables["call"], "call")
    _check_plain(tables["scheduler"], "scheduler")
    return GeneratorCard(
        **values,
        defaults=_dataclass(tables["defaults"], Defaults, "defaults"),
        rules=_dataclass(tables["rules"], Rules, "rules"),
        parts={name: _part(_table(value, f"parts.{name}"), name) for name, value in tables["parts"].items()},
        call=tables["call"],
        scheduler=tables["scheduler"],
        measured=measured_numbers(tables["measured"]),
    )


def _part(table: dict[str, Any], name: str) -> Part:
    texts = {key: typed(table.pop(key), str, f"parts.{name}.{key}") for key in list(table)}
    known = {"class": "class_name", "repository": "repository", "revision": "revision"}
    _no_more({key: 0 for key in texts if key not in known}, f"parts.{name}.")
    for key in ("class", "repository"):
        if key not in texts:
            raise WeightsError(f"parts.{name}.{key} is missing")
    return Part(**{known[key]: value for key, value in texts.items()})


def _dataclass(table: dict[str, Any], kind: Any, where: str) -> Any:
    """A dataclass of numbers, texts and lists of texts; its annotations are text here (PEP 563)."""
    values = {}
    for item in fields(kind):
        if item.name in table:
            wanted = {"int": int, "float": float, "str": str}.get(str(item.type), tuple)
            values[item.name] = typed(table.pop(item.name), wanted, f"{where}.{item.name}")
    _no_more(table, f"{where}.")
    try:
        return kind(**values)
    except TypeError as error:  # the fields without a default
        raise WeightsError(f"{where}: {str(error).partition('() ')[2]}") from error


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WeightsError(f"{where} must be a table")
    return dict(value)


def _check_plain(table: Mapping[str, Any], where: str) -> None:
    """Numbers, texts and truths only: what stands there goes into a side-car too."""
    for key, value in table.items():
        if not isinstance(value, bool | int | float | str):
            raise WeightsError(f"{where}.{key} must be a number, a text or a truth value, found {value!r}")


def _no_more(table: Mapping[str, Any], where: str) -> None:
    for key in table:
        raise WeightsError(f"unknown key {where}{key}")
