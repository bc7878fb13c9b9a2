"""A part of a recipe, as a function from a step to its loss, run by the loop of ``training/``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gpt4video_cli.training.loop import Batch, LoopOptions, run_task
from gpt4video_cli.training.report import Report


class Closure:
    """A task that is one function of the step: its loss, as a mean."""

    module: nn.Module | None = None

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], loss_of: Callable[[int], Tensor]) -> None:
        self._parameters, self._loss_of = dict(parameters), loss_of

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """See ``Task``."""
        return self._parameters.items()

    def batches(self, step: int) -> Sequence[Batch]:
        """See ``Task``."""
        return [Batch(step)]

    def loss(self, content: Any) -> Tensor:
        """See ``Task``."""
        return self._loss_of(content)

    def places(self, step: int) -> list[str]:
        """See ``Task``."""
        return []

    def evaluate(self, step: int) -> float | None:
        """See ``Task``."""
        return None


def train_loop(
    parameters: Iterable[tuple[str, nn.Parameter]],
    loss_of: Callable[[int], Tensor],
    options: LoopOptions,
    *,
    folder: Path,
    name: str,
) -> None:
    """``run_task`` for one function of the step, which must draw its batch from the step alone; says on stderr how it
    goes."""

    def tell(report: Report) -> None:
        say(f"{name} {report.step}/{report.steps} loss {report.loss:.4f} {report.seconds:.0f} s")

    run_task(Closure(parameters, loss_of), options, folder=folder, name=name, tell=tell, notice=say)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
