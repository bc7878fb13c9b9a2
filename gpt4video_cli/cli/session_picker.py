"""``--resume`` without an id: the last conversations are listed, and the person chooses one."""

from __future__ import annotations

import sys
from itertools import islice

from gpt4video_cli.cli.session_views import age
from gpt4video_cli.cli.terminal import cells, clean_line, columns, say, say_error
from gpt4video_cli.errors import CancelledError, UsageError
from gpt4video_cli.session_store import SessionStore, StoredSession

SHOWN = 9


def pick_session(store: SessionStore) -> str:
    """The id of the conversation that the person chooses, by its number or by what ``sessions show`` takes.

    Raises ``UsageError`` where there is nothing to choose or nobody to ask, ``CancelledError`` after Ctrl-C or Ctrl-D.
    """
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        hint = "gpt4video sessions list shows the ids; --last goes on with the last conversation"
        raise UsageError("--resume needs an id where nobody can be asked", hint=hint)
    shown = list(islice((stored for stored in store.sessions() if stored.session is not None), SHOWN))
    if not shown:
        raise UsageError("there is no conversation to go on with")
    for number, stored in enumerate(shown, start=1):
        say(_line(number, stored, columns(sys.stderr) - 1), style="0")
    if (more := len(store.ids()) - len(shown)) > 0:
        say(f"and {more} more; an id of gpt4video sessions list is understood too")
    from gpt4video_cli.cli.line_editor import ask_line

    while True:
        try:
            answer = ask_line("which one? [1]: ").strip() or "1"
        except (KeyboardInterrupt, EOFError):
            raise CancelledError("no conversation was chosen") from None
        if answer.isdecimal() and 1 <= int(answer) <= len(shown):
            return shown[int(answer) - 1].id
        try:
            return store.find(answer)
        except UsageError as error:
            say_error(error.line())


def _line(number: int, stored: StoredSession, width: int) -> str:
    """``2  5 min ago, 3 turns: What moves?``, cut to ``width`` columns."""
    assert stored.session is not None
    turns = len(stored.session.turns)
    title = clean_line(stored.session.title) or "(empty)"
    text = f"{number}  {age(stored.session.changed)} ago, {turns} turn{'' if turns == 1 else 's'}: {title}"
    while cells(text) > max(20, width):
        text = text[:-1]
    return text
