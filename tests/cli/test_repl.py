"""A person's path through a conversation, in a real pseudo-terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from gpt4video_cli.session import Session

CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][0-9A-Za-z]|\x1b[=>78]|\r")


class Person:
    """Somebody at a terminal: types lines, waits for what must appear."""

    starts = ("-m", "gpt4video_cli")

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str, columns: int = 200) -> None:
        # pexpect is no terminal that answers where its cursor is.
        own = {**environment, "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"}
        command = [*self.starts, "chat", *arguments]
        self.program = pexpect.spawn(
            sys.executable, command, env=own, cwd=folder, dimensions=(50, columns), timeout=45, encoding="utf-8"
        )

    def types(self, text: str) -> None:
        self.program.send(text + "\r")

    def sees(self, pattern: str) -> str:
        """Wait for ``pattern``; what came up to its end, without control sequences."""
        self.program.expect(pattern)
        after = self.program.after if isinstance(self.program.after, str) else ""
        return CONTROL.sub("", self.program.before + after)

    def has_left(self) -> int:
        """Wait for the program's end; its exit code."""
        self.program.expect(pexpect.EOF)
        self.program.close()
        code: int = self.program.exitstatus
        return code

    def waits_for_prompt(self, mark: str = ">") -> str:
        # The line editor switches bracketed paste on whenever it waits; blanks are drawn by moving the cursor.
        return self.sees(r"\x1b\[\?2004h[\s\S]*?" + mark)


@pytest.fixture
def folder(tmp_path: Path, clip: Path, text_clip: Path) -> Path:
    (tmp_path / "red square.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "notes.mp4").write_bytes(text_clip.read_bytes())
    return tmp_path


@pytest.fixture
def home(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**environment, "GPT4VIDEO_HOME": str(tmp_path / "home")}


@pytest.fixture
def person(home: dict[str, str], folder: Path, random_model: Path) -> Iterator[Person]:
    someone = Person(home, folder, "-m", str(random_model), "--max-tokens", "8")
    yield someone
    someone.program.close(force=True)


def test_a_conversation(person: Person, folder: Path, home: dict[str, Any]) -> None:
    banner = person.waits_for_prompt()
    person.types("/video missing.mp4")
    person.sees(r"error: missing\.mp4: no such file")
    person.types("/video notes.mp4")
    person.sees("error: notes.mp4: is text, not a video")
    person.types("/video red square.mp4 --frames 2")
    person.sees("queued for the next message: red square.mp4: 2 frames of 2.00 s")
    person.waits_for_prompt("clip")
    person.types("What is \\\rseen?")  # a backslash before Enter: a second line
    person.sees("not screened: user clip")
    person.sees("cut at 8 tokens")
    person.waits_for_prompt()
    assert "Random weights" in banner
    assert "It knows nothing" in banner

    person.types("/frames")
    person.sees("clip 1: .*2 frames of 2.00 s at 0.50 1.50 s")
    person.types("and now?")
    person.sees("cut at 8 tokens")
    person.types("/save talk one.json")
    person.sees("saved 2 turns to talk one.json")
    person.types("/undo")
    person.sees("took back the last message and its answer; 1 turn left")
    person.sees("and now")  # the message is back on the line
    person.program.sendcontrol("c")
    person.types("/save red square.mp4")
    person.sees("error: red square.mp4: exists and is no saved conversation")
    person.types("/reset")
    person.sees("a new conversation")
    person.types("/undo")
    person.sees("error: there is nothing to undo")
    person.types("/load notes.mp4")
    person.sees("error: notes.mp4: not JSON")
    person.types("/load talk one.json")
    person.sees("loaded 2 turns with 1 clip from talk one.json")
    person.types("/retry")
    person.sees("the answer will be the same")
    person.sees("cut at 8 tokens")
    person.types("/rtery")
    person.sees("error: no command /rtery; did you mean /retry")
    person.types("/set temprature 1")
    person.sees("did you mean temperature")
    person.types("/set temperature 0.7")
    person.sees("temperature = 0.7")
    person.types("/set")
    person.sees(r"max-tokens = 8 ")
    person.types("/help")
    person.sees("Ctrl-D leaves")
    person.waits_for_prompt()
    person.types("/exit")
    assert person.has_left() == 0

    session = Session.load(folder / "talk one.json")
    assert [turn.text for turn in session.turns] == ["What is \nseen?", "and now?"]
    assert json.loads((folder / "talk one.json").read_text())["version"] == 2
    history = Path(home["GPT4VIDEO_HOME"]) / "chat_history"
    assert "+/retry" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_a_bad_clip_on_the_command_line(home: dict[str, str], folder: Path, random_model: Path) -> None:
    person = Person(home, folder, "notes.mp4", "-m", str(random_model))
    shown = CONTROL.sub("", person.program.read())
    assert "error: notes.mp4: is text, not a video" in shown
    assert "Traceback" not in shown
    person.program.close()
    assert person.program.exitstatus == 3
