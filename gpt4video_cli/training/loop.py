"""One small training loop for every stage: AdamW, warm-up and cosine, clipping, a log, checkpoints to resume from."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt4video_cli.errors import Gpt4VideoError


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
    """Run ``loss_of(step)`` for every step and update ``parameters``; resume from ``folder/name.pt`` if it is there.

    ``loss_of`` must draw its batch from ``step`` alone (so that a resumed run sees the data that an uninterrupted one
    would see). The log goes to ``folder/name.jsonl`` and to stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = dict(parameters)
    decayed = [p for p in trained.values() if p.ndim >= 2]
    others = [p for p in trained.values() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, foreach=True)
    averages = {key: p.detach().clone() for key, p in trained.items()} if options.average else {}
    checkpoint = folder / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["options"] != json.dumps(asdict(options)):
            raise Gpt4VideoError(f"{checkpoint}: made with other options", hint="delete it or use another folder")
        with torch.no_grad():
            for key, parameter in trained.items():
                parameter.copy_(state["parameters"][key])
            for key, average in averages.items():
                average.copy_(state["averages"][key])
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])

    def save(step: int) -> None:
        state = {
            "step": step,
            "options": json.dumps(asdict(options)),
            "parameters": {key: p.detach() for key, p in trained.items()},
            "averages": averages,
            "optimiser": optimiser.state_dict(),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, checkpoint)

    started = saved = time.monotonic()
    running: list[float] = []
    with open(folder / f"{name}.jsonl", "a", encoding="utf-8") as log:
        for step in range(first, options.steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, options)
            loss = loss_of(step)
            if not torch.isfinite(loss):
                raise Gpt4VideoError(f"{name}: the loss is {loss.item()} at step {step}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), options.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if averages:
                # Short at first, so that the start is soon forgotten.
                weight = 1 - min(options.average, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(averages.values()), [p.detach() for p in trained.values()], weight)
            running.append(loss.item())
            if (step + 1) % options.log_every == 0 or step + 1 == options.steps:
                mean = sum(running) / len(running)
                running.clear()
                seconds = time.monotonic() - started
                record = {"step": step + 1, "loss": round(mean, 4), "seconds": round(seconds, 1)}
                log.write(json.dumps(record) + "\n")
                log.flush()
                print(f"{name} {step + 1}/{options.steps} loss {mean:.4f} {seconds:.0f} s", file=sys.stderr, flush=True)
            if time.monotonic() - saved > options.save_every:
                save(step + 1)
                saved = time.monotonic()
    save(options.steps)
    with torch.no_grad():
        for key, average in averages.items():
            trained[key].copy_(average)
