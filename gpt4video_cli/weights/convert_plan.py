"""What an import will write, made and checked from names and shapes alone, before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.convert_source import Checkpoint

Change = Callable[[Tensor], Tensor]
"""From a tensor of the checkpoint to ours. Views and reshapes only, so that it works on the meta device too."""


def same(tensor: Tensor) -> Tensor:
    """No change."""
    return tensor


@dataclass(frozen=True)
class Wanted:
    """A tensor of ours: its name and shape, and which tensor of the checkpoint becomes it, by what change."""

    name: str
    shape: tuple[int, ...]
    source: str
    change: Change = same


@dataclass(frozen=True)
class Planned:
    """A tensor that will be written. ``dtype`` is that of the file to be."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    source: str
    change: Change

    @property
    def size(self) -> int:
        """In bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class WeightsFile:
    """``stem.safetensors`` inside the folder that is written, or with ``sharded`` as many shards as it takes."""

    stem: str
    tensors: Sequence[Planned]
    metadata: Mapping[str, str] = field(default_factory=lambda: {"format": "pt"})
    sharded: bool = True

    @property
    def size(self) -> int:
        """In bytes, without the header."""
        return sum(tensor.size for tensor in self.tensors)


@dataclass(frozen=True)
class Plan:
    """All that an import writes. Paths are relative to what it makes: a model folder, or one part of it."""

    weights: Sequence[WeightsFile]
    texts: Mapping[str, str]
    copies: Mapping[str, Path] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a person should know of it."""

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(file.size for file in self.weights)


def plan_tensors(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Iterable[Wanted]],
    *,
    stored: Mapping[str, tuple[int, ...]] | None = None,
    left_out: str = r"(?!)",
    dtype: torch.dtype | None = None,
) -> dict[str, list[Planned]]:
    """For each key of ``wanted`` the tensors to write, in the order in which the checkpoint is best read.

    Every tensor of the checkpoint must be wanted somewhere or match ``left_out`` (searched in its name), and have the
    shape that ``stored`` gives for it, or that of the wanted one. Floating tensors become ``dtype`` if one is given.
    Raises ``WeightsError`` that names the first tensor of the checkpoint that is missing, unexpected or mis-shaped.
    """
    places = {key: list(tensors) for key, tensors in wanted.items()}
    known = {tensor.source for tensors in places.values() for tensor in tensors}
    entries = checkpoint.entries
    problems = [f"tensor {name} is missing" for name in sorted(known - entries.keys(), key=_in_layers)]
    leave = re.compile(left_out)
    problems += [f"tensor {name} is unexpected" for name in entries if name not in known and not leave.search(name)]
    order = {name: number for number, name in enumerate(entries)}
    planned: dict[str, list[Planned]] = {}
    for key, tensors in places.items():
        present = sorted((tensor for tensor in tensors if tensor.source in entries), key=lambda t: order[t.source])
        problems += [problem for tensor in present if (problem := _misshaped(checkpoint, tensor, stored))]
        planned[key] = [_planned(checkpoint, tensor, dtype) for tensor in present]
    problems = list(dict.fromkeys(problems))  # one tensor may become several
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{checkpoint.place}: {problems[0]}{more}",
            hint="config.json and weights must belong together, and be of the format that was named",
        )
    return planned


def _planned(checkpoint: Checkpoint, tensor: Wanted, dtype: torch.dtype | None) -> Planned:
    stored = checkpoint.entries[tensor.source].dtype
    written = dtype if dtype is not None and stored.is_floating_point else stored
    return Planned(tensor.name, tensor.shape, written, tensor.source, tensor.change)


def _misshaped(checkpoint: Checkpoint, tensor: Wanted, stored: Mapping[str, tuple[int, ...]] | None) -> str | None:
    entry = checkpoint.entries[tensor.source]
    expected = stored[tensor.source] if stored else tensor.shape
    if (stored or tensor.change is same) and entry.shape != expected:
        return f"tensor {tensor.source} has shape {list(entry.shape)}, expected {list(expected)}"
    try:
        found = tuple(tensor.change(torch.empty(entry.shape, dtype=entry.dtype, device="meta")).shape)
    except (RuntimeError, IndexError):  # a view that its shape does not allow
        found = None
    if found == tensor.shape:
        return None
    return (
        f"tensor {tensor.source} has shape {list(entry.shape)}, which cannot become {tensor.name} {list(tensor.shape)}"
    )


def common_dtype(tensors: Iterable[Planned]) -> str | None:
    """``bfloat16`` or the like, if all floating tensors have the same dtype: what a ``config.json`` calls ``dtype``."""
    found = {tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point}
    return str(found.pop()).removeprefix("torch.") if len(found) == 1 else None


def _in_layers(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
