"""A progress bar of filming on a terminal's stderr."""

from __future__ import annotations

import os
import sys
from typing import Any

from gpt4video_cli.events import GenerationProgress


class ProgressBar:
    """A progress bar on a terminal's stderr; nothing elsewhere. It goes away when it is done."""

    def __init__(self, *, quiet: bool) -> None:
        self._possible = sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, event: GenerationProgress) -> None:
        """Draw what is going on, and how long it will take where that is known."""
        if not self._possible:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(event.stage, left="")
        filming = event.stage == "filming"
        left = f"step {event.step} of {event.steps}" if filming else ""
        if filming and event.seconds_left is not None:
            left += f", {duration(event.seconds_left)} left"
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
