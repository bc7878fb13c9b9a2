"""A transcript as a Markdown file, with the frames as JPEG files in a folder beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from gpt4video_cli.export.transcript import ShownClip, Transcript

# What CommonMark or GitHub's Markdown gives a meaning anywhere in a line, and at its beginning.
_INSIDE = re.compile(r"([\\`*_\[\]<>&|~$])")
_FIRST = re.compile(r"^(\s*)([-+=#:]|\d+(?=[.)]))")


@dataclass(frozen=True)
class Document:
    """``text`` of the Markdown file; ``files`` by their name in the folder beside it."""

    text: str
    files: dict[str, bytes]


def markdown(transcript: Transcript, folder: str) -> Document:
    """The document; ``folder`` is the name of the folder with the pictures, as the text refers to it.

    What people and models wrote is shown as it is: nothing in it becomes a link, a picture or HTML.
    """
    files: dict[str, bytes] = {}
    lines = [f"# {_plain(' '.join(transcript.title.split()))}", ""]
    times = [f"begun {transcript.created}"] if transcript.created else []
    times += [f"last changed {transcript.changed}"] if transcript.changed else []
    if times:
        lines += [", ".join(times), ""]
    for number, turn in enumerate(transcript.turns, start=1):
        lines += [f"## {number}", "", *_quoted(turn.text), ""]
        for place, clip in enumerate(turn.clips, start=1):
            lines += _clip(clip, f"turn{number:03}-clip{place}", folder, files)
        lines += [_plain(turn.answer) or "(no text)", ""]
        lines += [line for prompt in turn.prompts for line in (f"Asked for: {_plain(' '.join(prompt.split()))}", "")]
        for place, film in enumerate(turn.films, start=1):
            lines += _clip(film, f"turn{number:03}-film{place}", folder, files)
        lines += [f"<sub>{_plain(turn.about)}</sub>", ""]
    return Document("\n".join(lines).rstrip() + "\n", files)


def _clip(clip: ShownClip, stem: str, folder: str, files: dict[str, bytes]) -> list[str]:
    note = f" ({_plain(clip.note)})" if clip.note else ""
    lines = [f"**{_plain(clip.name)}**: {_plain(clip.about)}{note}", ""]
    shown = []
    for number, picture in enumerate(clip.pictures, start=1):
        name = f"{stem}-{number}.jpg"
        files[name] = picture.jpeg
        shown.append(f"![{picture.label or 'picture'}](<{quote(folder)}/{name}>)")
    return [*lines, " ".join(shown), ""] if shown else lines


def _quoted(text: str) -> list[str]:
    return [f"> {line}" for line in _plain(text).split("\n")]


def _plain(text: str) -> str:
    """``text`` so that Markdown shows it as it is, line by line."""
    escaped = []
    for line in text.split("\n"):
        line = _INSIDE.sub(r"\\\1", line.strip())
        found = _FIRST.match(line)
        if found:  # 1. becomes 1\., everything else gets its backslash in front
            line = f"{found[2]}\\{line[found.end() :]}" if found[2].isdigit() else f"\\{line}"
        escaped.append(line)
    return "  \n".join(escaped)  # two blanks: a line break, not a space
