"""A session becomes what a document shows: texts, small pictures of the clips, and clips that a page may carry.

A file is only looked into if it still is the one that the session names by its hash: a session from a stranger could
name any file of this machine, and a page that is handed on would take its content along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import ClipError
from gpt4video_cli.session import FilmedClip, Session, SessionClip, Turn
from gpt4video_cli.session_clips import LostClip, content_of, lost_clips
from gpt4video_cli.video.contact_sheet import time_label
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import local

if TYPE_CHECKING:
    import numpy as np

MOST_PICTURES = 8
"""Of one clip."""
PICTURE_SIDE = 160
"""Pixels of the shorter side."""
_QUALITY = 80
_ENDS = {"length": "cut at its longest", "context": "cut, the context was full", "cancelled": "stopped by the person"}

Clean = Callable[[str], str]


@dataclass(frozen=True)
class Picture:
    """A frame as a JPEG file; ``label`` is its time, empty for a still image. ``width`` and ``height`` in pixels."""

    jpeg: bytes
    label: str
    width: int
    height: int


@dataclass(frozen=True)
class ShownClip:
    """A clip of a message or of an answer.

    ``name`` of the file, ``about`` it on one line, ``pictures`` as seen by the model. ``playable``: its file and media
    type, where a browser may be able to play it. ``note``: why something is missing.
    """

    name: str
    about: str
    pictures: tuple[Picture, ...]
    playable: tuple[Path, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class ShownTurn:
    """A question with its clips, the answer, the clips that it asks for and those that were filmed."""

    text: str
    clips: tuple[ShownClip, ...]
    answer: str
    prompts: tuple[str, ...]
    films: tuple[ShownClip, ...]
    about: str


@dataclass(frozen=True)
class Transcript:
    """A whole conversation. ``created`` and ``changed``: ISO 8601, or empty."""

    title: str
    created: str
    changed: str
    turns: tuple[ShownTurn, ...]


def transcript(session: Session, reader: FrameReader, clean: Clean) -> Transcript:
    """All that a document shows. ``clean`` takes control sequences out of a text.

    What cannot be read any more is a note where its pictures would be; nothing here raises because of a clip.
    """
    lost = {entry.clip.number: entry for entry in lost_clips(session.clips)}
    turns = tuple(_turn(turn, lost, reader, clean) for turn in session.turns)
    return Transcript(clean(session.title) or "A conversation", session.created, session.changed, turns)


def _turn(turn: Turn, lost: dict[int, LostClip], reader: FrameReader, clean: Clean) -> ShownTurn:
    parts = [turn.model, f"seed {turn.options.seed}", f"temperature {turn.options.temperature:g}"]
    if turn.finish_reason in _ENDS:
        parts.append(_ENDS[turn.finish_reason])
    return ShownTurn(
        text=clean(turn.text).strip(),
        clips=tuple(_clip(clip, lost.get(clip.number), reader, clean) for clip in turn.clips),
        answer=clean(turn.answer).strip(),
        prompts=tuple(clean(prompt) for prompt in turn.prompts),
        films=tuple(_film(film, reader, clean) for film in turn.films),
        about=clean(", ".join(parts)),
    )


def _clip(clip: SessionClip, lost: LostClip | None, reader: FrameReader, clean: Clean) -> ShownClip:
    receipt = clip.receipt
    seen = "a still image" if receipt.still else f"{len(receipt.seen)} frames of {receipt.duration:.2f} s"
    about = f"clip {clip.number}: {seen}, {receipt.width}x{receipt.height}"
    name = clean(os.path.basename(clip.path))
    if lost is not None:
        what = "is no longer there" if lost.state == "gone" else "is another file now"
        return ShownClip(name, about, (), note=f"the file {what}")
    return _shown(name, about, clip.path, clip.plan, reader)


def _film(film: FilmedClip, reader: FrameReader, clean: Clean) -> ShownClip:
    name, about = clean(os.path.basename(film.path)), f"{clean(film.prompt)} (seed {film.seed})"
    if content_of(film.path) != film.sha256:
        return ShownClip(name, about, (), note="the file is no longer there, or is another one now")
    return _shown(name, about, film.path, SamplingPlan(frames=4), reader)


def _shown(name: str, about: str, path: str, plan: SamplingPlan, reader: FrameReader) -> ShownClip:
    try:
        seen = reader.read(path, plan, min_side=PICTURE_SIDE)
    except ClipError as error:
        return ShownClip(name, about, (), note=f"cannot be read: {error.reason}")
    step = -(-len(seen.frames) // MOST_PICTURES)
    labels = [""] if seen.receipt.still else [time_label(float(seconds)) for seconds in seen.times[::step]]
    return ShownClip(name, about, tuple(_pictures(seen.frames[::step], labels)), _playable(Path(local(path))))


def _pictures(frames: np.ndarray, labels: list[str]) -> Iterable[Picture]:
    from PIL import Image

    for frame, label in zip(frames, labels):
        picture = Image.fromarray(frame)
        content = BytesIO()
        picture.save(content, "JPEG", quality=_QUALITY)
        yield Picture(content.getvalue(), label, *picture.size)


def _playable(path: Path) -> tuple[Path, str] | None:
    """An mp4 or a WebM file, told by its first bytes, not by its name. Which codec is inside the browser will see."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] == b"ftyp" and head[8:12] not in (b"qt  ", b"avif"):
        return path, "video/mp4"
    if head[:4] == b"\x1aE\xdf\xa3" and b"webm" in head:
        return path, "video/webm"
    return None
