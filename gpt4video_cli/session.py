"""A conversation, in memory and on disk.

On disk it is one JSON file with a version, written whole, read strictly (``strict_json.py``). Video embeddings are not
stored: a clip is known by its path and the hash of its content, and encoded again when the conversation goes on. Where
conversations are kept: ``session_store.py``.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError, SessionFileError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads
from gpt4video_cli.used_model import UsedModel
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt

FORMAT = "gpt4video session"
VERSION = 2
MAX_BYTES = 32 * 1024 * 1024
"""Largest session file that is read: about 10,000 long turns."""


@dataclass(frozen=True)
class ClipRequest:
    """A clip to be seen. A plan that names no number of frames gets the model's."""

    path: str | Path
    plan: SamplingPlan = field(default_factory=SamplingPlan)


@dataclass(frozen=True)
class Message:
    """What a person says: text, and the clips that are new with it."""

    text: str
    clips: tuple[ClipRequest, ...] = ()


@dataclass(frozen=True)
class SessionClip:
    """A clip of the conversation. ``alone``: it was the only clip of its message, which decides how it is tagged."""

    number: int
    path: str
    plan: SamplingPlan
    receipt: SamplingReceipt
    alone: bool


@dataclass(frozen=True)
class FilmedClip:
    """A clip that was filmed after an answer. ``sha256`` as ``video.fingerprint`` makes it, of the file at ``path``."""

    path: str
    sha256: str
    prompt: str
    seed: int
    side_car: str | None = None


@dataclass(frozen=True)
class Turn:
    """A message and its answer.

    ``answer`` is the visible text. ``written`` is the text as the model wrote it, tags included, and ``ids`` are its
    token ids in the vocabulary of ``model``. ``prompts`` are the clips that the answer asks for, ``films`` those that
    were filmed before the next message. ``used`` None: nobody knows which weights answered.
    """

    text: str
    clips: tuple[SessionClip, ...]
    answer: str
    written: str
    ids: tuple[int, ...]
    model: str
    prompts: tuple[str, ...]
    options: SamplingOptions
    finish_reason: str
    used: UsedModel | None = None
    films: tuple[FilmedClip, ...] = ()

    def message(self) -> Message:
        """The message again, to retry it."""
        return Message(self.text, tuple(ClipRequest(clip.path, clip.plan) for clip in self.clips))


@dataclass(frozen=True)
class _File:
    format: str
    version: int
    created: str
    changed: str
    turns: tuple[Turn, ...]


def now() -> str:
    """The present time, ISO 8601 in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Session:
    """Turns in order. ``created`` and ``changed`` are times as ``now`` writes them, empty where nobody knows them.

    ``runtime`` is the assistant's own (the kept key/value cache) and is never stored.
    """

    turns: list[Turn] = field(default_factory=list)
    created: str = field(default_factory=now, compare=False)
    changed: str = field(default_factory=now, compare=False)
    runtime: Any = field(default=None, repr=False, compare=False)

    @property
    def clips(self) -> list[SessionClip]:
        """All clips of the conversation, in the order of their numbers."""
        return [clip for turn in self.turns for clip in turn.clips]

    @property
    def title(self) -> str:
        """The first question on one line; empty before it was asked."""
        return " ".join(self.turns[0].text.split()) if self.turns else ""

    def add(self, turn: Turn) -> None:
        """The conversation goes on by one turn."""
        self.turns.append(turn)
        self.changed = now()

    def add_films(self, films: tuple[FilmedClip, ...]) -> None:
        """Clips were filmed after the last answer; before the first one they belong to nothing."""
        if films and self.turns:
            self.turns[-1] = replace(self.turns[-1], films=self.turns[-1].films + films)
            self.changed = now()

    def undo(self) -> Turn | None:
        """Take back the last message, its clips and its answer; None when there is none."""
        if not self.turns:
            return None
        self.changed = now()
        return self.turns.pop()

    def reset(self) -> None:
        """Forget everything."""
        self.turns.clear()
        self.created = self.changed = now()
        self.runtime = None

    def as_bytes(self) -> bytes:
        """What stands in the file."""
        content = _File(FORMAT, VERSION, self.created, self.changed, tuple(self.turns))
        return json.dumps(asdict(content), indent=1, allow_nan=False).encode("ascii")

    def save(self, path: str | Path) -> None:
        """Write the file whole: a killed program leaves the old file or the new one."""
        write_session(Path(path), self.as_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Session:
        """Read a saved conversation; raises ``SessionFileError`` with the file and the reason."""
        return cls.parse(read_session(Path(path)), path)

    @classmethod
    def parse(cls, content: bytes, path: str | Path) -> Session:
        """The conversation in a file's ``content``; ``path`` names it in errors (``SessionFileError``)."""
        try:
            value = loads(content)
            if not isinstance(value, dict) or value.get("format") != FORMAT:
                raise StrictJsonError(f'not a session file (no "format": "{FORMAT}")')
            if value.get("version") == 1:
                value = _from_version_1(value)
            if value.get("version") != VERSION:
                raise StrictJsonError(f"session version {value.get('version')!r}; this program reads {VERSION}")
            file = from_json(value, _File, "session")
            _check(file)
        except StrictJsonError as error:
            raise SessionFileError(f"{path}: {error}") from error
        return cls(list(file.turns), file.created, file.changed)


def _from_version_1(value: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no times, no hashes of models and no filmed clips."""
    return {"created": "", "changed": "", **value, "version": 2}


def _check(file: _File) -> None:
    """What types cannot say: times, clips counted from 1, text that can be tokenised, ids that can be ids."""
    for name in ("created", "changed"):
        _check_time(getattr(file, name), f"session.{name}")
    clips = 0
    for number, turn in enumerate(file.turns, start=1):
        where = f"session.turns[{number - 1}]"
        for clip in turn.clips:
            clips += 1
            if clip.number != clips or clip.alone != (len(turn.clips) == 1):
                raise StrictJsonError(f"{where}: the clips are numbered wrongly")
        if any(token < 0 for token in turn.ids):
            raise StrictJsonError(f"{where}.ids: a token id is negative")
        for text in (turn.text, turn.answer, turn.written, *turn.prompts, *(film.prompt for film in turn.films)):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise StrictJsonError(f"{where}: text that is not Unicode")


def _check_time(text: str, where: str) -> None:
    """Nothing, or ISO 8601 with a time zone."""
    try:
        known = not text or datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        known = False
    if not known:
        raise StrictJsonError(f"{where} is no time with a time zone")


def read_session(path: Path) -> bytes:
    """The content of a session file, whatever it is; raises ``SessionFileError`` where it cannot be one."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SessionFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise SessionFileError(f"{path}: too large for a session file (more than {MAX_BYTES} bytes)")
    return content


def write_session(path: Path, content: bytes) -> None:
    """Write a session file whole, readable by its owner alone. Raises ``Gpt4VideoError``."""
    if len(content) > MAX_BYTES:
        raise Gpt4VideoError(f"{path}: the conversation is too long to be saved ({len(content)} bytes)")
    try:
        _write_whole(path, content)
    except OSError as error:
        raise Gpt4VideoError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_whole(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the new name must be on the disk as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
