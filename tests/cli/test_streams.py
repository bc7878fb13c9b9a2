"""Every command puts answers on stdout and all else on stderr, and ends with the exit code that says what happened.

A command that is new must be added to ``CASES``: a test compares them with the program.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.folders import sessions_folder
from gpt4video_cli.cli.help_pages import every_command
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.session import Session
from gpt4video_cli.session_store import SessionStore

LEAVES = [" ".join(words[1:]) for words, command, _ in every_command() if not hasattr(command, "list_commands")]
ONE_OBJECT = r"\{.*\}\n"
PATH = r"\S+\n"
NOTE = r"note: .*|not screened: .*"


@dataclass(frozen=True)
class Case:
    """``words``: what follows the command; names between braces are filled in. ``out``: all of stdout, ``err``: each
    line of stderr, as regular expressions. ``before``: commands that make something to work with.
    """

    words: str
    out: str
    err: str = r"(?!)"
    code: int = ExitCode.DONE
    before: tuple[str, ...] = ()
    slow: bool = False


ASK = "chat {clip} -p hello -m {model} --max-tokens 3 --no-generate -q"
CLIP = "probe {clip}"
"""Puts the clip into the folder."""
CASES: dict[str, list[Case]] = {
    "chat": [
        Case("{clip} -p hello -m {model} --max-tokens 3 --no-generate", r"[^\n]+\n", NOTE),
        Case("-p hello -m {model} --max-tokens 3 --no-generate -q --json", ONE_OBJECT),
        Case("-p hello -m {model} --explain", r".*GB.*\n"),
        Case("gone.mp4 -p hello", "", r"error: gone\.mp4: no such file.*", ExitCode.INPUT),
        Case("--resume -p hello", "", "error: --resume needs an id where nobody can be asked.*", ExitCode.USAGE),
    ],
    "generate": [
        Case("dot --raw -g {film} --steps 1 -o a.mp4", r"a\.mp4\n", r"note: .*|.*not screened.*", slow=True),
        Case("dot --raw -g nobody", "", r"error: .*nobody.*", ExitCode.USAGE),
    ],
    "batch": [
        Case("{clip} -p hello -m {model} --dry-run", r"would run: 1\n.*"),
        Case("{clip} gone.mp4 -p hello -m {model} --max-tokens 3 -q", ONE_OBJECT, r"error: .*gone\.mp4.*", 6),
        Case("{clip} -p hello -m {model} --workers 0", "", "error: --workers is 0.*", ExitCode.USAGE),
    ],
    "probe": [
        Case("{clip}", r"file .*container .*duration .*"),
        Case("gone.mp4", "", "error: gone.mp4.*", ExitCode.INPUT),
    ],
    "frames": [
        Case("{clip} --frames 2", r"[^\n]*2 frames of 2\.00 s[^\n]*\n"),
        Case("{clip} -o sheet.png", r"sheet\.png\n"),
        Case("{clip} -o sheet.doc", "", "error: .*", ExitCode.USAGE),
    ],
    "sessions list": [Case("", r"ID .*\n.*What is seen\?\n"), Case("--limit 0", "", "error: .*", ExitCode.USAGE)],
    "sessions search": [Case("SEEN", r"ID .*"), Case("nothing like it", "", "no conversations", ExitCode.FAILED)],
    "sessions show": [Case("{id}", r".*> What is seen\?\nyes\n.*"), Case("zzz", "", "error: .*", ExitCode.USAGE)],
    "sessions resume": [Case("{id} -m {model}", "", "error: the prompt is empty.*", ExitCode.USAGE)],
    "sessions export": [Case("{id} --md a.md --json a.json", r"a\.md\na\.json\n"), Case("{id}", "", "error: .*", 2)],
    "sessions rm": [
        Case("{id} --yes", ""),
        Case("{id}", "", "error: not removed: nobody.*|.*What is seen.", ExitCode.USAGE),
    ],
    "replay": [
        Case(
            "{last} --check",
            r"turn 1: the same\n",
            r"all 1 turns are the same|note: .*",
            before=(ASK,),
        ),
        Case("session.json", "", "error: .*", ExitCode.USAGE),
    ],
    "train": [
        Case("--stage 2 --data {dialogues} --model {model} --output run --dry-run", r".+", NOTE, slow=True),
        Case("--stage 3 --data {dialogues} --output run", "", "error: .*", ExitCode.USAGE),
    ],
    "models list": [Case("", r"NAME .*\nbundle .*"), Case("--json", ONE_OBJECT)],
    "models show": [Case("bundle", r".*bundle.*"), Case("nobody", "", "error: .*nobody.*", ExitCode.USAGE)],
    "models verify": [Case("toxic-bert", "", "error: .*", ExitCode.USAGE)],
    "models path": [Case("bundle", PATH), Case("toxic-bert", "", "error: .*", ExitCode.WEIGHTS)],
    "models rm": [Case("bundle --yes", "", "error: .*", ExitCode.USAGE)],
    "models pull": [Case("toxic-bert --offline", "", "error: .*", ExitCode.WEIGHTS)],
    "models import": [Case("{clip} --format hf-llama -o new", "", "error: .*", ExitCode.WEIGHTS)],
    "models export": [
        Case("{model} --gguf f16 -o a.gguf", r"a\.gguf\n"),
        Case("{model} --gguf f17", "", "error: .*f17.*", ExitCode.USAGE),
    ],
    "models merge": [Case("{model} -o merged", "", "error: .*", ExitCode.WEIGHTS)],
    "data check": [Case("{dialogues}", r"1 dialogues .*nothing is wrong\n"), Case("gone", "", "error: .*", 3)],
    "data labels": [Case("{dialogues} --stage 2 -m {model}", r".*\[\[.*\]\].*\n"), Case("gone --stage 2", "", ".*", 3)],
    "data precompute": [
        Case("{watched} -m {model} --features kept", r"1 computed, 0 found, 0 failed\n", before=(CLIP,)),
        Case("{dialogues} -m {model}", "", "error: .*no clips", ExitCode.INPUT),
    ],
    "data convert": [
        Case("{source} --format video-chatgpt -o new.jsonl", r"new\.jsonl\n", r"1 dialogues, 0 records left out"),
        Case("{source} --format nothing -o new.jsonl", "", "error: no format.*", ExitCode.USAGE),
    ],
    "data safety-set": [Case("gone.jsonl -o new.jsonl", "", r"error: gone\.jsonl.*", ExitCode.INPUT)],
    "cache ls": [Case("", "", "0 clips, .*"), Case("--json", ONE_OBJECT)],
    "cache prune": [Case("", "", "dropped 0 clips.*"), Case("--json", ONE_OBJECT)],
    "cache clear": [Case("--yes", "", "dropped 0 clips.*"), Case("", "", "error: not cleared.*", ExitCode.USAGE)],
    "safety check": [Case("hello", "text 1: allowed.*\n"), Case("gone.mp4", "", "error: gone.*", ExitCode.INPUT)],
    "eval safety": [
        Case("--gate guards --data {queries}", r".*accuracy.*"),
        Case("--gate nobody", "", "error: .*", ExitCode.USAGE),
    ],
    "config show": [Case("chat", r".*\[chat\].*", NOTE)],
    "config path": [Case("", PATH)],
    "config init": [Case("", PATH), Case("", "", "error: .* exists.*", ExitCode.USAGE, before=("config init",))],
    "templates list": [Case("", r".*one.*", before=("templates new one hello",))],
    "templates show": [Case("one", "hello\n", before=("templates new one hello",)), Case("two", "", "error: .*", 2)],
    "templates new": [Case("one hello", PATH)],
    "templates rm": [Case("one --yes", "", before=("templates new one hello",))],
    "doctor": [Case("--quick", r"gpt4video .*packages.*engines.*guards.*", code=0), Case("--quick --json", ONE_OBJECT)],
}


def test_every_command_is_here() -> None:
    assert sorted(CASES) == sorted(LEAVES)


@pytest.fixture
def names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[str], list[str]]:
    """Fills in a case's words; makes the files that they name, in a folder of its own where everything happens."""
    from tests.sessions.test_session_store import turn

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    store = SessionStore(sessions_folder())
    made: dict[str, Any] = {"id": store.keep(Session([turn("What is seen?")]), None).id}
    dialogue: dict[str, Any] = {
        "schema": 1,
        "id": "a",
        "source": "own",
        "clips": [],
        "turns": [{"user": "hi", "assistant": "a dog"}],
    }
    watched = {**dialogue, "clips": [{"path": "clip.mp4"}], "turns": [{**dialogue["turns"][0], "clips": [0]}]}
    pair = {"video_id": "v1", "q": "What is it?", "a": "A dog."}
    query = {"task": "generation", "query": "a red circle", "clip": None, "label": "benign", "category": None}
    for name, content in {
        "dialogues": json.dumps(dialogue),
        "watched": json.dumps(watched),
        "source": json.dumps([pair]),
        "queries": json.dumps(query),
    }.items():
        made[name] = f"{name}.json"
        Path(f"{name}.json").write_text(content + "\n")

    def fill(words: str) -> list[str]:
        for name, fixture in {"model": "random_model", "film": "film_model", "clip": "clip"}.items():
            if f"{{{name}}}" in words:  # not before: some are expensive to make
                made[name] = request.getfixturevalue(fixture)
        if "{clip}" in words:
            shutil.copy(made["clip"], "clip.mp4")
            made["clip"] = "clip.mp4"
        made["last"] = store.last() if store.ids() else ""
        return [word.format(**made) for word in words.split()]

    return fill


@pytest.mark.parametrize(
    ("command", "case"),
    [
        pytest.param(command, case, id=f"{command} {case.words}", marks=[pytest.mark.slow] if case.slow else [])
        for command, cases in CASES.items()
        for case in cases
    ],
)
def test_answers_to_stdout_and_all_else_to_stderr(
    command: str, case: Case, names: Callable[[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in case.before:
        assert run(names(words)) == 0
    capsys.readouterr()
    code = run([*command.split(), *names(case.words)])
    out, err = capsys.readouterr()
    assert code == case.code, err
    assert re.fullmatch(case.out, out, re.DOTALL)
    assert [line for line in err.splitlines() if not re.fullmatch(case.err, line)] == []
    assert bool(err) or code in (ExitCode.DONE, ExitCode.REFUSED)
    assert "\x1b" not in out + err


@pytest.mark.parametrize("command", LEAVES)
def test_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--no-such-option"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: no such option: --no-such-option.* \(see: gpt4video {command} --help\)\n", err)


@pytest.mark.parametrize(
    "command",
    [
        " ".join(words[1:])
        for words, command, _ in every_command()
        if any(param.required for param in command.params) and not hasattr(command, "list_commands")
    ],
)
def test_what_is_missing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.split()) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: missing ") and err.count("\n") == 1
