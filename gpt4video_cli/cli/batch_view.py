"""How a batch goes: a bar on a terminal, else a line every 30 seconds; the same lines in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from gpt4video_cli.batch.run import Summary
from gpt4video_cli.cli.progress import WIDE_ENOUGH, duration
from gpt4video_cli.cli.terminal import columns, may_draw, say
from gpt4video_cli.gallery.new_file import cannot_be_written

EVERY = 30.0
"""Seconds between two lines."""


class BatchView:
    """Shows ``summary`` while others change it. ``log``: a file to add lines to. ``bar``: a bar may be drawn."""

    def __init__(
        self, summary: Summary, *, quiet: bool, log: Path | None = None, bar: bool = True, every: float = EVERY
    ) -> None:
        self._summary = summary
        self._began = time.perf_counter()
        self._every = every
        self._draws = may_draw(sys.stderr) and not quiet and (bar or not sys.stdout.isatty())
        self._says = not quiet and not self._draws
        self._log: TextIO | None = None
        if log is not None:
            try:
                self._log = open(log, "a", encoding="utf-8", errors="replace")  # noqa: SIM115
            except OSError as error:
                raise cannot_be_written(log, error) from error
        self._progress: Any = None
        self._task: Any = None
        self._ended = threading.Event()
        self._clock: threading.Thread | None = None

    def __enter__(self) -> BatchView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> None:
        """Show it from now on; the time left counts from here."""
        self._began = time.perf_counter()
        if self._draws:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            bar = [BarColumn(bar_width=None)] if columns(sys.stderr) >= WIDE_ENOUGH else []
            parts = (*bar, TextColumn("{task.description}"))
            self._progress = Progress(*parts, console=Console(stderr=True), transient=True, expand=True)
            self._task = self._progress.add_task(self.line(), total=self._summary.total)
            self.update()
            self._progress.start()
        if self._says or self._log is not None:
            self._clock = threading.Thread(target=self._tick, daemon=True)
            self._clock.start()

    def update(self) -> None:
        """The summary has changed."""
        if self._progress is not None:
            self._progress.update(self._task, completed=self._summary.ended, description=self.line())

    def line(self) -> str:
        """How far it is, how fast, how much failed, how long it will take."""
        summary = self._summary
        own = summary.ended - len(summary.plan.faults)  # what was told before the clock began
        seconds = time.perf_counter() - self._began
        text = f"{summary.ended} of {summary.total} jobs, {summary.failures} failed"
        if own <= 0:
            return text
        left = (summary.total - summary.ended) * seconds / own
        return f"{text}, {own / seconds:.2f} jobs/s, {duration(left)} left"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Room for a line of somebody else."""
        if self._progress is not None:
            self._progress.stop()
        yield
        if self._progress is not None:
            self._progress.start()

    def close(self) -> None:
        """Take the bar away; the last line goes to the log."""
        self._ended.set()
        if self._clock is not None:
            self._clock.join()
            self._clock = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if self._log is not None:
            self._write_log()
            self._log.close()
            self._log = None

    def _tick(self) -> None:
        while not self._ended.wait(self._every):
            if self._says:
                say(self.line())
            if self._log is not None:
                self._write_log()

    def _write_log(self) -> None:
        assert self._log is not None
        try:
            self._log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {self.line()}\n")
            self._log.flush()
        except OSError:  # a full disk: the results say so, and they matter
            self._log = None


def count_text(summary: Summary) -> str:
    """``17 jobs done, 3 failed (2 clip, 1 refused), 4 were done before``."""
    text = f"{summary.answered} {'job' if summary.answered == 1 else 'jobs'} done, {summary.failures} failed"
    if summary.failed:
        text += f" ({', '.join(f'{count} {kind}' for kind, count in summary.failed.most_common())})"
    if summary.plan.done:
        text += f", {summary.plan.done} were done before"
    if summary.plan.later:
        text += f", {summary.plan.later} left for later"
    return text


def last_words(summary: Summary, results: Path | None, errors: Path | None) -> str:
    """The end of a run on one line."""
    text = count_text(summary)
    if summary.ended and summary.seconds:
        text += f"; {duration(summary.seconds)}, {summary.ended / summary.seconds:.2f} jobs/s"
    if results is not None:
        text += f"; results in {results}"
    if errors is not None and summary.failures:
        text += f", failures in {errors}"
    return text
