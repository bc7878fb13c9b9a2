"""Pastes and several lines on the line of a conversation, in a real pseudo-terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from gpt4video_cli.cli import line_editor
from gpt4video_cli.session import Session
from tests.cli.test_repl import Person

START, END = "\x1b[200~", "\x1b[201~"


LONG = "a long text " * 4000


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("one line\r", "one line"),
        (f"{START}first\r\n\tsecond\nthird{END} and more\r", "first\n\tsecond\nthird and more"),
        ("first\x1b\rsecond\\\rthird\r", "first\nsecond\nthird"),  # Alt-Enter; a backslash before Enter
        (f"{START}a bell\x07 and \x1b]52;c;eA==\x07a clipboard{END}\r", "a bell and a clipboard"),
        (f"{START}{LONG}{END}\r", LONG),
        (f"{START}ends in a backslash\\{END}\r\r", "ends in a backslash\n"),
    ],
)
def test_what_becomes_one_message(typed: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_editor, "create_output", lambda **_: DummyOutput())
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        editor = line_editor.LineEditor([("/video", "adds a clip")], path_commands=["/video"])
        pipe.send_text(typed)
        assert editor.read() == message
        pipe.send_text("\x1b[A\r")  # Up: it comes back whole
        assert editor.read() == message


def send_all(person: Person, text: str) -> None:
    """A terminal takes 4,096 bytes at a time."""
    while text:
        text = text[person.program.send(text[:1000]) :]


@pytest.mark.slow
def test_pastes(environment: dict[str, str], random_model: Path, clip: Path, tmp_path: Path) -> None:
    home: dict[str, Any] = {**environment, "GPT4VIDEO_HOME": str(tmp_path / "home")}
    person = Person(home, tmp_path, "-m", str(random_model), "--max-tokens", "4", "--context-length", "600", columns=60)
    person.waits_for_prompt()

    # A paste with line ends is one message, and is not sent before Enter.
    person.program.send(f"{START}first line\r\n\tsecond\x07 line\nthird{END} and more")
    person.program.send("\x1b\r")  # Alt-Enter
    person.types("the end")
    person.sees("cut at 4 tokens")
    person.waits_for_prompt()

    # A long text that begins like a path, all on one line: nothing but a message that is too long, which comes back.
    send_all(person, f"{START}/{'long ' * 4000}{END}\r")
    person.sees("error: the message needs")
    person.sees(r"\x1b\[\?2004h")  # it fills the screen: no prompt is seen
    person.program.sendcontrol("c")

    # A file that was dropped, as a terminal pastes it, and two that a file manager puts on lines of their own.
    person.waits_for_prompt()
    person.program.send(f"{START}'{clip}' {END}\r")
    person.sees("queued for the next message")
    person.waits_for_prompt("clip")
    uri = f"file://{clip}".replace(" ", "%20")
    person.program.send(f"{START}{uri}\r\n{uri}\r\n{END}\r")
    person.sees("queued for the next message[^!]*queued for the next message")
    person.waits_for_prompt("3 clips")
    person.types("/save talk.json")
    person.sees("saved 1 turn")
    person.program.sendcontrol("d")
    assert person.has_left() == 0

    session = Session.load(tmp_path / "talk.json")
    (turn,) = session.turns
    assert turn.text == "first line\n\tsecond line\nthird and more\nthe end"
    history = (tmp_path / "home" / "chat_history").read_text()
    assert "+first line\n+\tsecond" in history, "and it comes back as it was with Up"
