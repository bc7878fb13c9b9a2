"""``gpt4video sessions export`` and ``chat --html``: a conversation as a file for people or for other programs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpt4video_cli.cli.new_target import new_target
from gpt4video_cli.cli.terminal import clean
from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.new_file import put_in_place, taken, temporary_for, write_flushed, write_new_file

if TYPE_CHECKING:
    from gpt4video_cli.session import Session
    from gpt4video_cli.video.reader import FrameReader

Kind = Literal["md", "html", "json"]
ENDINGS: dict[str, Kind] = {".md": "md", ".markdown": "md", ".html": "html", ".htm": "html", ".json": "json"}
_OWN_PICTURE = re.compile(r"turn\d{3,}-(clip|film)\d+-\d+\.jpg")


def export_target(text: str, kind: Kind | None = None, *, force: bool = False) -> Path:
    """``text`` as a file that may be written; with ``kind``, its ending must be one of that kind's."""
    endings = [ending for ending, of in ENDINGS.items() if kind in (None, of)]
    target = new_target(text, endings, force=force)
    if ENDINGS[target.suffix.lower()] == "md":
        _check_folder(_pictures_folder(target), force=force)
    return target


def export(session: Session, target: Path, reader: FrameReader, *, force: bool = False) -> None:
    """Write ``session`` to ``target``, whole, as its ending says."""
    kind = ENDINGS[target.suffix.lower()]
    if kind == "json":
        write_new_file(target, session.as_bytes() + b"\n", force=force)
        return
    from gpt4video_cli.export.transcript import transcript

    shown = transcript(session, reader, clean)
    if kind == "html":
        from gpt4video_cli.export.html import html

        write_new_file(target, html(shown).encode(), force=force)
        return
    from gpt4video_cli.export.markdown import markdown

    folder = _pictures_folder(target)
    document = markdown(shown, folder.name)
    if document.files:  # first, so that the text never refers to what is not there
        _check_folder(folder, force=force)
        with temporary_for(folder) as temporary:
            temporary.mkdir()
            for name, content in document.files.items():
                write_flushed(temporary / name, content)
            put_in_place(temporary, folder, force=force)
    write_new_file(target, document.text.encode(), force=force)


def _pictures_folder(target: Path) -> Path:
    return target.with_name(f"{target.stem}_files")


def _check_folder(folder: Path, *, force: bool) -> None:
    """Only a folder that an earlier export made is ever replaced."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder}: exists and is not a folder")
    other = [name for name in os.listdir(folder) if not _OWN_PICTURE.fullmatch(name)]
    if other:
        raise UsageError(f"{folder}: a folder that holds other files ({clean(min(other))})", hint="choose another name")
    if not force:
        raise taken(folder)
