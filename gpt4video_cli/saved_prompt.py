"""Prompts that are kept under a name, with variables: ``{name}``, or ``{name=text}`` with a value of its own.

``{{`` and ``}}`` are braces. FOLDER/NAME.txt holds the text of a prompt; what is filled in is text and read no further.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gpt4video_cli.errors import Gpt4VideoError, InputError, UsageError
from gpt4video_cli.reply import CLOSE, OPEN
from gpt4video_cli.whole_file import write_whole

LARGEST_FILE = 1 << 16
"""Bytes: more than the context of most models."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ENDING = ".txt"
_MARK = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:=(?P<value>[^{}]*))?\}|[{}]")


@dataclass(frozen=True)
class SavedPrompt:
    """``text`` as it was written. ``variables``: names in order, with their own values or None.

    Made by ``parse``, which raises ``UsageError`` for text that is no prompt.
    """

    text: str
    variables: Mapping[str, str | None]

    @classmethod
    def parse(cls, text: str) -> SavedPrompt:
        """The prompt that ``text`` says, without blanks around it."""
        text = text.strip()
        if not text:
            raise UsageError("the text of the prompt is empty")
        _check(text)
        variables: dict[str, str | None] = {}
        for mark in _MARK.finditer(text):
            if mark[0] in "{}":
                shown = " ".join(text[mark.start() : mark.start() + 20].split())
                raise UsageError(f"the brace in {shown!r} belongs to no variable", hint="write {{ and }} for braces")
            name, value = mark["name"], mark["value"]
            if name is None:
                continue
            if None not in (variables.get(name), value) and variables[name] != value:
                raise UsageError(f"the variable {name} has two values, {variables[name]!r} and {value!r}")
            variables[name] = variables.get(name) if value is None else value
        return cls(text, variables)

    def fill(self, given: Mapping[str, str]) -> str:
        """The text with its variables filled in. Raises ``UsageError`` for names that are missing or too many."""
        for name in given:
            if name not in self.variables:
                near = get_close_matches(name, self.variables, n=1, cutoff=0.5)
                known = f"it has {', '.join(self.variables)}" if self.variables else "it has none"
                raise UsageError(
                    f"the prompt has no variable {name!r}", hint=f"did you mean {near[0]}?" if near else known
                )
        values = {name: given.get(name, value) for name, value in self.variables.items()}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            hint = " ".join(f"--var {name}=..." for name in missing)
            raise UsageError(f"the prompt needs {', '.join(missing)}", hint=f"give it with {hint}")
        filled = _MARK.sub(lambda mark: mark[0][0] if mark["name"] is None else str(values[mark["name"]]), self.text)
        _check(filled)
        if not filled.strip():
            raise UsageError("the prompt is empty when it is filled in")
        return filled


class PromptStore:
    """The prompts in ``folder``, which is made when the first one is kept. Names never lead out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All names, sorted."""
        found = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.folder) as entries:
            for entry in entries:
                name, ending = os.path.splitext(entry.name)
                if ending == _ENDING and _NAME.fullmatch(name):
                    found.append(name)
        return sorted(found)

    def path(self, name: str) -> Path:
        """The file of a prompt; it may not exist."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a name", hint="letters, digits, - and _, 64 at most")
        return self.folder / f"{name}{_ENDING}"

    def load(self, name: str) -> SavedPrompt:
        """The prompt. Raises ``UsageError`` where there is none, ``InputError`` where its file is no prompt."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            if len(content) > LARGEST_FILE:
                raise UsageError(f"too large for a prompt (more than {LARGEST_FILE} bytes)")
            return SavedPrompt.parse(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not text in UTF-8") from error
        except UsageError as error:
            raise InputError(f"{path}: {error}", hint=error.hint) from error

    def keep(self, name: str, text: str, *, replace: bool = False) -> SavedPrompt:
        """Write a prompt. Raises ``UsageError`` for text that is none and, without ``replace``, for a name in use."""
        path = self.path(name)
        prompt = SavedPrompt.parse(text)
        try:
            size = len(prompt.text.encode())
        except UnicodeEncodeError:
            raise UsageError("the text is not in UTF-8") from None
        if size >= LARGEST_FILE:
            raise UsageError(f"the text is longer than {LARGEST_FILE} bytes")
        if os.path.lexists(path) and not replace:
            raise UsageError(f"there is a template {name!r} already", hint="--force replaces it")
        try:
            write_whole(path, prompt.text + "\n")
        except OSError as error:
            raise Gpt4VideoError(f"{path}: cannot be written: {error.strerror or error}") from error
        return prompt

    def remove(self, name: str) -> None:
        """Remove a prompt; ``UsageError`` where there is none."""
        path = self.path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise Gpt4VideoError(f"{path}: cannot be removed: {error.strerror or error}") from error

    def _missing(self, name: str) -> UsageError:
        names = self.names()
        near = get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"there are {', '.join(names[:10])}" if names else 'gpt4video templates new NAME "..." keeps one'
        return UsageError(f"no template {name!r}", hint=f"did you mean {' or '.join(near)}?" if near else hint)


def read_variables(words: Iterable[str]) -> dict[str, str]:
    """``name=value`` each. Raises ``UsageError`` for another form and for a name that comes twice."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"--var is {word!r}; it must be NAME=VALUE")
        if name in found:
            raise UsageError(f"--var {name} is given twice")
        found[name] = value
    return found


def _check(text: str) -> None:
    """Refuse what no saved prompt needs. A tag that is typed asks for no clip either; in a file it is a trap."""
    for tag in (OPEN, CLOSE):
        if tag in text:
            raise UsageError(f"the prompt holds {tag}, which only the model may write", hint="ask for a clip in words")
    if "\0" in text:
        raise UsageError("the prompt holds a zero byte")
