"""A person's whole path: start, ask, stop, add a clip, generate, undo, save, leave, resume; and the same in pipes."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.session import Session
from tests.cli.test_repl import CONTROL, Person

PROMPT = r"> "


@pytest.mark.parametrize(
    ("columns", "plain"), [(40, True), pytest.param(200, False, marks=pytest.mark.slow)], ids=["40", "200"]
)
def test_at_a_terminal(
    columns: int,
    plain: bool,
    environment: dict[str, str],
    tmp_path: Path,
    clip: Path,
    random_model: Path,
    film_model: Path,
) -> None:
    shutil.copy(clip, tmp_path / "red square.mp4")
    home = {**environment, "GPT4VIDEO_HOME": str(tmp_path / "home")}
    models = ["-m", str(random_model), "-g", str(film_model)]
    person = Person(home, tmp_path, *models, "--max-tokens", "1500", columns=columns)
    try:
        person.waits_for_prompt()
        person.types("/help")
        listed = person.sees("Ctrl-D leaves")
        assert max(map(len, listed.splitlines())) <= columns
        person.waits_for_prompt()

        person.types("Talk for long, please")
        person.sees(r"[\s\S]{300}")  # the answer has begun
        person.program.sendcontrol("c")
        person.sees(r"\(stopped\)")
        person.waits_for_prompt()
        person.program.send("half a message")
        person.program.sendcontrol("c")  # clears the line, and stays
        person.waits_for_prompt()

        person.types("/set max-tokens 8")
        person.sees("max-tokens = 8")
        person.program.send("/vid\t")  # completion, of the command and of the path
        person.sees("eo")
        person.program.send(" red\t")
        person.sees(r"square\.mp4")
        person.program.send("\r")
        person.sees(r"queued for the next")
        person.waits_for_prompt("clip")
        person.types("What is seen?")
        person.sees(r"cut\s+at\s+8\s+tokens")
        person.waits_for_prompt()

        person.types("/set film-steps 1")
        person.sees("film-steps = 1")
        person.types("/generate a red dot")
        person.sees(r"clip\s+written:\s+a-red-dot-0\.mp4")
        person.waits_for_prompt("clip")
        person.types("/undo")
        person.sees(r"took\s+back")
        person.sees("What is seen")  # the message is back on the line
        person.program.sendcontrol("c")
        person.types("/save talk.json")
        person.sees(r"saved\s+1\s+turn\s+to\s+talk\.json")
        person.waits_for_prompt("clip")
        person.program.sendcontrol("d")
        assert person.has_left() == 0
    finally:
        person.program.close(force=True)
    assert [turn.text for turn in Session.load(tmp_path / "talk.json").turns] == ["Talk for long, please"]
    assert (tmp_path / "a-red-dot-0.mp4").exists()

    back = Person(home, tmp_path, "--resume", *(["--plain"] if plain else []), *models, columns=columns)
    try:
        before = back.sees(r"which one\? \[1\]:")
        assert max(map(len, before.splitlines())) <= columns
        back.types("99")
        back.sees("error: ")
        back.sees(r"which one\? \[1\]:")
        back.types("1")
        seen = back.sees(r"you: Talk for long, please")
        if plain:
            seen += back.sees(PROMPT)
            back.types("/set max-tokens 3")
            seen += back.sees("max-tokens = 3") + back.sees(PROMPT)
            back.types("And then?")
            seen += back.sees("cut at 3 tokens")
            raw = before + back.program.before + back.program.after
            assert not CONTROL.search(raw.replace("\r\n", "\n")), "nothing is drawn, coloured or rewritten"
            assert "loading random" in seen
        back.waits_for_prompt() if not plain else back.sees(PROMPT)
        back.program.sendcontrol("d")
        assert back.has_left() == 0
    finally:
        back.program.close(force=True)


def test_in_pipes(
    tmp_path: Path,
    clip: Path,
    random_model: Path,
    film_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a shell script does instead: each step a command, the question on stdin, the answer on stdout."""
    monkeypatch.chdir(tmp_path)

    def piped(words: str, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        options = ["-m", str(random_model), "-q", "--no-generate", "--max-tokens", "3"] if "chat" in words else []
        assert run([*words.split(), *options]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    shutil.copy(clip, "red.mp4")
    first = piped("chat red.mp4", "What is seen?\n")
    assert first.count("\n") == 1
    assert piped("chat --last", "And now?\n")
    (listed,) = json.loads(piped("sessions list --json"))["sessions"]
    assert (listed["turns"], listed["clips"], listed["title"]) == (2, 1, "What is seen?")
    assert piped(f"sessions export {listed['id']} --json talk.json -q") == "talk.json\n"
    assert Session.load("talk.json").turns[0].answer.strip() == first.strip()
