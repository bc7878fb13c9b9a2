"""A run's numbers for TensorBoard, where that is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from gpt4video_cli.training.report import Report

SHOWN = ("loss", "learning_rate", "gradient", "samples", "tokens", "memory")


class Board:
    """Event files in ``folder``; does nothing without TensorBoard (``available``)."""

    def __init__(self, folder: Path) -> None:
        self.available = importlib.util.find_spec("tensorboard") is not None
        self._writer: Any = None
        self._folder = folder

    def write(self, report: Report) -> None:
        """Add the numbers of a report."""
        if not self.available:
            return
        if self._writer is None:
            # The package's own writer: torch.utils.tensorboard would import TensorFlow if it found it.
            from tensorboard.summary import Writer

            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(str(self._folder))
        for name in SHOWN:
            self._writer.add_scalar(f"train/{name}", float(getattr(report, name)), report.step)
        if report.evaluation is not None:
            self._writer.add_scalar("validation/loss", float(report.evaluation), report.step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
