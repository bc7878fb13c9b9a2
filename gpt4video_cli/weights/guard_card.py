"""The card of a guard: a classifier or a language model of the hub, and what its labels mean. TOML, read strictly.

schema = 1
kind = "guard"                           which tells it from other cards
name, summary, licence                   as in an assistant's card; also folder, made_from, citation, limits
repository, revision, files              of the hub, where the weights are not in a folder; files: patterns, if not all
parameters                               of all parts together
[guard]      model = "text-classifier", "image-classifier", "safety-checker" or "language-model"
             labels = "one" (they exclude each other: softmax) or "many" (each is a question of its own: sigmoid)
[labels]     nsfw = "sexual"             label of the model -> category of safety/categories.py; others are left out
[measured]   any numbers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.safety.categories import CATEGORIES
from gpt4video_cli.weights.card import (
    FILE_NAME,
    Measured,
    card_content,
    card_text,
    errors_named,
    measured_numbers,
    typed,
)

KIND = "guard"
TEXT_MODELS = ("text-classifier", "language-model")
FRAME_MODELS = ("image-classifier", "safety-checker")
WITHOUT_LABELS = ("safety-checker",)
"""Models whose outputs have no names; their reader knows what they mean."""


@dataclass(frozen=True)
class GuardCard:
    """A guard's card. See the module's first lines for the file."""

    name: str
    summary: str
    licence: str
    model: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Label of the model -> category."""
    many: bool = False
    """Whether several labels can be true at once."""
    repository: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    """Patterns of the repository's files that are needed; none: see ``sources.needed``."""
    parameters: int | None = None
    folder: str | None = None
    """Where the weights are, if not beside the card: a path."""
    made_from: str = ""
    citation: str = ""
    limits: tuple[str, ...] = ()
    measured: Measured = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise WeightsError(f"name {self.name!r} may have letters, digits, dots, dashes and underscores only")
        known = (*TEXT_MODELS, *FRAME_MODELS)
        if self.model not in known:
            raise WeightsError(f"guard.model is {self.model!r}, known are {', '.join(known)}")
        for label, category in self.labels.items():
            if category not in CATEGORIES:
                raise WeightsError(f"labels.{label} is {category!r}, known are {', '.join(CATEGORIES)}")
        if bool(self.labels) == (self.model in WITHOUT_LABELS):
            raise WeightsError(f"labels: a {self.model} {'has none' if self.labels else 'must have some'}")
        if self.repository is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repository):
            raise WeightsError(f"repository is {self.repository!r}; it must be OWNER/NAME")

    @property
    def judges_text(self) -> bool:
        """Whether it judges text, and not pictures."""
        return self.model in TEXT_MODELS


_HEAD: dict[str, type] = {
    "name": str,
    "summary": str,
    "licence": str,
    "repository": str,
    "revision": str,
    "files": tuple,
    "parameters": int,
    "folder": str,
    "made_from": str,
    "citation": str,
    "limits": tuple,
}


def read_guard_card(path: str | Path) -> GuardCard:
    """The card in ``path``. An unknown key or a missing field is a ``WeightsError`` with the file's and its name."""
    return parse_guard_card(card_text(path), str(path))


def parse_guard_card(text: str, source: str = FILE_NAME) -> GuardCard:
    """The card that ``text`` holds; ``source`` names it in errors."""
    with errors_named(source):
        return _parse(text)


def _parse(text: str) -> GuardCard:
    content = card_content(text)
    if content.pop("kind", None) != KIND:
        raise WeightsError(f'kind is not "{KIND}"', hint="this is no guard")
    tables = {name: content.pop(name, {}) for name in ("guard", "labels", "measured")}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise WeightsError(f"{name} must be a table")
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in _HEAD:
            raise WeightsError(f"unknown key {key}")
        values[key] = typed(value, _HEAD[key], key)
    for key, value in tables["guard"].items():
        if key not in ("model", "labels"):
            raise WeightsError(f"unknown key guard.{key}")
        typed(value, str, f"guard.{key}")
    for key, where in (("name", values), ("summary", values), ("licence", values), ("model", tables["guard"])):
        if key not in where:
            raise WeightsError(f"{key if where is values else f'guard.{key}'} is missing")
    labels = tables["guard"].get("labels", "one")
    if labels not in ("one", "many"):
        raise WeightsError(f"guard.labels is {labels!r}, known are one, many")
    return GuardCard(
        **values,
        model=tables["guard"]["model"],
        many=labels == "many",
        labels={label: typed(category, str, f"labels.{label}") for label, category in tables["labels"].items()},
        measured=measured_numbers(tables["measured"]),
    )
