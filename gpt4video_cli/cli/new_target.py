"""The name of a file that a command will write, checked before anything expensive is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.new_file import taken


def new_target(text: str, endings: Iterable[str], *, force: bool) -> Path:
    """``text`` as a path that may be written; its ending, in small letters, is one of ``endings``.

    Raises ``UsageError`` for another ending, for a folder that does not exist and, without ``force``, for a name that
    is taken.
    """
    target = Path(text)
    known = sorted(endings)
    if target.suffix.lower() not in known:
        raise UsageError(f"{text}: must end in {' or '.join(known)}")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder", hint="make it first, or name another one")
    if target.is_dir():
        raise UsageError(f"{text}: is a folder, not a file")
    if os.path.lexists(target) and not force:
        raise taken(target)
    return target
