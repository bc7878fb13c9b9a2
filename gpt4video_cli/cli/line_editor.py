"""The line a person types on: editing, history on disk, completion of commands, settings and paths.

It is drawn on stderr where that is a terminal, so that ``gpt4video chat > answers.txt`` keeps only answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.styles import Style

from gpt4video_cli.cli.folders import data_folder
from gpt4video_cli.cli.plain_lines import ask_plainly
from gpt4video_cli.cli.settings import SETTINGS
from gpt4video_cli.cli.terminal import clean, is_plain, say, wants_colour

HISTORY_NAME = "chat_history"


class LineEditor:
    """Reads what the person types. ``commands``: name and explanation of each slash command."""

    def __init__(self, commands: Sequence[tuple[str, str]], *, path_commands: Sequence[str]) -> None:
        stream = sys.stderr if sys.stderr.isatty() else sys.stdout
        self._session: PromptSession[str] = PromptSession(
            history=open_history(),
            completer=SlashCompleter(commands, path_commands),
            complete_while_typing=False,
            key_bindings=_keys(),
            multiline=True,  # Enter is bound below; a pasted text keeps its lines
            prompt_continuation=lambda width, line, wrapped: "" if wrapped else "." * (width - 1) + " ",
            output=create_output(stdout=stream),
            color_depth=None if wants_colour(stream) else ColorDepth.DEPTH_1_BIT,
            style=Style.from_dict({"prompt": "bold"}),
            enable_history_search=True,
            reserve_space_for_menu=4,
        )

    def read(self, *, queued: int = 0, default: str = "") -> str:
        """The next message. Raises ``KeyboardInterrupt`` for Ctrl-C and ``EOFError`` for Ctrl-D on an empty line."""
        mark = f"[{queued} clip{'s' if queued > 1 else ''}] > " if queued else "> "
        return clean(self._session.prompt([("class:prompt", mark)], default=default))


def ask_line(question: str, *, default: str = "") -> str:
    """One line, edited, that is not kept. Raises ``KeyboardInterrupt`` for Ctrl-C and ``EOFError`` for Ctrl-D."""
    if is_plain():
        return ask_plainly(question, default=default)
    stream = sys.stderr if sys.stderr.isatty() else sys.stdout
    depth = None if wants_colour(stream) else ColorDepth.DEPTH_1_BIT
    session: PromptSession[str] = PromptSession(output=create_output(stdout=stream), color_depth=depth)
    return clean(session.prompt(question, default=default))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # Enter takes the completion that is chosen
        elif buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


class _CarefulHistory(FileHistory):
    """A history that goes on in memory where the disk is full or the folder cannot be written."""

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError as error:
            say(f"note: the history cannot be written: {error.strerror or error}")

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


def open_history() -> History:
    """What was typed before, in the user's data folder, readable by nobody else."""
    path = data_folder() / HISTORY_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError as error:
        say(f"note: no history is kept: {path}: {error.strerror or error}")
        return InMemoryHistory()
    return _CarefulHistory(str(path))


class SlashCompleter(Completer):
    """Tab after ``/`` completes commands; after /video, /save and /load paths; after /set and /help names."""

    def __init__(self, commands: Sequence[tuple[str, str]], path_commands: Sequence[str]) -> None:
        self._commands = commands
        self._path_commands = path_commands
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See prompt_toolkit."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, blank, rest = text.partition(" ")
        if not blank:
            for command, about in self._commands:
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name), display_meta=about)
        elif name in self._path_commands:
            quote = rest[:1] if rest[:1] in ("'", '"') else ""
            typed = rest[len(quote) :]
            inner = Document(typed, len(typed))
            for found in self._paths.get_completions(inner, complete_event):
                folder = Path(os.path.expanduser(typed[: found.start_position or None] + found.text)).is_dir()
                yield Completion(
                    found.text + ("/" if folder and not found.text.endswith("/") else ""),
                    start_position=found.start_position,
                    display=found.display,
                )
        elif name == "/set" and " " not in rest:
            for setting, meaning in SETTINGS.items():
                if setting.startswith(rest):
                    yield Completion(setting, start_position=-len(rest), display_meta=meaning.about)
