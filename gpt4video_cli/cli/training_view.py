"""What a person sees of a training run: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpt4video_cli.cli.terminal import DIM, clean_line, columns, say, wants_colour

if TYPE_CHECKING:
    from gpt4video_cli.training.report import Report
    from gpt4video_cli.training.stage_task import Answer

ROWS = 8
"""Reports that the live table shows."""
HEADINGS = ("step", "loss", "validation", "rate", "gradient", "samples/s", "tokens/s", "MiB")


class TrainingView:
    """Prints to stderr. ``leads``: whether this process is the one of several that says something."""

    def __init__(self, folder: Path, *, stage: int, quiet: bool) -> None:
        from gpt4video_cli.training.board import Board

        self.leads = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
        self._quiet = quiet or not self.leads
        self._stage = stage
        self._board = Board(folder / "tensorboard")
        self._rows: deque[Report] = deque(maxlen=ROWS)
        self._answers: list[Answer] = []
        self._live: Any = None

    def __enter__(self) -> TrainingView:
        if not self._quiet and wants_colour(sys.stderr):
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        if not self._quiet and not self._board.available:
            self.notice("no TensorBoard log: tensorboard is not installed")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        self._board.close()
        if kind is KeyboardInterrupt and not self._quiet:
            say("stopped; a checkpoint was saved, --resume goes on from it", style=DIM)

    def notice(self, text: str) -> None:
        """Something to know, once."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(clean_line(text), style="dim", markup=False, highlight=False)
        else:
            say(clean_line(text), style=DIM)

    def answer(self, answer: Answer) -> None:
        """What the model says at an evaluation."""
        if self._answers and self._answers[0].step != answer.step:
            self._answers.clear()
        self._answers.append(answer)
        if self._live is None and not self._quiet:
            say(f"  {_dialogue(answer)}", style=DIM)

    def report(self, report: Report) -> None:
        """How the run goes."""
        if self.leads:
            self._board.write(report)
        if self._quiet:
            return
        self._rows.append(report)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            say(f"step {report.step}/{report.steps}  {_line(report)}")

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        last = self._rows[-1]
        table = Table(title=f"stage {self._stage}: step {last.step} of {last.steps}, {duration(last.left)} left")
        shown = _fitting(columns(sys.stderr))
        for heading in HEADINGS[:shown]:
            table.add_column(heading, justify="right")
        for row in self._rows:
            cells = (
                str(row.step),
                f"{row.loss:.4f}",
                "" if row.evaluation is None else f"{row.evaluation:.4f}",
                f"{row.learning_rate:.2e}",
                f"{row.gradient:.2f}",
                f"{row.samples:.1f}",
                f"{row.tokens:.0f}",
                f"{row.memory:.0f}",
            )
            table.add_row(*cells[:shown])
        return Group(table, *(Text(_dialogue(answer), style="dim") for answer in self._answers))


def _fitting(width: int) -> int:
    """How many columns of the table fit into ``width``: the heading or 8 letters, a border and two blanks each."""
    shown = len(HEADINGS)
    while shown > 2 and 1 + sum(max(8, len(heading)) + 3 for heading in HEADINGS[:shown]) > width:
        shown -= 1
    return shown


def _line(report: Report) -> str:
    evaluation = "" if report.evaluation is None else f"  validation {report.evaluation:.4f}"
    return (
        f"loss {report.loss:.4f}{evaluation}  rate {report.learning_rate:.2e}  {report.samples:.1f} samples/s  "
        f"{report.tokens:.0f} tokens/s  {report.memory:.0f} MiB  {duration(report.left)} left"
    )


def _dialogue(answer: Answer) -> str:
    return clean_line(f"{answer.question} -> {answer.answer or '(nothing)'} [{answer.expected}]")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min 5 s`` or ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
