"""Help pages come at once, cost nothing, go to stdout, and fit the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from gpt4video_cli import __version__
from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.command_table import COMMANDS, load_command
from gpt4video_cli.cli.help_pages import every_command

HEAVY = [
    *("torch", "transformers", "diffusers", "peft", "llama_cpp", "av", "numpy", "PIL", "rich", "prompt_toolkit"),
    "pydantic",  # of typer itself, see `option_panels`
]
PAGES = [list(words[1:]) for words, _, _ in every_command()]
MOST_SECONDS = 0.3
"""Of CPU time: 0.10 to 0.18 on 2 cores that have much else to do. Without it all modules and pydantic take 0.31."""


def test_pages_load_nothing_heavy(environment: dict[str, str]) -> None:
    """All of them, one after another, in one fresh process."""
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        f"codes = [run([*words, '--help']) for words in {PAGES!r}] + [run(['--version'])]\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(json.dumps([codes, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0] * (len(PAGES) + 1), []]
    assert done.stderr == ""
    assert done.stdout.count("Usage: gpt4video") == len(PAGES)


@pytest.mark.parametrize("name", ["chat", "models pull"])
def test_a_page_is_fast(name: str, environment: dict[str, str]) -> None:
    """The largest page, and one of a group; the best of a few, because a busy machine can only add time."""
    command = [sys.executable, "-m", "gpt4video_cli", *name.split(), "--help"]
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, capture_output=True, env=environment, check=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    print(f"{name} --help: {min(seconds):.3f} s of CPU")
    assert min(seconds) < MOST_SECONDS


def test_other_commands_are_not_imported(environment: dict[str, str]) -> None:
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        "run(['--help']), run(['probe', '--help'])\n"
        f"own = [f'gpt4video_cli.cli.{{name}}' for name in {list(COMMANDS)!r}]\n"
        "print(json.dumps([name for name in own if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["gpt4video_cli.cli.probe"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_page_begins_with(name: str) -> None:
    about = COMMANDS[name][1]
    assert about.endswith(".")
    assert load_command(name).help.startswith(about[:-1])


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_a_page_goes_to_stdout_and_explains_everything(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*words, "--help"]) == 0
    page, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, page.splitlines())) < 80
    monkeypatch.setenv("COLUMNS", "40")
    assert run([*words, "-h"]) == 0
    narrow = capsys.readouterr().out
    # A word that is longer than its place is not broken: it can be copied.
    assert [line for line in narrow.splitlines() if len(line) >= 40 and len(line.split()) > 1] == []
    assert "".join(narrow.split()) == "".join(page.split())  # nothing is lost


def test_every_option_is_explained() -> None:
    bare = [
        f"{' '.join(words)} {param.opts[0]}"
        for words, command, _ in every_command()
        for param in command.params
        if not getattr(param, "help", None)
    ]
    assert bare == []


def test_options_of_one_kind_stand_together(capsys: pytest.CaptureFixture[str]) -> None:
    run(["chat", "--help"])
    page = capsys.readouterr().out
    headings = [line for line in page.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[:2] == ["Arguments:", "Options:"]
    assert headings[-1] == "Output:"
    assert len(set(headings)) == len(headings) >= 8
    filming = page[page.index("Filming:") : page.index("Safety:")]
    assert all(option in filming for option in ("--yes", "--ask", "--no-generate", "--generator", "--output"))


def test_version(gpt4video) -> None:  # type: ignore[no-untyped-def]
    done = gpt4video("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gpt4video {__version__}\n", "")
