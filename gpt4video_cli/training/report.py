"""What a run says of itself: rates and times, a log that a resumed run continues, and when a loss has gone wrong."""

from __future__ import annotations

import json
import math
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.whole_file import write_whole

EXPLODED = 10.0
"""A loss this many times the median of the last hundred, and twice that of the first ten, has exploded."""


@dataclass(frozen=True)
class Report:
    """What is known after ``step`` of ``steps``. ``loss`` is the mean since the report before; ``gradient`` the length
    of the gradient before clipping; rates are per second; ``memory`` is the peak so far in MiB; ``seconds`` since the
    start or the resumption; ``left``: seconds that the rest will take. ``evaluation``: a loss, where there was an
    evaluation just now."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient: float
    samples: float
    tokens: float
    memory: float
    seconds: float
    left: float
    evaluation: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a log, rounded to what is meant."""
        digits = {"loss": 4, "evaluation": 4, "gradient": 4, "learning_rate": 9}
        values = {name: value for name, value in asdict(self).items() if value is not None and name != "steps"}
        return {n: v if isinstance(v, int) else round(v, digits.get(n, 1)) for n, v in values.items()}


class Meter:
    """Adds up steps between reports."""

    def __init__(self, steps: int, first: int) -> None:
        self._steps, self._first = steps, first
        self._started = self._since = time.monotonic()
        self._losses: list[float] = []
        self._counts = [0.0, 0.0]

    def add(self, loss: float, counts: Sequence[float]) -> None:
        """One step: its loss, its samples and tokens."""
        self._losses.append(loss)
        self._counts = [a + b for a, b in zip(self._counts, counts, strict=True)]

    def report(self, step: int, rate: float, gradient: float, evaluation: float | None) -> Report:
        """Everything since the last report."""
        now = time.monotonic()
        span, seconds = max(now - self._since, 1e-9), now - self._started
        samples, tokens = (count / span for count in self._counts)
        loss = sum(self._losses) / max(1, len(self._losses))
        self._losses.clear()
        self._counts, self._since = [0.0, 0.0], now
        left = seconds / max(1, step - self._first) * (self._steps - step)
        return Report(
            step, self._steps, loss, rate, gradient, samples, tokens, peak_memory(), seconds, left, evaluation
        )


def peak_memory() -> float:
    """MiB: the most that was in use on the GPU by tensors, or without a GPU by the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Log:
    """``PATH`` as JSON lines. What an earlier run wrote after step ``first``, which is done again, is taken out."""

    def __init__(self, path: Path, first: int, tell: Callable[[Report], None], *, leader: bool) -> None:
        self._path, self._tell, self._leader = path, tell, leader
        if leader:
            kept = [json.dumps(record) for record in read_log(path) if record["step"] <= first]
            write_whole(path, "".join(f"{line}\n" for line in kept))

    def write(self, report: Report) -> None:
        """Add a line, and tell."""
        if self._leader:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(report.as_dict()) + "\n")
            self._tell(report)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a line that was cut off is left out."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records


class Watch:
    """Stops a run whose loss is not a number any more, or explodes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=100)

    def look(self, loss: float, step: int, places: Callable[[int], list[str]]) -> None:
        """Raises ``Gpt4VideoError`` with the step, counted from 1, and its samples; nothing was updated by them."""
        wrong = "" if math.isfinite(loss) else f"the loss is {loss}"
        if not wrong and len(self._recent) >= 10:
            usual = statistics.median(self._recent)
            if loss > EXPLODED * usual and loss > 2 * statistics.median(self._first):
                wrong = f"the loss is {loss:.4g}, lately it was {usual:.4g}"
        if wrong:
            of = places(step)
            samples = f", in {', '.join(of[:8])}{f' and {len(of) - 8} more' if len(of) > 8 else ''}" if of else ""
            raise Gpt4VideoError(
                f"{self._name}: {wrong} at step {step + 1}{samples}",
                hint="a lower learning rate may help; the last checkpoint is from before it",
            )
        if len(self._first) < 10:
            self._first.append(loss)
        self._recent.append(loss)
