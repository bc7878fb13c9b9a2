"""A conversation, in memory and on disk.

On disk it is one JSON file with a version, written whole, read strictly (``strict_json.py``). Video embeddings are not
stored: a clip is known by its path and the hash of its content, and encoded again when the conversation goes on.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError, SessionFileError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt

FORMAT = "gpt4video session"
VERSION = 1
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
class Turn:
    """A message and its answer.

    ``answer`` is the visible text. ``written`` is the text as the model wrote it, tags included, and ``ids`` are its
    token ids in the vocabulary of ``model``. ``prompts`` are the clips that the answer asks for.
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

    def message(self) -> Message:
        """The message again, to retry it."""
        return Message(self.text, tuple(ClipRequest(clip.path, clip.plan) for clip in self.clips))


@dataclass(frozen=True)
class _File:
    format: str
    version: int
    turns: tuple[Turn, ...]


@dataclass
class Session:
    """Turns in order. ``runtime`` is the assistant's own (the kept key/value cache) and is never stored."""

    turns: list[Turn] = field(default_factory=list)
    runtime: Any = field(default=None, repr=False, compare=False)

    @property
    def clips(self) -> list[SessionClip]:
        """All clips of the conversation, in the order of their numbers."""
        return [clip for turn in self.turns for clip in turn.clips]

    def undo(self) -> Turn | None:
        """Take back the last message, its clips and its answer; None when there is none."""
        return self.turns.pop() if self.turns else None

    def reset(self) -> None:
        """Forget everything."""
        self.turns.clear()
        self.runtime = None

    def save(self, path: str | Path) -> None:
        """Write the file whole: a killed program leaves the old file or the new one."""
        content = json.dumps(asdict(_File(FORMAT, VERSION, tuple(self.turns))), indent=1, allow_nan=False)
        if len(content) > MAX_BYTES:
            raise Gpt4VideoError(f"{path}: the conversation is too long to be saved ({len(content)} bytes)")
        try:
            _write_whole(Path(path), content.encode("ascii"))
        except OSError as error:
            raise Gpt4VideoError(f"{path}: cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Session:
        """Read a saved conversation; raises ``SessionFileError`` with the file and the reason."""
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SessionFileError(f"{path}: cannot be read: {error.strerror or error}") from error
        if len(content) > MAX_BYTES:
            raise SessionFileError(f"{path}: too large for a session file (more than {MAX_BYTES} bytes)")
        try:
            value = loads(content)
            if not isinstance(value, dict) or value.get("format") != FORMAT:
                raise StrictJsonError(f'not a session file (no "format": "{FORMAT}")')
            if value.get("version") != VERSION:
                raise StrictJsonError(f"session version {value.get('version')!r}; this program reads {VERSION}")
            turns = list(from_json(value, _File, "session").turns)
            _check(turns)
        except StrictJsonError as error:
            raise SessionFileError(f"{path}: {error}") from error
        return cls(turns)


def _check(turns: list[Turn]) -> None:
    """What types cannot say: clips counted from 1, text that can be tokenised, ids that can be ids."""
    clips = 0
    for number, turn in enumerate(turns, start=1):
        where = f"session.turns[{number - 1}]"
        for clip in turn.clips:
            clips += 1
            if clip.number != clips or clip.alone != (len(turn.clips) == 1):
                raise StrictJsonError(f"{where}: the clips are numbered wrongly")
        if any(token < 0 for token in turn.ids):
            raise StrictJsonError(f"{where}.ids: a token id is negative")
        for text in (turn.text, turn.answer, turn.written, *turn.prompts):
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise StrictJsonError(f"{where}: text that is not Unicode")


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
