"""SHA-256 of weight files, remembered until the file changes: hashing 1.2 GB of a ViT-L takes a second, a look 0.1 ms.

HOME/hashes.json    {"version": 1, "files": {PATH: [size, mtime_ns, ctime_ns, inode, sha256]}}

A file is taken for unchanged while its size, its inode and both of its times are the same. ``ctime`` cannot be set by a
program, so that a copy which keeps the old date (``cp -p``, ``tar``) is noticed too.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from gpt4video_cli.weights import locate
from gpt4video_cli.weights.hub import sha256_of
from gpt4video_cli.whole_file import write_whole

VERSION = 1
SETTLED_NS = 2_000_000_000
"""Nanoseconds. A file that changed a moment ago may change again within one tick of the file system's clock (2 s on
FAT), with the same size and times: it is hashed anew each time until then."""

Look = list[int]
"""size, mtime_ns, ctime_ns, inode."""


def remembered_sha256(path: Path) -> str:
    """SHA-256 of the file's content, as hex. Raises ``OSError`` where it cannot be read."""
    place = os.path.abspath(path)
    before = _look(place)
    known = _read()
    *look, digest = known.get(place, [0, ""])
    if look == before:
        return str(digest)
    found = sha256_of(path)
    if _look(place) == before and time.time_ns() - max(before[1], before[2]) > SETTLED_NS:
        _write({**known, place: [*before, found]})
    return found


def _look(path: str) -> Look:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _file() -> Path:
    return locate.home() / "hashes.json"


def _read() -> dict[str, list[int | str]]:
    """What is remembered; nothing where the file is missing, damaged or of another version."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        return {str(path): [*map(int, row[:4]), str(row[4])] for path, row in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}


def _write(known: dict[str, list[int | str]]) -> None:
    """Remember; of two processes at once one may be forgotten, which costs it a second hashing and nothing else."""
    kept = {path: row for path, row in known.items() if os.path.exists(path)}
    with suppress(OSError):  # a read-only or full disk: hashed again next time
        write_whole(_file(), json.dumps({"version": VERSION, "files": kept}, indent=1) + "\n")
