"""What was pulled: for each model a lock file with the commits and hashes of its files, complete only at the end.

GPT4VIDEO_HOME/locks/NAME.json    {"schema": 1, "name", "complete", "parts": {PART: {repository, revision, commit,
                                  files: {PATH: [size, hash]}, found: [PATH]}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.hub import HubFile
from gpt4video_cli.whole_file import write_whole

SCHEMA = 1


@dataclass(frozen=True)
class LockedPart:
    """The files of a part as they were pulled."""

    repository: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]
    found: tuple[str, ...] = ()
    """Paths that the cache held before: another tool brought them, so ``models rm`` leaves them."""


@dataclass(frozen=True)
class LockFile:
    """What a pull brought, or began to bring."""

    name: str
    parts: Mapping[str, LockedPart]
    complete: bool
    made: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that were converted, by their path in the model's folder; none where nothing was."""

    def bytes(self) -> int:
        """Of all files together; a file that two parts share counts once."""
        return sum({file.digest: file.size for part in self.parts.values() for file in part.files}.values())


def lock_path(name: str) -> Path:
    """Where the lock file of the model ``name`` lies; it may not exist."""
    return locate.home() / "locks" / f"{name}.json"


def read_lock(name: str) -> LockFile | None:
    """What was pulled of ``name``; None if nothing was. A lock file that cannot be read is a ``WeightsError``."""
    path = lock_path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, this program reads {SCHEMA}")
        parts = {part: _part(value) for part, value in content["parts"].items()}
        made = {str(place): str(digest) for place, digest in content["made"].items()}
        return LockFile(name, parts, content["complete"] is True, made)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: not a lock file ({error})", hint=f"run gpt4video models pull {name} again"
        ) from error


def _part(value: Any) -> LockedPart:
    files = tuple(HubFile(str(path), int(size), str(digest)) for path, (size, digest) in value["files"].items())
    found = tuple(str(path) for path in value["found"])
    return LockedPart(str(value["repository"]), str(value["revision"]), str(value["commit"]), files, found)


def write_lock(lock: LockFile) -> None:
    """Write the lock file whole."""
    parts = {
        name: {
            "repository": part.repository,
            "revision": part.revision,
            "commit": part.commit,
            "files": {file.path: [file.size, file.digest] for file in part.files},
            "found": list(part.found),
        }
        for name, part in lock.parts.items()
    }
    content = {
        "schema": SCHEMA,
        "name": lock.name,
        "complete": lock.complete,
        "parts": parts,
        "made": dict(lock.made),
    }
    write_whole(lock_path(lock.name), json.dumps(content, indent=1) + "\n")


def every_lock() -> dict[str, LockFile]:
    """Name -> lock file, of all models that were pulled or half pulled; unreadable ones are left out."""
    found = {}
    for path in sorted((locate.home() / "locks").glob("*.json")):
        try:
            lock = read_lock(path.stem)
        except WeightsError:
            continue
        if lock is not None:
            found[path.stem] = lock
    return found


@contextmanager
def one_at_a_time(name: str, waiting: Any = None) -> Iterator[None]:
    """Only one process pulls or removes ``name``; another waits, after calling ``waiting()``."""
    from filelock import FileLock, Timeout

    path = lock_path(name).with_suffix(".busy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting()
            lock.acquire()
    except OSError as error:
        raise WeightsError(f"{path.parent}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()
