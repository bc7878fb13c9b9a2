"""The format of training data: one dialogue on each line of a JSONL file. READ FIRST in this room.

    {"schema": 1, "id": "a-17", "source": "shapeworld", "licence": "Apache-2.0",
     "clips": [{"path": "clips/17.mp4", "start": 2.0, "end": 8.5}, {"description": "A red star spins."}],
     "turns": [{"user": "What moves?", "assistant": "A star.", "clips": [0]},
               {"user": "Make it blue.", "assistant": "Here: <video>a blue star spinning</video>"}]}

A turn names the clips that come with it, by their place in ``clips`` from 0; each clip comes with one turn. A clip has
a ``path`` (relative to the file's folder; a picture is a clip of one frame), or a ``description`` that stands for it in
text-only training (GPT4Video, section 3.4), or both. ``start`` and ``end`` are seconds. What the assistant asks to be
filmed stands between ``<video>`` and ``</video>`` in its turn. Blank lines are ignored; unknown keys are errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError, InputError
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads
from gpt4video_cli.whole_file import whole_file

SCHEMA = 1
LONGEST_LINE = 4 * 1024 * 1024
"""Bytes. A dialogue of that length fits no model; a file without line ends must not fill the memory."""


@dataclass(frozen=True)
class DataClip:
    """A clip of a dialogue. ``start`` and ``end`` in seconds; None: from the beginning, to the end."""

    path: str | None = None
    description: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class DataTurn:
    """What a person says, what the assistant answers, and which clips come with it (places in ``clips``)."""

    user: str
    assistant: str
    clips: tuple[int, ...] = ()


@dataclass(frozen=True)
class DataDialogue:
    """One line of the file."""

    id: str
    turns: tuple[DataTurn, ...]
    clips: tuple[DataClip, ...] = ()
    source: str = ""
    licence: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True)
class DataLine:
    """A dialogue with the file and line that it came from; ``dialogue`` None and ``error`` set where it has none."""

    file: Path
    number: int
    dialogue: DataDialogue | None = None
    error: str = ""

    @property
    def place(self) -> str:
        """``FILE:LINE`` for messages."""
        return f"{self.file}:{self.number}"


def read_lines(path: str | Path) -> Iterator[DataLine]:
    """Every dialogue of a file, and every line that holds none with the reason. Raises ``InputError`` for no file."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    yield DataLine(path, number, error=f"the line is longer than {LONGEST_LINE} bytes")
                    return
                if line.strip():
                    yield _line(path, number, line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_dialogues(path: str | Path) -> Iterator[DataDialogue]:
    """Every dialogue of a file. The first line that holds none is an ``InputError`` with file and line."""
    for line in read_lines(path):
        if line.dialogue is None:
            raise InputError(f"{line.place}: {line.error}", hint="gpt4video data check lists all such lines")
        yield line.dialogue


def _line(path: Path, number: int, line: bytes) -> DataLine:
    try:
        value = loads(line.strip().removeprefix(b"\xef\xbb\xbf"))
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            found = "no schema" if schema is None else f"schema {schema!r}"
            raise StrictJsonError(f"{found}; this program reads {SCHEMA}")
        return DataLine(path, number, from_json(value, DataDialogue, "dialogue"))
    except StrictJsonError as error:
        return DataLine(path, number, error=str(error))


def as_json(dialogue: DataDialogue) -> str:
    """One line, without what has no value."""
    return json.dumps(_without_nothing(asdict(dialogue)), ensure_ascii=False, allow_nan=False)


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _without_nothing(item) for name, item in value.items()}
        always = ("user", "assistant")
        return {name: item for name, item in kept.items() if item not in (None, "", []) or name in always}
    if isinstance(value, list | tuple):
        return [_without_nothing(item) for item in value]
    return value


def write_dialogues(path: str | Path, dialogues: Iterable[DataDialogue]) -> int:
    """Write the file whole, and say how many dialogues it has. What ``dialogues`` raises leaves the old file."""
    count = 0
    try:
        with whole_file(Path(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for dialogue in dialogues:
                file.write(as_json(dialogue) + "\n")
                count += 1
            file.flush()
    except OSError as error:
        raise Gpt4VideoError(f"{path}: cannot be written: {error.strerror or error}") from error
    return count


def clip_path(clip: DataClip, file: Path) -> Path | None:
    """Where the clip of a dialogue in ``file`` lies."""
    return None if clip.path is None else file.parent / clip.path
