"""A file that grows by whole lines: after a line is given it is on the disk, and there is never half of one.

Each line is one write to the end of the file, then flushed. Where the disk takes only a part of it, that part is taken
back. A machine that loses power may still leave half a line, which ``open`` finds and drops.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.gallery.new_file import cannot_be_written
from gpt4video_cli.strict_json import one_line

_BLOCK = 1 << 20


def whole_lines(path: str | Path) -> Iterator[bytes]:
    """Every whole line of a file, with its line end; what stands behind the last one is left out. ``InputError``."""
    try:
        with open(path, "rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


class LineFile:
    """One JSON object a line. Only one process may have it open; the lock goes with the process, however it ends."""

    def __init__(self, path: str | Path) -> None:
        """Open or make the file. Raises ``UsageError`` where another process has it, or it is no plain file."""
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot_be_written(self.path, error) from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise UsageError(f"{path}: is not a plain file", hint="without -o the results go to stdout")
            with contextlib.suppress(OSError):  # some network disks have no locks
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{path}: another run is writing it", hint="wait for it or name another") from None
        except BaseException:
            os.close(self._file)
            raise
        self._end = os.fstat(self._file).st_size

    def __enter__(self) -> LineFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it free."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def tail(self, most: int = 4096) -> bytes:
        """What stands behind the last line end, up to ``most`` bytes of it: half a line, or nothing."""
        return os.pread(self._file, most, self._last_line_end())

    def drop_tail(self) -> None:
        """Take away what stands behind the last line end."""
        self._cut(self._last_line_end())

    def clear(self) -> None:
        """Take away everything."""
        self._cut(0)

    def append(self, value: Any) -> None:
        """Write ``value`` as the next line; when this returns it is on the disk. ``Gpt4VideoError`` if it cannot."""
        rest = memoryview(one_line(value).encode() + b"\n")
        length = len(rest)
        try:
            while rest:  # a disk that is nearly full takes a part; the next write says why
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except BaseException as error:  # Ctrl-C too: the caller did not learn that the line is there
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
            if isinstance(error, OSError):
                raise cannot_be_written(self.path, error) from error
            raise
        self._end += length

    def _cut(self, length: int) -> None:
        if length == self._end:
            return
        try:
            os.ftruncate(self._file, length)
            os.fsync(self._file)
        except OSError as error:
            raise cannot_be_written(self.path, error) from error
        self._end = length

    def _last_line_end(self) -> int:
        """Where the last whole line ends."""
        end = self._end
        while end > 0:
            start = max(0, end - _BLOCK)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0
