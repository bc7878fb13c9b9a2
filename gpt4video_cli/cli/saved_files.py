"""``/save`` and ``/load``: a conversation in a file of the person's own."""

from __future__ import annotations

from pathlib import Path

from gpt4video_cli.cli.terminal import say
from gpt4video_cli.cli.typed_paths import local_path, split_paths
from gpt4video_cli.errors import UsageError
from gpt4video_cli.session import FORMAT, Session
from gpt4video_cli.session_clips import lost_clips


def save_to(session: Session, text: str) -> None:
    """Write ``session`` to the path that was typed after /save."""
    path = _one_path(text, "/save")
    refuse_to_replace_other_files(path)
    session.save(path)
    say(f"saved {_count(len(session.turns), 'turn')} to {path}")


def load_from(text: str) -> Session:
    """The conversation at the path that was typed after /load, and where it stands."""
    path = _one_path(text, "/load")
    session = Session.load(path)
    say(f"loaded {_count(len(session.turns), 'turn')} with {_count(len(session.clips), 'clip')} from {path}")
    for lost in lost_clips(session.clips):
        say(f"note: {lost.line()}")
    say_last(session)
    return session


def say_last(session: Session) -> None:
    """The last question and its answer."""
    if session.turns:
        say(f"you: {session.turns[-1].text}")
        say(session.turns[-1].answer or "(no text)")


def _one_path(text: str, command: str) -> str:
    paths, options = split_paths(text)
    if options or not paths:
        raise UsageError(f"{command} needs a path")
    if len(paths) > 1:  # a new name with blanks
        return local_path(text)
    return paths[0]


def refuse_to_replace_other_files(path: str) -> None:
    """Saving over a saved conversation is what a person means; over anything else (the clip!) it is a slip."""
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{path}: is a folder, not a file")
    if not target.exists():
        return
    with target.open("rb") as file:
        if FORMAT.encode() not in file.read(200):
            raise UsageError(f"{path}: exists and is no saved conversation", hint="choose another name")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
