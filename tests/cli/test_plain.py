"""``--plain`` and narrow terminals: lines that stay, tables that fit."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.plain_lines import PlainLines, ask_plainly
from gpt4video_cli.cli.progress import ProgressBar
from gpt4video_cli.cli.render import AnswerStream
from gpt4video_cli.cli.table import print_table
from gpt4video_cli.cli.terminal import PLAIN, Status, may_draw, print_lines, say, wants_colour
from gpt4video_cli.cli.training_view import _fitting
from gpt4video_cli.events import GenerationProgress

HEADINGS = ("ID", "AGE", "TITLE")
ROWS = [("a-first", "3 min", "What moves from left to right here?"), ("b", "5 d", "語" * 12), ("c", "", "")]


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """stdin, stdout and stderr are one terminal, so many columns wide."""

    def make(columns: int = 80, *, plain: bool = False, typed: str = "") -> Terminal:
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        monkeypatch.setattr(sys, "stderr", made)
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        for room in ("terminal", "table", "progress"):
            monkeypatch.setattr(f"gpt4video_cli.cli.{room}.columns", lambda stream: columns)
        monkeypatch.setenv(PLAIN, "1" if plain else "0")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return made

    return make


def test_a_wide_terminal_gets_columns(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(200)
    print_table(HEADINGS, ROWS)
    assert shown.lines() == [
        "ID       AGE    TITLE",
        "a-first  3 min  What moves from left to right here?",
        "b        5 d    " + "語" * 12,
        "c",
    ]


def test_the_last_column_is_cut_by_what_it_takes_on_the_screen(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(38)
    print_table(HEADINGS, ROWS)
    assert shown.lines()[1:3] == ["a-first  3 min  What moves from left", "b        5 d    " + "語" * 10]


def test_a_narrow_terminal_gets_lines(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(30)
    print_table(HEADINGS, ROWS)
    assert shown.lines()[:4] == ["a-first", "  age 3 min", "  What moves from left to", "    right here?"]
    assert shown.lines()[-1] == "c"


def test_plain_names_every_cell(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(30, plain=True)
    print_table(HEADINGS, ROWS[:1])
    assert shown.lines() == ["id a-first, age 3 min, title What moves from left to right here?"]


def test_a_pipe_gets_columns_whoever_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PLAIN, "1")
    monkeypatch.setattr("gpt4video_cli.cli.table.columns", lambda stream: 10)
    print_table(HEADINGS, [("a", "b\x1b[2J", "c" * 90)])
    assert capsys.readouterr().out.splitlines() == ["ID  AGE  TITLE", "a   b    " + "c" * 90]


@pytest.mark.parametrize(("columns", "shown"), [(20, 2), (40, 3), (80, 6), (92, 8), (200, 8)])
def test_the_table_of_a_training_run_fits(columns: int, shown: int) -> None:
    assert _fitting(columns) == shown


def test_long_lines_go_on_between_words(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(20)
    print_lines(["  one two three four five"])
    assert shown.lines() == ["  one two three four", "    five"]


def test_plain_is_neither_drawn_nor_coloured(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(20, plain=True)
    assert not may_draw(sys.stderr) and not wants_colour(sys.stderr)
    with Status("loading the model ...") as status:
        status.clear()
        status.show()
        say("a line that is longer than the terminal")
    bar = ProgressBar(quiet=False)
    for step in range(5):
        bar.show(GenerationProgress(step, 5, 3.0))
    bar.show(GenerationProgress(0, 1, stage="decoding"))
    assert shown.lines() == [
        "loading the model ...",
        "a line that is longer than the terminal",
        "filming: step 0 of 5, 3 s left",
        "decoding ...",
    ]


def test_quiet_says_nothing_plainly(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(plain=True)
    with Status("loading ...", quiet=True):
        ProgressBar(quiet=True).show(GenerationProgress(1, 5, 3.0))
    assert shown.getvalue() == ""


def test_a_plain_answer_comes_in_sentences(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(10, plain=True)
    answer = AnswerStream(sys.stdout)
    seen = []
    for piece in ("A red", " square mov", "es. It is", " 3.5 wide! Then\nit", " stops"):
        answer.write(piece)
        seen.append(shown.getvalue())
    answer.end_line()
    assert seen == ["", "", "A red square moves. ", "A red square moves. It is 3.5 wide! Then\n", seen[3]]
    assert shown.getvalue() == "A red square moves. It is 3.5 wide! Then\nit stops\n"


def test_plain_typing(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(plain=True, typed="one\\\ntwo\n\nlast")
    lines = PlainLines()
    assert lines.read(queued=2, default="before") == "one\ntwo"
    assert shown.getvalue() == "it was: before\n2 clips> ... "
    assert ask_plainly("prompt: ", default="a dog") == "a dog"
    assert lines.read() == "last"
    with pytest.raises(EOFError):
        lines.read()


@pytest.mark.parametrize("words", [["models", "list"], ["doctor", "--quick"], ["cache", "ls"], ["sessions", "list"]])
@pytest.mark.parametrize("columns", [40, 200])
def test_lists_fit(words: list[str], columns: int, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(columns)
    assert run(words) in (0, 1)
    assert [line for line in shown.lines() if len(line) >= columns and len(line.split()) > 1 and "/" not in line] == []
    plain = terminal(columns, plain=True)
    assert run([*words, "--plain"]) in (0, 1)
    assert "\x1b" not in plain.getvalue()
