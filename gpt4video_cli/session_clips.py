"""Whether the clips of a conversation are still the files that it saw, and where those went that were moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpt4video_cli.errors import ClipError
from gpt4video_cli.session import Session, SessionClip
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.video.sniff import sniff
from gpt4video_cli.video.url import full_path


@dataclass(frozen=True)
class LostClip:
    """A clip that is not what it was. ``gone``: nothing to be read lies there; ``changed``: another content does."""

    clip: SessionClip
    state: Literal["gone", "changed"]

    def line(self) -> str:
        """One line for a person."""
        if self.state == "gone":
            return f"clip {self.clip.number} is no longer at {self.clip.path}"
        return f"clip {self.clip.number} is another file now: {self.clip.path}"

    def error(self, hint: str) -> ClipError:
        """For those who cannot go on without it."""
        reason = "is gone" if self.state == "gone" else "is not the file that this conversation saw"
        return ClipError(self.clip.path, f"{reason} (clip {self.clip.number})", hint=hint)


def lost_clips(clips: Sequence[SessionClip]) -> list[LostClip]:
    """Those of ``clips`` that are gone or changed; every other file was read whole (up to 1 GiB) to know it."""
    lost = []
    for clip in clips:
        found = content_of(clip.path)
        if found != clip.receipt.sha256:
            lost.append(LostClip(clip, "gone" if found is None else "changed"))
    return lost


def content_of(path: str) -> str | None:
    """The fingerprint of the file at ``path``; None where there is no file that can be read."""
    try:
        sniff(path)  # not a folder, not a pipe that never ends
        return fingerprint(path)
    except (ClipError, OSError):
        return None


def find_moved(session: Session, places: Sequence[str]) -> tuple[list[str], list[LostClip]]:
    """Give the clips of ``session`` that are gone or changed the paths among ``places`` that hold their content.

    Returns the rest of ``places``, in order: what is no clip of the conversation. And the clips that stay lost.
    """
    lost = lost_clips(session.clips)
    wanted = {entry.clip.receipt.sha256 for entry in lost}
    contents = {place: content_of(place) for place in places} if lost else {}
    new = {digest: full_path(place) for place, digest in contents.items() if digest in wanted}

    def moved(clip: SessionClip) -> SessionClip:
        return replace(clip, path=new[clip.receipt.sha256]) if clip.receipt.sha256 in new else clip

    if new:
        session.turns = [replace(turn, clips=tuple(map(moved, turn.clips))) for turn in session.turns]
    rest = [place for place in places if contents.get(place) not in new]
    return rest, [entry for entry in lost if entry.clip.receipt.sha256 not in new]
