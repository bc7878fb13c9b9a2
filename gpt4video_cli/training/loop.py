"""One small training loop for every stage: AdamW, warm-up and cosine, clipping, a log, checkpoints to resume from."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.training.checkpoint_store import (
    CheckpointStore,
    differences,
    optimiser_state,
    random_state,
    set_optimiser_state,
    set_random_state,
)


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
    average: float = 0.0
    """Decay of a moving average of the parameters, which take its values at the end; 0: no average."""


def learning_rate(step: int, options: LoopOptions) -> float:
    """Linear warm-up, then a cosine down to ``floor`` of the peak."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.learning_rate * (
        options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    )


def train_loop(
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    loss_of: Callable[[int], Tensor],
    options: LoopOptions,
    *,
    folder: Path,
    name: str,
) -> None:
    """Run ``loss_of(step)`` for every step and update ``parameters``.

    Goes on from the newest checkpoint in ``folder/checkpoints/name``, if there is one. ``loss_of`` must draw its batch
    from ``step`` alone; what it draws from torch's own generator (dropout) is continued too, so that a resumed run ends
    bit by bit where an uninterrupted one does. SIGINT and SIGTERM save first and end with ``KeyboardInterrupt``. The
    log goes to ``folder/name.jsonl`` and to stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(dict(parameters), options, CheckpointStore(folder / "checkpoints" / name, keep=2, tell=_say))
    first = run.resume()
    started = saved = time.monotonic()
    running: list[float] = []
    with open(folder / f"{name}.jsonl", "a", encoding="utf-8") as log, _told_to_stop() as stop:
        for step in range(first, options.steps):
            loss = loss_of(step)
            if not torch.isfinite(loss):
                raise Gpt4VideoError(f"{name}: the loss is {loss.item()} at step {step}")
            loss.backward()
            run.update(step)
            running.append(loss.item())
            if (step + 1) % options.log_every == 0 or step + 1 == options.steps:
                mean = sum(running) / len(running)
                running.clear()
                seconds = time.monotonic() - started
                record = {"step": step + 1, "loss": round(mean, 4), "seconds": round(seconds, 1)}
                log.write(json.dumps(record) + "\n")
                log.flush()
                _say(f"{name} {step + 1}/{options.steps} loss {mean:.4f} {seconds:.0f} s")
            if time.monotonic() - saved > options.save_every or stop.is_set():
                run.save(step + 1)
                saved = time.monotonic()
            if stop.is_set():
                raise KeyboardInterrupt
    if first < options.steps:
        run.save(options.steps)
    run.take_averages()


class _Run:
    """Parameters, optimiser and averages of a run, and how they are saved."""

    def __init__(self, trained: dict[str, torch.nn.Parameter], options: LoopOptions, store: CheckpointStore) -> None:
        self._trained, self._options, self._store = trained, options, store
        decayed = [p for p in trained.values() if p.ndim >= 2]
        others = [p for p in trained.values() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, foreach=True)
        self._averages = {key: p.detach().clone() for key, p in trained.items()} if options.average else {}
        self._names: dict[Tensor, str] = {p: key for key, p in trained.items()}

    def resume(self) -> int:
        """Take over the newest checkpoint; the step to go on with. Raises for one that was made with other options."""
        found = self._store.latest()
        if found is None:
            return 0
        now = json.loads(json.dumps(asdict(self._options)))
        if changed := differences(found.values["options"], now):
            raise Gpt4VideoError(
                f"{found.folder}: made with other options ({'; '.join(changed)})",
                hint="delete it or use another folder",
            )
        with torch.no_grad():
            for key, parameter in self._trained.items():
                parameter.copy_(found.tensors[f"parameters/{key}"])
            for key, average in self._averages.items():
                average.copy_(found.tensors[f"averages/{key}"])
        set_optimiser_state(self._optimiser, self._names, found.tensors)
        set_random_state(found.tensors)
        return found.step

    def save(self, step: int) -> None:
        """All that ``resume`` needs, after ``step`` steps."""
        tensors = {f"parameters/{key}": p for key, p in self._trained.items()}
        averages = {f"averages/{key}": average for key, average in self._averages.items()}
        state = {**tensors, **averages, **optimiser_state(self._optimiser, self._names), **random_state()}
        self._store.save(step, state, {"options": asdict(self._options)})

    def update(self, step: int) -> None:
        """One step of the optimiser with the gradients that are there."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(step, self._options)
        torch.nn.utils.clip_grad_norm_(self._trained.values(), self._options.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._averages:
            # Short at first, so that the start is soon forgotten.
            weight = 1 - min(self._options.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self._averages.values()), [p.detach() for p in self._trained.values()], weight)

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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
