"""README and CONTRIBUTING say only what is so: commands, options, exit codes, make targets, paths, links."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.help_pages import every_command
from gpt4video_cli.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / name
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/batch.md",
        "docs/configuration.md",
        "docs/training.md",
    ]
]
CODES = {code.value for code in ExitCode}


def code_lines(document: Path) -> list[str]:
    """Lines of indented and fenced code blocks."""
    fenced, lines = False, []
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def commands(document: Path) -> list[list[str]]:
    """Every ``gpt4video ...`` in the code blocks and between single backticks, as words."""
    found = []
    for line in code_lines(document) + re.findall(r"`(gpt4video [^`]+)`", document.read_text()):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*list(lexer), ";"]:
            if set(word) <= set("|&;<>()"):
                if "gpt4video" in words:
                    found.append(words[words.index("gpt4video") + 1 :])
                words = []
            else:
                words.append(word.removeprefix(".venv/bin/"))
    return found


@cache
def command_line() -> Any:
    """The whole command line as typer builds it."""
    import typer.main

    from gpt4video_cli.cli.app import app

    return typer.main.get_command(app)


def parse(words: list[str]) -> None:
    """Parse as the program would, without running anything; raises for an unknown command or option."""
    group = command_line()
    make_context = type(group.make_context("gpt4video", [], resilient_parsing=True))
    context = make_context(group, info_name="gpt4video")
    _, rest, _ = group.make_parser(context).parse_args(list(words))
    if not rest:
        assert words, "a bare gpt4video is not an example"
        return
    while True:
        name, command, rest = group.resolve_command(context, rest)
        context = make_context(command, info_name=name, parent=context)
        if not hasattr(command, "get_command"):
            command.make_parser(context).parse_args(command.with_values(rest))
            return
        _, rest, _ = command.make_parser(context).parse_args(rest)
        assert rest, "a bare group of commands is not an example"
        group = command


def all_commands() -> list[list[str]]:
    return [words for document in DOCUMENTS for words in commands(document)]


def test_examples_are_found() -> None:
    assert len(all_commands()) >= 12
    assert ["chat", "clip.mp4", "-p", "How many objects are there?", "--json"] in all_commands()


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_command_exists(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("words", [["film"], ["chat", "clip.mp4", "--no-such-option"], ["--no-such-option"]])
def test_unknown_command_is_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such (option|command)"):
        parse(words)


def test_options_named_in_the_text_exist() -> None:
    """Options between backticks on their own, such as `--sampling keyframe`, belong to some command."""
    known = {name for _, command, _ in every_command() for parameter in command.params for name in parameter.opts}
    text = (ROOT / "README.md").read_text()
    named = {span.split()[0] for span in re.findall(r"`(--[^`]+)`", text)}
    assert named
    assert named <= known | {"--help"}


def test_slash_commands_are_all_there() -> None:
    from gpt4video_cli.cli.repl import COMMANDS

    named = set(re.findall(r"`(/[a-z]+)[^`]*`", (ROOT / "README.md").read_text()))
    assert named == set(COMMANDS)


def test_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(CODES)


def test_make_targets_exist() -> None:
    named = {word for d in DOCUMENTS for word in re.findall(r"^make ([a-z-]+)", "\n".join(code_lines(d)), re.MULTILINE)}
    named |= {word for d in DOCUMENTS for word in re.findall(r"`make\s([a-z-]+)`", d.read_text())}
    assert {"demo", "test", "test-slow"} <= named
    for target in sorted(named):
        command = ["make", "--dry-run", "VENV=/nonexistent/venv", target]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_paths_and_links_exist(document: Path) -> None:
    text = document.read_text()
    paths = re.findall(r"`((?:gpt4video_cli|kernels|model_cards|tests)/[\w./-]*)`", text)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    headings = {"#" + h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    missing = [p for p in paths + links if p not in headings and not (ROOT / p).exists()]
    assert missing == []


def test_modules_run_in_the_text_exist() -> None:
    names = {name for d in DOCUMENTS for name in re.findall(r"python -m (gpt4video_cli[\w.]*)", d.read_text())}
    assert "gpt4video_cli" in names
    for name in names:
        folder = ROOT / name.replace(".", "/")
        assert (folder / "__main__.py").is_file() or folder.with_suffix(".py").is_file(), name
