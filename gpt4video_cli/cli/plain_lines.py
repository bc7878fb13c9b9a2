"""The line a person types on with ``--plain``: the terminal's own editing, nothing drawn, nothing completed.

A screen reader reads what the terminal echoes; the cursor never moves over what was said before.
"""

from __future__ import annotations

import sys

from gpt4video_cli.cli.terminal import clean, say


class PlainLines:
    """Reads what the person types; stands in for ``LineEditor``."""

    def read(self, *, queued: int = 0, default: str = "") -> str:
        """The next message: a line, and the next one after a ``\\`` at its end.

        ``default`` cannot be put on the line, so it is said. Raises ``KeyboardInterrupt`` for Ctrl-C and ``EOFError``
        for Ctrl-D on an empty line.
        """
        if default:
            say(f"it was: {default}", style="0")
        lines = [_line(f"{queued} clip{'s' if queued > 1 else ''}> " if queued else "> ")]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(_line("... "))
        return clean("\n".join(lines))


def ask_plainly(question: str, *, default: str = "") -> str:
    """One line; Enter alone means ``default``."""
    if default:
        say(f"Enter alone keeps: {default}", style="0")
    return clean(_line(question)) or default


def _line(mark: str) -> str:
    stream = sys.stderr if sys.stderr.isatty() else sys.stdout
    stream.write(mark)
    stream.flush()
    try:
        text = sys.stdin.readline()
    except KeyboardInterrupt:
        stream.write("\n")
        raise
    except UnicodeDecodeError:
        say("note: what was typed is not text in UTF-8, and is left out")
        return ""
    if not text:
        stream.write("\n")
        raise EOFError
    return text.rstrip("\n")
