"""Files and folders that appear under their names only when they are complete, and take nobody else's place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt4video_cli.errors import Gpt4VideoError, UsageError

TAKEN_HINT = "--force replaces it"


def temporary_beside(target: Path) -> Path:
    """A new name in the folder of ``target``. The target's own may already be as long as names can be."""
    return target.parent / f".gpt4video-{secrets.token_hex(6)}.part"


@contextmanager
def temporary_for(target: Path) -> Iterator[Path]:
    """A temporary name for what will become ``target``; whatever is left of it at the end goes away.

    A disk that is full and every other failure of the file system becomes one ``Gpt4VideoError`` about ``target``.
    """
    temporary = temporary_beside(target)
    try:
        yield temporary
    except FileExistsError:
        raise taken(target) from None
    except OSError as error:  # FFmpeg's errors about files are OSErrors too
        raise cannot_be_written(target, error) from error
    finally:
        _remove(temporary)


def taken(target: Path) -> UsageError:
    """The error for a name that somebody else has."""
    return UsageError(f"{target}: exists", hint=TAKEN_HINT)


def cannot_be_written(target: Path, error: OSError) -> Gpt4VideoError:
    """What a failure of the file system means for ``target``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space there, or write to another disk" if full else None
    return Gpt4VideoError(f"{target}: cannot be written: {reason}", hint=hint)


def write_flushed(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_new_file(target: Path, content: bytes, *, force: bool) -> None:
    """Write a file whole under its name. Without ``force`` an existing one is not replaced (``UsageError``)."""
    with temporary_for(target) as temporary:
        write_flushed(temporary, content)
        put_in_place(temporary, target, force=force)


def put_in_place(temporary: Path, target: Path, *, force: bool) -> None:
    """Give the finished file or folder ``temporary`` its name. Without ``force`` an existing file is never replaced.

    That holds also where the file appeared a moment ago: making a link and renaming a folder both fail then, in one
    step. Raises ``FileExistsError`` or another ``OSError``.
    """
    if temporary.is_dir():
        _put_folder(temporary, target, force=force)
    elif force:
        os.replace(temporary, target)
    else:
        _put_new_file(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)  # the new name must be on the disk as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _put_new_file(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links (FAT, some network disks): take the name with an empty file, then fill it
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, target)


def _put_folder(temporary: Path, target: Path, *, force: bool) -> None:
    try:
        os.rename(temporary, target)  # an empty folder may be there; POSIX refuses everything else
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if not force or not target.is_dir():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
    old = temporary_beside(target)
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _remove(temporary: Path) -> None:
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        temporary.unlink(missing_ok=True)
