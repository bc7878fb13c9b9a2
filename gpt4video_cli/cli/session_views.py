"""Kept conversations as text on stdout: a table of them, and one with its turns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gpt4video_cli.cli.render import print_json
from gpt4video_cli.cli.table import print_table
from gpt4video_cli.cli.terminal import clean, clean_line, say
from gpt4video_cli.session import Session, Turn
from gpt4video_cli.session_store import StoredSession


def print_list(stored: Sequence[StoredSession], *, json: bool, quiet: bool = False) -> None:
    """The table, or with ``json`` one object. Sessions that cannot be read are in both, with the reason."""
    if json:
        print_json({"sessions": [_as_dict(entry) for entry in stored]})
        return
    if not stored:
        if not quiet:
            say("no conversations")
        return
    print_table(("ID", "AGE", "TURNS", "CLIPS", "TITLE"), [*map(_row, stored)])


def print_turns(session: Session, session_id: str) -> None:
    """A whole conversation, without control sequences."""
    times = [
        f"begun {session.created}" if session.created else "",
        f"changed {session.changed}" if session.changed else "",
    ]
    print(", ".join([session_id, *filter(None, times)]))
    for turn in session.turns:
        print()
        for clip in turn.clips:
            print(clean_line(f"[clip {clip.number}] {clip.receipt.line()}"))
        print(_indented("> ", turn.text))
        print(clean(turn.answer).strip() or "(no text)")
        for prompt in turn.prompts:
            print(clean_line(f'[clip asked for] "{prompt}"'))
        for film in turn.films:
            print(clean_line(f'[filmed] {film.path}: "{film.prompt}", seed {film.seed}'))
        print(clean_line(f"[{_about(turn)}]"), flush=True)


def _indented(mark: str, text: str) -> str:
    return "\n".join(mark + line for line in clean(text).strip().split("\n"))


def _about(turn: Turn) -> str:
    options = turn.options
    return f"{turn.model}, seed {options.seed}, temperature {options.temperature:g}, ended by {turn.finish_reason}"


def _as_dict(entry: StoredSession) -> dict[str, Any]:
    session = entry.session
    if session is None:
        return {"id": entry.id, "problem": entry.problem}
    return {
        "id": entry.id,
        "created": session.created or None,
        "changed": session.changed or None,
        "turns": len(session.turns),
        "clips": len(session.clips),
        "films": sum(len(turn.films) for turn in session.turns),
        "models": sorted({turn.model for turn in session.turns}),
        "title": session.title,
    }


def _row(entry: StoredSession) -> tuple[str, str, str, str, str]:
    session = entry.session
    if session is None:
        return entry.id, "?", "?", "?", f"cannot be read: {clean_line(entry.problem)}"
    counts = str(len(session.turns)), str(len(session.clips))
    return entry.id, age(session.changed), *counts, clean_line(session.title) or "(empty)"


def age(changed: str) -> str:
    """How long ago that was, for a person; ``?`` where nobody knows."""
    if not changed:
        return "?"
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
