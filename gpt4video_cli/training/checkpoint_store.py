"""Checkpoints of a training run: each a folder that appears whole, in safetensors and JSON, of which the last few stay.

    checkpoints/step-00000500/tensors.safetensors    parameters, optimiser state, averages, random states
                             /state.json             format, step, and other values as plain JSON

``state.json`` holds the SHA-256 of the tensors' file. A checkpoint that is cut off or changed is passed over, said, and
the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.errors import Gpt4VideoError, InputError
from gpt4video_cli.training.cluster import like
from gpt4video_cli.whole_file import write_whole

FORMAT = "gpt4video checkpoint"
VERSION = 1
TENSORS, STATE = "tensors.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after ``step`` optimiser steps. ``values`` is plain JSON."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    folder: Path


class CheckpointStore:
    """The checkpoints of one run in ``folder``. ``keep`` newest stay, and the best if one was called so."""

    def __init__(self, folder: Path, *, keep: int = 2, tell: Callable[[str], None] = lambda _: None) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least one checkpoint must stay")
        self.folder = folder
        self._keep = keep
        self._tell = tell

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Path:
        """Write a checkpoint whole; afterwards the old ones that are not needed go."""
        from safetensors.torch import save_file

        target = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".{target.name}.{os.getpid()}.part"
        try:
            temporary.mkdir(parents=True)
            # Tensors that share memory are one file's business: each is written as a copy of its own.
            save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary / TENSORS)
            digest = _digest(temporary / TENSORS)
            state = {"format": FORMAT, "version": VERSION, "step": step, "sha256": digest, "values": dict(values)}
            (temporary / STATE).write_text(json.dumps(state, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            for name in (TENSORS, STATE):
                _flush(temporary / name)
            if target.exists():  # the same step again, after resuming from the one before it
                shutil.rmtree(target)
            os.replace(temporary, target)
            _flush(self.folder)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise Gpt4VideoError(
                f"{target}: the checkpoint cannot be written: {reason}", hint="the one before it is still there"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self.steps()[: -self._keep]:
            if old != self.best():
                shutil.rmtree(self._path(old), ignore_errors=True)
        return target

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def mark_best(self, step: int) -> None:
        """Let the checkpoint of ``step`` stay, whatever comes later; the best so far loses that."""
        write_whole(self.folder / "best", f"{step}\n")

    def best(self) -> int | None:
        """The step that ``mark_best`` named."""
        try:
            return int((self.folder / "best").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; each newer one that is not is told."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except InputError as error:
                self._tell(f"{error}; the checkpoint before it is used")
        return None

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of ``step``. Raises ``InputError`` for one that is cut off, changed or of another version."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = self._path(step)
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: not a whole checkpoint ({STATE} cannot be read)") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise InputError(f"{folder}: not a checkpoint")
        if state.get("version") != VERSION:
            raise InputError(f"{folder}: checkpoint version {state.get('version')!r}; this program reads {VERSION}")
        try:
            if _digest(folder / TENSORS) != state.get("sha256"):
                raise InputError(f"{folder}: not a whole checkpoint ({TENSORS} was cut off or changed)")
            return Checkpoint(int(state["step"]), load_file(folder / TENSORS), dict(state["values"]), folder)
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(f"{folder}: not a whole checkpoint ({TENSORS} cannot be read)") from error

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def random_state() -> dict[str, Tensor]:
    """States of torch's generators, on the CPU and on each GPU: what dropout draws from."""
    states = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"random/cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def at_rank(key: str, rank: int) -> str:
    """The name in a checkpoint of what ``random_state`` calls ``key``, in the process of that rank."""
    return f"{key}/process-{rank}" if rank else key


def set_random_state(tensors: Mapping[str, Tensor], *, rank: int = 0) -> None:
    """Undo what has been drawn since ``random_state``. GPUs that were not there are left alone."""
    torch.set_rng_state(tensors[at_rank("random/cpu", rank)])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if (state := tensors.get(at_rank(f"random/cuda:{index}", rank))) is not None:
                torch.cuda.set_rng_state(state, index)


def optimiser_state(optimiser: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """What the optimiser remembers of each parameter, as ``optimiser/NAME/KEY``."""
    return {
        f"optimiser/{names[parameter]}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def set_optimiser_state(
    optimiser: torch.optim.Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Give ``optimiser`` back what ``optimiser_state`` read of its parameters; others of ``names`` are left out."""
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    by_name = {name: parameter for parameter, name in names.items()}
    for place, value in tensors.items():
        kind, _, rest = place.partition("/")
        if kind == "optimiser":
            name, _, key = rest.rpartition("/")
            parameter = by_name[name]
            if id(parameter) not in held:
                continue
            optimiser.state[parameter][key] = like(parameter, value) if value.ndim else value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``NAME: OLD, now NEW`` for each value that differs."""
    return [
        f"{name}: {old.get(name)!r}, now {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
