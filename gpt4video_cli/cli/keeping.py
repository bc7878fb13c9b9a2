"""A conversation at the command line is kept after every answer, and found again with ``--resume`` and ``--last``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.cli.folders import sessions_folder
from gpt4video_cli.cli.terminal import say
from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.session import FilmedClip, Session
from gpt4video_cli.session_clips import content_of, find_moved
from gpt4video_cli.session_store import Kept, SessionStore
from gpt4video_cli.used_model import place_of

if TYPE_CHECKING:
    from gpt4video_cli.video.reader import FrameReader


class Keeper:
    """Keeps one conversation, or none with ``save`` off. What goes wrong is a note: an answer is worth more."""

    def __init__(self, *, save: bool = True, quiet: bool = False) -> None:
        self.save = save
        self._quiet = quiet
        self._store = SessionStore(sessions_folder())
        self._kept: Kept | None = None
        self._written = ""

    def begin(self, session: Session, kept: Kept | None = None) -> None:
        """From now on ``session`` is meant, which is as it is in the store (``kept``) or in a file of the person's."""
        self._kept = kept
        self._written = _content(session)

    def keep(self, session: Session) -> None:
        """Write ``session`` if there is anything new in it."""
        content = _content(session)
        if not self.save or content == self._written or (self._kept is None and not session.turns):
            return
        try:
            kept = self._store.keep(session, self._kept)
        except Gpt4VideoError as error:
            say(f"note: the conversation is not kept: {error.line()}")
            return
        if self._kept is not None and kept.id != self._kept.id and not self._quiet:
            say(f"note: another program went on with this conversation; this one is kept as {kept.id}")
        self._kept, self._written = kept, content

    def resume(self, wanted: str | None, clips: Sequence[str]) -> tuple[Session, list[str]]:
        """The conversation ``wanted`` (None: the last one), and those of ``clips`` that are new to it.

        A clip of the conversation that was moved is found among ``clips``; one that stays lost is a note.
        """
        session_id = self._store.last() if wanted is None else self._store.find(wanted)
        session, kept = self._store.load(session_id)
        self.begin(session, kept)
        new, lost_ones = find_moved(session, clips)
        for lost in () if self._quiet else lost_ones:
            say(f"note: {lost.line()}; put it back, or name its new place: gpt4video chat --resume {session_id} PATH")
        return session, new


def write_page(target: Path | None, session: Session, reader: FrameReader, *, quiet: bool) -> None:
    """What ``chat --html`` asks for, when the conversation is over."""
    if target is None:
        return
    if not session.turns:
        say(f"note: {target} is not written: nothing was said")
        return
    from gpt4video_cli.cli.session_export import export

    export(session, target, reader)
    if not quiet:
        say(f"page written: {target}")


def model_to_resume(session: Session) -> str | None:
    """What to open to go on with the model of the last answer; None where there was none."""
    if not session.turns:
        return None
    last = session.turns[-1]
    return last.model if last.used is None else place_of(last.model, last.used.folder)


def filmed_clips(films: Sequence[dict[str, Any]]) -> tuple[FilmedClip, ...]:
    """What a session notes of ``films`` (``gallery.delivery.film_as_dict``); clips that are gone again are left out."""
    noted = []
    for film in films:
        path = os.path.abspath(film["path"])
        content = content_of(path)
        if content is not None:
            side_car = film["side_car"] and os.path.abspath(film["side_car"])
            noted.append(FilmedClip(path, content, film["prompt"], film["seed"], side_car))
    return tuple(noted)


def _content(session: Session) -> str:
    return hashlib.sha256(session.as_bytes()).hexdigest()
