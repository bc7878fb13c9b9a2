"""A folder that appears under its name only when all of it is there; what a killed run left is cleared by the next."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from gpt4video_cli.errors import Gpt4VideoError, UsageError
from gpt4video_cli.gallery.new_file import cannot_be_written, put_in_place

_START, _END = ".gpt4video-import-", ".part"


def refuse_taken(target: Path) -> None:
    """Raise ``UsageError`` unless ``target`` is not there, or an empty folder."""
    try:
        taken = os.path.lexists(target) and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise cannot_be_written(target, error) from error
    if taken:
        raise UsageError(f"{target}: exists and is not empty", hint="choose another --output, or remove it first")


def refuse_full_disk(target: Path, size: int) -> None:
    """Raise ``Gpt4VideoError`` if the disk on which ``target`` will be has less than ``size`` bytes left."""
    there = next(folder for folder in target.resolve().parents if folder.exists())
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise cannot_be_written(target, error) from error
    if free < size:
        raise Gpt4VideoError(
            f"{target}: takes {size / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB left",
            hint="free some space there, or write to another disk",
        )


@contextmanager
def staged(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new hidden folder beside ``target``, which takes its name, flushed, when the block ends well, or goes away.

    It is locked while it is in use, so that leftovers of killed runs are known by not being locked. With ``replace`` an
    older folder of that name stays until then and gives way. Failures of the file system become one ``Gpt4VideoError``
    about ``target``.
    """
    place = target.resolve()  # an empty folder may be there through a link, or be the current one
    parent = place.parent
    made = not parent.exists()
    folder = _hidden(parent)
    lock: int | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY)
        _lock(lock)
        yield folder
        # All files at the end, not each when it is written: then the disk works while the next one is converted.
        for path in sorted(folder.rglob("*")):
            _flush(path)
        with _given_way(place) if replace else nullcontext():
            put_in_place(folder, place, force=False)
    except FileExistsError:
        raise UsageError(f"{target}: appeared meanwhile", hint="another import may have made it") from None
    except OSError as error:
        raise cannot_be_written(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        if made:
            with suppress(OSError):
                parent.rmdir()  # empty: nothing came of it


def _hidden(parent: Path) -> Path:
    """A new name in ``parent`` that ``_remove_leftovers`` knows."""
    return parent / f"{_START}{secrets.token_hex(4)}{_END}"


@contextmanager
def _given_way(place: Path) -> Iterator[None]:
    """The folder ``place`` has another name meanwhile; it goes when the block ends well, else it comes back."""
    if not place.is_dir():
        yield
        return
    old = _hidden(place.parent)
    os.rename(place, old)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what stays of it is not locked: the next run clears it


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{_START}*{_END}"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            if _lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _lock(descriptor: int) -> bool:
    """Whether it is ours now. Some network disks have no locks: then no folder is taken for a leftover."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
