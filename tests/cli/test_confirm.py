"""The question before something that is large or cannot be undone."""

from __future__ import annotations

import io

import pytest

from gpt4video_cli.cli.confirm import confirm
from gpt4video_cli.errors import CancelledError, ExitCode, UsageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ask(monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO, stderr: io.StringIO) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr("sys.stderr", stderr)
    confirm("Remove it?", refused="not removed", yes="--yes removes it")


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " yes \n", "y"])
def test_yes(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    shown = Terminal()
    ask(monkeypatch, Terminal(answer), shown)
    assert shown.getvalue() == "Remove it? [y/N] "


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yess\n", "ja\n", "\x1b[Ay\n"])
def test_anything_else_means_no(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    with pytest.raises(CancelledError) as caught:
        ask(monkeypatch, Terminal(answer), Terminal())
    assert caught.value.line() == "not removed"


@pytest.mark.parametrize("where", ["stdin", "stderr"])
def test_where_nobody_can_be_asked_the_option_is_named(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    kinds = {"stdin": Terminal("y\n"), "stderr": Terminal()} | {where: io.StringIO("y\n")}
    with pytest.raises(UsageError) as caught:
        ask(monkeypatch, kinds["stdin"], kinds["stderr"])
    assert caught.value.line() == "not removed: nobody can be asked here; --yes removes it"
    assert caught.value.exit_code == ExitCode.USAGE
    assert "?" not in kinds["stderr"].getvalue()
