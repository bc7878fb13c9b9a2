"""Clips at http(s) addresses: whatever opens a clip asks ``local`` where the file is, and it is fetched then.

Everything else (conversations, receipts, errors, results) knows such a clip by its address. The files lie in one
temporary folder of this process and go with it, or when the last who holds their address lets go.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from gpt4video_cli.errors import ClipError, UsageError

Tell = Callable[[int, int | None], None]
"""Told the bytes received so far, and of how many, where the server says."""
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a clip is named by an http(s) address."""
    return _ADDRESS.match(os.fspath(path)) is not None


def full_path(path: str | os.PathLike[str]) -> str:
    """An address as it is, a path from the root on."""
    return os.fspath(path) if is_url(path) else os.path.abspath(path)


@dataclass(frozen=True)
class FetchLimits:
    """``bytes`` of a file at most; ``idle`` seconds for connecting and between two pieces, ``total`` for all of it;
    ``private``: addresses in private networks, and of this machine, are allowed."""

    bytes: int = 2_000_000_000
    idle: float = 60.0
    total: float = 600.0
    redirects: int = 5
    private: bool = False

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise UsageError(f"--url-size is {self.bytes} bytes; it must be above 0")
        if not (0 < self.total < float("inf") and self.idle > 0):
            raise UsageError(f"--url-time is {self.total:g} s; it must be a number above 0")


class Spool:
    """The files of addresses that were fetched. Safe to use from several threads; an address is fetched once."""

    def __init__(self, limits: FetchLimits | None = None) -> None:
        self.limits = limits or FetchLimits()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, str] = {}
        self._holders: Counter[str] = Counter()
        self._fetching: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()

    def local(self, path: str, tell: Tell | None = None) -> str:
        """The file of an address, fetched now if it was not; another path as it is. Raises ``ClipError``."""
        if not is_url(path):
            return path
        with self._guard:
            turn = self._fetching.setdefault(path, threading.Lock())
        with turn:
            file = self._files.get(path)
            if file is None or not os.path.isfile(file):
                file = self._files[path] = self._fetch(path, tell)
            return file

    def here(self, path: str) -> str:
        """The file of an address if it was fetched already; else ``path`` as it is, where no file lies then."""
        return self._files.get(path, path)

    def hold(self, paths: Iterable[str]) -> None:
        """Keep the files of the addresses among ``paths`` until ``release``; other paths mean nothing here."""
        with self._guard:
            self._holders.update(path for path in paths if is_url(path))

    def release(self, paths: Iterable[str]) -> None:
        """The last who lets go removes the file."""
        for path in filter(is_url, paths):
            with self._guard:
                self._holders[path] -= 1
                gone = self._files.pop(path, None) if self._holders[path] <= 0 else None
                if self._holders[path] <= 0:
                    del self._holders[path]
            if gone is not None:
                with suppress(OSError):
                    os.unlink(gone)

    def stop(self) -> None:
        """End what is being fetched, in other threads; nothing is fetched from now on."""
        self._stop.set()

    def close(self) -> None:
        """Remove all files."""
        self.stop()
        with self._guard:
            folder, self._folder = self._folder, None
            self._files.clear()
        if folder is not None:
            folder.cleanup()

    def _fetch(self, url: str, tell: Tell | None) -> str:
        from gpt4video_cli.video.http_fetch import Watch, fetch  # 0.05 s, for those who name an address
        from gpt4video_cli.video.yt_dlp import fetch_from_page

        watch = Watch(url, self.limits, self._stop)
        watch.check()  # no new folder once all is removed
        folder = self._place()
        found = fetch(url, folder, self.limits, tell=tell, watch=watch)
        if found.path is not None:
            return found.path
        return fetch_from_page(url, found.content_type, folder, self.limits, watch)

    def _place(self) -> str:
        with self._guard:
            if self._folder is None:
                try:
                    self._folder = tempfile.TemporaryDirectory(prefix="gpt4video-", ignore_cleanup_errors=True)
                except OSError as error:
                    raise ClipError(tempfile.gettempdir(), f"no clip can be kept there: {error.strerror}") from error
            return self._folder.name


_spool = Spool()


def use_spool(spool: Spool) -> Spool:
    """From now on ``local`` and the others mean this one. Returns it."""
    global _spool
    _spool = spool
    return spool


def local(path: str | os.PathLike[str], tell: Tell | None = None) -> str:
    """See ``Spool.local``."""
    return _spool.local(os.fspath(path), tell)


def here(path: str | os.PathLike[str]) -> str:
    """See ``Spool.here``."""
    return _spool.here(os.fspath(path))


def hold(paths: Iterable[str]) -> None:
    """See ``Spool.hold``."""
    _spool.hold(paths)


def release(paths: Iterable[str]) -> None:
    """See ``Spool.release``."""
    _spool.release(paths)


def stop_fetching() -> None:
    """See ``Spool.stop``."""
    _spool.stop()


def remove_fetched() -> None:
    """See ``Spool.close``; for a program that ends without taking the interpreter down, which would do it too."""
    _spool.close()
