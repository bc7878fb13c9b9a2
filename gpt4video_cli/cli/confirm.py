"""The question before something that is large or cannot be undone."""

from __future__ import annotations

import sys

from gpt4video_cli.errors import CancelledError, UsageError


def confirm(question: str, *, refused: str, yes: str) -> None:
    """Ask ``question`` on the terminal and return if the answer is yes; anything else means no.

    Raises ``CancelledError(refused)`` after a no, and ``UsageError`` with the hint ``yes`` where stdin or stderr is no
    terminal: what only a person may decide does not happen in a script that did not ask for it.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{refused}: nobody can be asked here", hint=yes)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CancelledError(refused)
