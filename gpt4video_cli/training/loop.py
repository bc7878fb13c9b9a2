"""One small training loop for every stage: AdamW or Muon, warm-up and cosine, clipping, a log, checkpoints.

What is trained on what is a ``Task``; how the processes of a run agree is a ``Cluster``.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.training.checkpoint_store import (
    CheckpointStore,
    at_rank,
    differences,
    optimiser_state,
    random_state,
    set_optimiser_state,
    set_random_state,
)
from gpt4video_cli.training.cluster import Alone, Cluster, like, named, whole
from gpt4video_cli.training.report import Log, Meter, Report, Watch


@dataclass(frozen=True)
class LoopOptions:
    """``learning_rate`` is the peak; ``steps`` optimiser steps in all; ``save_every`` in seconds."""

    steps: int
    learning_rate: float
    warm_up: int = 100
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    floor: float = 0.05
    """The learning rate at the end, as a fraction of the peak."""
    log_every: int = 25
    save_every: float = 180.0
    keep: int = 2
    """Newest checkpoints that stay; the best stays too."""
    evaluate_every: int = 0
    """Steps between evaluations; there is one at the end too. 0: none."""
    average: float = 0.0
    """Decay of a moving average of the parameters, which take its values at the end; 0: no average."""
    muon_rate: float = 0.0
    """Peak learning rate of Muon (arXiv 2502.16982) for matrices; 0: AdamW for all."""
    not_muon: tuple[str, ...] = ("embedding", "embed_tokens", "shared", "lm_head", "proj_out", "bias")
    """Matrices whose names hold one of these stay with AdamW: tables, and what makes the output."""

    def deciding(self) -> dict[str, Any]:
        """Those options on which the trained weights depend."""
        free = ("log_every", "save_every", "keep", "evaluate_every")
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True, eq=False)
class Batch:
    """What goes through the model at once. ``weight``: what its loss is a sum over, such as tokens to be learned."""

    content: Any
    weight: float = 1.0
    samples: int = 0
    tokens: int = 0


class Task(Protocol):
    """What a loop trains. Batches must depend on the step alone, so that a resumed run sees the same ones."""

    module: nn.Module | None
    """What adds up gradients over processes, if anything has to."""

    def parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All that changes, by name."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """This process's share of a step."""
        ...

    def loss(self, content: Any) -> Tensor:
        """Of a batch, summed over its weight."""
        ...

    def places(self, step: int) -> list[str]:
        """The samples of a step, for messages."""
        ...

    def evaluate(self, step: int) -> float | None:
        """A loss that tells which checkpoint is best, after ``step`` steps. Called in every process."""
        ...


def learning_rate(step: int, options: LoopOptions) -> float:
    """Linear warm-up, then a cosine down to ``floor`` of the peak."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.learning_rate * (
        options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    )


def run_task(
    task: Task,
    options: LoopOptions,
    *,
    folder: Path,
    name: str,
    tell: Callable[[Report], None],
    notice: Callable[[str], None],
    cluster: Cluster | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Every step of ``task``, each an update of its parameters.

    Goes on from the newest checkpoint in ``folder/checkpoints/name``, if there is one; what ``identity`` and the
    options say must be what they said then. What is drawn from torch's own generator (dropout) is continued too, so
    that a resumed run ends bit by bit where an uninterrupted one does. SIGINT and SIGTERM save first and end with
    ``KeyboardInterrupt``. A loss that is not finite, or explodes, is an error with its step and samples. The log goes
    to ``folder/name.jsonl``.
    """
    cluster = cluster or Alone()
    store = CheckpointStore(folder / "checkpoints" / name, keep=options.keep, tell=notice)
    run = _Run(task, options, store, cluster, {**options.deciding(), **(identity or {})})
    first = run.resume()
    log = Log(folder / f"{name}.jsonl", first, tell, leader=cluster.rank == 0)
    meter, watch = Meter(options.steps, first), Watch(name)
    saved = time.monotonic()
    with _told_to_stop() as stop:
        for step in range(first, options.steps):
            batches = task.batches(step)
            weight, stopping = cluster.totals([sum(batch.weight for batch in batches), stop.is_set()])
            loss = run.gradients(batches, weight)
            loss, *counts = cluster.totals([loss, sum(b.samples for b in batches), sum(b.tokens for b in batches)])
            watch.look(loss, step, task.places)
            rate, length = run.update(step)
            meter.add(loss, counts)
            done, last = step + 1, step + 1 == options.steps
            due = bool(options.evaluate_every) and (last or done % options.evaluate_every == 0)
            evaluation = task.evaluate(done) if due else None
            if done % options.log_every == 0 or last or due:
                log.write(meter.report(done, rate, length, evaluation))
            # One process decides for all: their clocks differ.
            (overdue,) = cluster.totals([cluster.rank == 0 and time.monotonic() - saved > options.save_every])
            if overdue or stopping or last or evaluation is not None:
                run.save(done, evaluation)
                saved = time.monotonic()
            if stopping and not last:
                raise KeyboardInterrupt
    run.take_averages()


def _optimisers(trained: Mapping[str, nn.Parameter], options: LoopOptions) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon where ``options`` asks for it; the ``rate_scale`` of a group is of the loop's learning rate."""
    with_muon: list[nn.Parameter] = []
    if options.muon_rate:
        skipped = options.not_muon
        with_muon = [p for name, p in trained.items() if p.ndim == 2 and not any(s in name for s in skipped)]
    chosen = {id(p) for p in with_muon}
    rest = [p for p in trained.values() if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": options.weight_decay, "rate_scale": 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "rate_scale": 1.0},
    ]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, foreach=True)
    ]
    if with_muon:
        scaled = {"params": with_muon, "rate_scale": options.muon_rate / options.learning_rate}
        made.append(torch.optim.Muon([scaled], weight_decay=options.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return made


class _Run:
    """Parameters, optimiser and averages of a run, and how they are saved."""

    def __init__(
        self, task: Task, options: LoopOptions, store: CheckpointStore, cluster: Cluster, identity: Mapping[str, Any]
    ) -> None:
        self._task, self._options, self._store, self._cluster = task, options, store, cluster
        self._identity = json.loads(json.dumps({**identity, "processes": cluster.processes}))
        trained = dict(task.parameters())
        self._trained = trained
        self._optimisers = _optimisers(trained, options)
        self._averages = {key: p.detach().clone() for key, p in trained.items()} if options.average else {}
        self._names: dict[Tensor, str] = {p: key for key, p in trained.items()}
        self._best = math.inf

    def resume(self) -> int:
        """Take over the newest checkpoint; the step to go on with. Raises for one that was made with other options."""
        found = self._store.latest()
        if found is None:
            return 0
        if changed := differences(found.values["options"], self._identity):
            raise Gpt4VideoError(
                f"{found.folder}: made with other options ({'; '.join(changed)})",
                hint="delete it or use another folder",
            )
        with torch.no_grad():
            for key, parameter in self._trained.items():
                parameter.copy_(like(parameter, found.tensors[f"parameters/{key}"]))
            for key, average in self._averages.items():
                average.copy_(like(average, found.tensors[f"averages/{key}"]))
        for optimiser in self._optimisers:
            set_optimiser_state(optimiser, self._names, found.tensors)
        set_random_state(found.tensors, rank=self._cluster.rank)
        self._best = found.values.get("best") or math.inf
        return found.step

    def save(self, step: int, evaluation: float | None) -> None:
        """All that ``resume`` needs, after ``step`` steps. Called in every process; the first one writes."""
        better = evaluation is not None and evaluation < self._best
        if better and evaluation is not None:
            self._best = evaluation
        state = {**named(self._trained, "parameters"), **named(self._averages, "averages")}
        for optimiser in self._optimisers:
            state |= {key: whole(value) for key, value in optimiser_state(optimiser, self._names).items()}
        for rank, random in enumerate(self._cluster.gathered(random_state())):
            state |= {at_rank(key, rank): value for key, value in random.items()}
        if self._cluster.rank == 0:
            best = None if math.isinf(self._best) else self._best
            self._store.save(step, state, {"options": self._identity, "best": best})
            if better:
                self._store.mark_best(step)
        self._cluster.wait()

    def gradients(self, batches: Sequence[Batch], weight: float) -> float:
        """Add the gradients of this process's batches; its part of the mean loss over ``weight``."""
        parts = []
        for number, batch in enumerate(batches, start=1):
            with self._cluster.adding_up(self._task.module, last=number == len(batches)):
                loss = self._task.loss(batch.content)
                # Gradients of several processes are averaged, so that each process counts for all.
                self._cluster.backward(loss * (self._cluster.processes / max(weight, 1.0)))
            parts.append(loss.detach())
        return float(sum(parts)) / max(weight, 1.0)

    def update(self, step: int) -> tuple[float, float]:
        """One step of the optimiser with the gradients that are there: learning rate, length of the gradient."""
        rate = learning_rate(step, self._options)
        length = torch.nn.utils.clip_grad_norm_(self._trained.values(), self._options.clip)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["rate_scale"]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self._averages:
            # Short at first, so that the start is soon forgotten.
            weight = 1 - min(self._options.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self._averages.values()), [p.detach() for p in self._trained.values()], weight)
        return rate, float(whole(length))

    def take_averages(self) -> None:
        """Let the parameters be their averages, if any are kept."""
        with torch.no_grad():
            for key, average in self._averages.items():
                self._trained[key].copy_(average)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM, so that the step that is going on can end; a second one breaks off at once."""
    told = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
