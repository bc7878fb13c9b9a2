"""Clips that are named by http(s) addresses: the options that bound them, and a line while one is fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from gpt4video_cli.byte_size import read_size
from gpt4video_cli.cli.option_panels import LOOKING
from gpt4video_cli.cli.progress import EVERY
from gpt4video_cli.cli.terminal import Status, is_plain
from gpt4video_cli.video.url import FetchLimits, Spool, is_url, local, use_spool

UrlSize = Annotated[
    str,
    typer.Option("--url-size", metavar="SIZE", help="Largest clip fetched from an address.", rich_help_panel=LOOKING),
]
UrlTime = Annotated[
    float,
    typer.Option(
        "--url-time",
        metavar="SECONDS",
        help="Longest time for fetching a clip from an address.",
        rich_help_panel=LOOKING,
    ),
]
PrivateUrls = Annotated[
    bool,
    typer.Option(
        "--allow-private-urls",
        help="Fetch clips from this machine and private networks too.",
        rich_help_panel=LOOKING,
    ),
]
SIZE, SECONDS = "2GB", 600.0
"""The defaults of the first two."""
_PAUSE = 0.2
"""Seconds between two numbers on the line."""


def set_up(size: str, seconds: float, private: bool) -> FetchLimits:
    """The limits within which addresses are fetched from now on. Raises ``UsageError``."""
    limits = FetchLimits(bytes=read_size(size, "--url-size"), total=seconds, private=private)
    use_spool(Spool(limits))
    return limits


def fetch_clips(paths: Iterable[str | os.PathLike[str]], *, quiet: bool = False) -> None:
    """Fetch the addresses among ``paths`` now, with a line on a terminal that says how far it is."""
    for path in paths:
        if is_url(path):
            with _Line(os.fspath(path), quiet=quiet) as line:
                local(path, line.tell)


class _Line:
    def __init__(self, url: str, *, quiet: bool) -> None:
        self._url, self._quiet = url, quiet
        self._status = Status(f"fetching {url} ...", quiet=quiet)
        self._last = time.monotonic()

    def __enter__(self) -> _Line:
        self._status.show()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.clear()

    def tell(self, received: int, total: int | None) -> None:
        """Show how much is there."""
        if time.monotonic() - self._last < (EVERY if is_plain() else _PAUSE):
            return
        self._last = time.monotonic()
        of = "" if total is None else f" of {total / 1e6:.1f}"
        self._status.clear()
        self._status = Status(f"{received / 1e6:.1f}{of} MB of {self._url}", quiet=self._quiet)
        self._status.show()
