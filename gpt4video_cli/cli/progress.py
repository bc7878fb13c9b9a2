"""How long work goes on: a bar of filming on a terminal's stderr, or with ``--plain`` a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

from gpt4video_cli.cli.terminal import columns, is_plain, may_draw, say
from gpt4video_cli.events import GenerationProgress

EVERY = 10.0
"""Seconds between two lines of one piece of work."""
WIDE_ENOUGH = 60
"""Columns. On a narrower terminal there is no bar beside the text."""


class ProgressLines:
    """What ``--plain`` gets instead of a bar: lines on a terminal's stderr, not more than one in ``every`` seconds."""

    def __init__(self, *, quiet: bool, every: float = EVERY) -> None:
        self._says = sys.stderr.isatty() and is_plain() and not quiet
        self._every = every
        self._stage = ""
        self._last = 0.0

    def show(self, stage: str, text: str = "") -> None:
        """``stage`` is said when it begins, ``text`` when it is time."""
        now = time.monotonic()
        if not self._says or (stage == self._stage and now - self._last < self._every):
            return
        say(f"{stage}: {text}" if text else f"{stage} ...")
        self._stage, self._last = stage, now


class ProgressBar:
    """A progress bar on a terminal's stderr; nothing elsewhere. It goes away when it is done."""

    def __init__(self, *, quiet: bool) -> None:
        self._possible = may_draw(sys.stderr) and not quiet
        self._lines = ProgressLines(quiet=quiet)
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, event: GenerationProgress) -> None:
        """Draw what is going on, and how long it will take where that is known."""
        filming = event.stage == "filming"
        left = f"step {event.step} of {event.steps}" if filming else ""
        if filming and event.seconds_left is not None:
            left += f", {duration(event.seconds_left)} left"
        self._lines.show(event.stage, left)
        if not self._possible:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            bar = [BarColumn()] if columns(sys.stderr) >= WIDE_ENOUGH else []
            parts = (TextColumn("{task.description}"), *bar, TextColumn("{task.fields[left]}"))
            self._progress = Progress(*parts, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(event.stage, left="")
        total = event.steps if filming else None  # how long loading and decoding take is not known: the bar pulses
        self._progress.update(self._task, description=event.stage, completed=event.step, total=total, left=left)

    def clear(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def duration(seconds: float) -> str:
    """``7 s`` or ``2:05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"
