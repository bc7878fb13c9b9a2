"""Where conversations are kept: a folder with one session file for each.

FOLDER/20261122-091500-3fa9c1.json    an id is when the conversation was first kept (UTC) and six random digits
FOLDER/.lock                          held for the moment of a change

Any number of programs may go on with the same conversation. Each remembers what it read or wrote last; the one that
finds something else under the id when it comes to write takes a new id for what it has, so that neither loses a turn.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gpt4video_cli.errors import Gpt4VideoError, SessionFileError, UsageError
from gpt4video_cli.session import Session, read_session, write_session

LONGEST_WAIT = 10.0
"""Seconds to wait for another program that is writing; it takes milliseconds."""
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


@dataclass(frozen=True)
class Kept:
    """A conversation's id, and the SHA-256 of its file as this program read or wrote it last."""

    id: str
    sha256: str


@dataclass(frozen=True)
class StoredSession:
    """A session of the store; ``session`` None where its file cannot be read, for the reason in ``problem``."""

    id: str
    session: Session | None
    problem: str = ""


class SessionStore:
    """The conversations in ``folder``, which is made when the first one is kept. Ids never lead out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, session_id: str) -> Path:
        """The file of a session; it may not exist."""
        if not _ID.fullmatch(session_id):
            raise UsageError(f"{session_id!r} is no session's id")
        return self.folder / f"{session_id}.json"

    def ids(self) -> list[str]:
        """All ids; the conversation that was changed last comes first."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                name, ending = os.path.splitext(entry.name)
                if ending == ".json" and _ID.fullmatch(name):
                    with suppress(FileNotFoundError):  # removed a moment ago
                        found.append((entry.stat().st_mtime_ns, name))
        return [name for _, name in sorted(found, reverse=True)]

    def find(self, text: str) -> str:
        """The id that ``text`` begins, or whose random digits it begins; ``UsageError`` unless it is exactly one."""
        ids = self.ids()
        fitting = [name for name in ids if text and (name.startswith(text) or name[16:].startswith(text))]
        if text in ids or len(fitting) == 1:
            return text if text in ids else fitting[0]
        if fitting:
            shown = ", ".join(fitting[:3]) + (", ..." if len(fitting) > 3 else "")
            raise UsageError(f"{text!r} begins the ids of {len(fitting)} sessions: {shown}", hint="give more of it")
        near = difflib.get_close_matches(text, [*ids, *(name[16:] for name in ids)], n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "gpt4video sessions list shows them"
        raise UsageError(f"no session {text!r}", hint=hint)

    def last(self) -> str:
        """The conversation that was changed last; ``UsageError`` where there is none."""
        ids = self.ids()
        if not ids:
            raise UsageError("no conversation was kept yet", hint="gpt4video chat begins one")
        return ids[0]

    def load(self, session_id: str) -> tuple[Session, Kept]:
        """A conversation to go on with. Raises ``SessionFileError`` where it cannot be read."""
        path = self.path(session_id)
        content = read_session(path)
        return Session.parse(content, path), Kept(session_id, _sha256(content))

    def sessions(self) -> Iterator[StoredSession]:
        """All conversations, the one that was changed last first; those that cannot be read among them."""
        for session_id in self.ids():
            try:
                yield StoredSession(session_id, self.load(session_id)[0])
            except SessionFileError as error:
                yield StoredSession(session_id, None, str(error))

    def keep(self, session: Session, kept: Kept | None) -> Kept:
        """Write ``session`` whole; ``kept`` is what the last ``load`` or ``keep`` of it gave, None for a new one.

        The id is another one afterwards if ``kept`` was None, or if another program went on with that conversation.
        Raises ``Gpt4VideoError`` where it cannot be written.
        """
        content = session.as_bytes()
        with self._alone():
            session_id = self._new_id() if kept is None or self._is_another(kept) else kept.id
            write_session(self.path(session_id), content)
        return Kept(session_id, _sha256(content))

    def remove(self, session_id: str) -> None:
        """Remove a conversation; a program that is in the middle of it keeps it again after its next answer."""
        path = self.path(session_id)
        with self._alone():
            try:
                path.unlink()
            except FileNotFoundError:
                raise UsageError(f"no session {session_id!r}") from None
            except OSError as error:
                raise Gpt4VideoError(f"{path}: cannot be removed: {error.strerror or error}") from error

    def _is_another(self, kept: Kept) -> bool:
        """Whether another program wrote there since; a file that was removed is nobody's."""
        path = self.path(kept.id)
        return path.exists() and _sha256(read_session(path)) != kept.sha256

    def _new_id(self) -> str:
        while True:
            session_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
            if not self.path(session_id).exists():
                return session_id

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One program at a time changes the folder. The lock ends with the program that holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock", mode=0o600)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock.acquire(timeout=LONGEST_WAIT)
        except Timeout:
            raise Gpt4VideoError(f"{self.folder}: another program has been writing there for too long") from None
        except OSError as error:
            raise Gpt4VideoError(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
