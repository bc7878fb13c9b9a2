"""A transcript as one page of HTML that needs nothing beside it: style, pictures and small clips are inside.

It has no script, and its Content-Security-Policy allows nothing but what is inside, so that a browser fetches nothing
and runs nothing, whatever a question or an answer says.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path

from gpt4video_cli.export.transcript import ShownClip, ShownTurn, Transcript

MOST_EMBEDDED = 20 * 2**20
"""Bytes of a clip that goes into the page; larger ones are shown by their pictures alone."""


def html(transcript: Transcript, *, most_embedded: int = MOST_EMBEDDED) -> str:
    """The page. mp4 and WebM clips of up to ``most_embedded`` bytes are in it, of larger ones their pictures alone."""
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escape(transcript.title)
    times = [f"begun {_time(transcript.created)}"] if transcript.created else []
    times += [f"last changed {_time(transcript.changed)}"] if transcript.changed else []
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        "<main>",
        f'<h1 dir="auto">{title}</h1>',
        *([f'<p class="small">{", ".join(times)}</p>'] if times else []),
        *(line for number, turn in enumerate(transcript.turns, 1) for line in _turn(turn, number, most_embedded)),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _time(text: str) -> str:
    return f'<time datetime="{escape(text)}">{escape(text.replace("T", " ").replace("+00:00", " UTC"))}</time>'


def _turn(turn: ShownTurn, number: int, most: int) -> Iterator[str]:
    yield f'<section aria-label="turn {number}">'
    yield '<div class="asked">'
    yield f'<p dir="auto">{escape(turn.text)}</p>'
    for clip in turn.clips:
        yield from _clip(clip, most)
    yield "</div>"
    yield '<div class="answered">'
    yield f'<p dir="auto">{escape(turn.answer)}</p>' if turn.answer else '<p class="small">(no text)</p>'
    for prompt in turn.prompts:
        yield f'<p class="prompt">asked for: <q dir="auto">{escape(prompt)}</q></p>'
    for film in turn.films:
        yield from _clip(film, most)
    yield f'<p class="small">{escape(turn.about)}</p>'
    yield "</div>"
    yield "</section>"


def _clip(clip: ShownClip, most: int) -> Iterator[str]:
    video, note = _video(clip, most)
    yield "<figure>"
    yield f'<figcaption><b dir="auto">{escape(clip.name)}</b> {escape(clip.about)}</figcaption>'
    if video:
        yield video
    if clip.pictures:
        yield '<ul class="frames">'
        for picture in clip.pictures:
            size = f'width="{picture.width}" height="{picture.height}"'
            label = f"<span>{escape(picture.label)}</span>" if picture.label else ""
            alt = escape(f"frame at {picture.label}" if picture.label else "the picture")
            yield f'<li><img src="{_data("image/jpeg", picture.jpeg)}" alt="{alt}" {size}>{label}</li>'
        yield "</ul>"
    for text in filter(None, (clip.note, note)):
        yield f'<p class="small">{escape(text)}</p>'
    yield "</figure>"


def _video(clip: ShownClip, most: int) -> tuple[str, str]:
    """The player of a clip, or nothing and why."""
    if clip.playable is None:
        return "", ""
    path, kind = clip.playable
    content = _content(path, most)
    if content is None:
        return "", f"the clip itself is larger than {most / 2**20:g} MB and not in this page"
    poster = f' poster="{_data("image/jpeg", clip.pictures[0].jpeg)}"' if clip.pictures else ""
    return f'<video controls loop playsinline preload="metadata"{poster} src="{_data(kind, content)}"></video>', ""


def _content(path: Path, most: int) -> bytes | None:
    with open(path, "rb") as file:
        content = file.read(most + 1)
    return content if len(content) <= most else None


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
