"""The processes that train together, and what they must agree on. accelerate finds and connects them.

Started by itself a run is one process; under ``torchrun``, ``accelerate launch`` or ``srun`` with their environment
variables it is one of several. Each then has the whole model and DistributedDataParallel adds gradients up, or with
``shard`` each holds a piece of every weight (FSDP, arXiv 2304.11277, as ``fully_shard`` of PyTorch does it; asked for
here and not through accelerate, which has it for GPUs only, where no test could run it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gpt4video_cli.errors import UsageError


class Cluster(Protocol):
    """``processes`` of which this is number ``rank``, computing on ``device``."""

    rank: int
    processes: int
    device: torch.device

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sums of ``values`` over all processes, each as precise as a float64."""
        ...

    def gathered(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        ...

    @contextmanager
    def adding_up(self, module: nn.Module | None, *, last: bool) -> Iterator[None]:
        """Around a backward pass: gradients are added up over the processes in the ``last`` of a step alone."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``."""
        ...

    def wait(self) -> None:
        """Until all processes are here."""
        ...


class Alone:
    """One process."""

    rank = 0
    processes = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def totals(self, values: Sequence[float]) -> list[float]:
        """See ``Cluster``."""
        return [float(value) for value in values]

    def gathered(self, value: Any) -> list[Any]:
        """See ``Cluster``."""
        return [value]

    @contextmanager
    def adding_up(self, module: nn.Module | None, *, last: bool) -> Iterator[None]:
        """See ``Cluster``."""
        yield

    def backward(self, loss: Tensor) -> None:
        """See ``Cluster``."""
        loss.backward()

    def wait(self) -> None:
        """See ``Cluster``."""


class Accelerated:
    """What accelerate made of the environment: several processes, or one."""

    def __init__(self, device: str = "auto") -> None:
        self._sharded = False
        if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            raise UsageError("DeepSpeed is not supported", hint="--shard cuts weights in pieces as its stage 3 does")
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=device == "cpu")
        self.rank = int(self._accelerator.process_index)
        self.processes = int(self._accelerator.num_processes)
        self.device: torch.device = self._accelerator.device
        if self.processes == 1 and device not in ("auto", "cpu"):
            from gpt4video_cli.model.strict_load import choose_device

            self.device = choose_device(device)

    def totals(self, values: Sequence[float]) -> list[float]:
        """See ``Cluster``."""
        if self.processes == 1:
            return [float(value) for value in values]
        kind = torch.float64 if self.device.type != "mps" else torch.float32
        summed = self._accelerator.reduce(torch.tensor(values, dtype=kind, device=self.device), reduction="sum")
        return [float(value) for value in summed]

    def gathered(self, value: Any) -> list[Any]:
        """See ``Cluster``."""
        if self.processes == 1:
            return [value]
        found: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def adding_up(self, module: nn.Module | None, *, last: bool) -> Iterator[None]:
        """See ``Cluster``."""
        if self.processes == 1 or module is None:
            yield
        elif self._sharded:
            module.set_requires_gradient_sync(last)  # type: ignore[operator]
            yield
        elif last:
            yield
        else:
            with self._accelerator.no_sync(module):
                yield

    def backward(self, loss: Tensor) -> None:
        """See ``Cluster``."""
        self._accelerator.backward(loss)

    def wait(self) -> None:
        """See ``Cluster``."""
        self._accelerator.wait_for_everyone()

    def wrap(self, module: nn.Module, *, shard: bool = False, units: Sequence[nn.Module] = ()) -> nn.Module:
        """``module`` on this process's device; with several processes its gradients are those of all.

        ``shard``: cut every weight in pieces over the processes; ``units`` are the parts of ``module`` that are put
        together one at a time.
        """
        module = module.to(self.device)
        if self.processes == 1:
            return module
        if shard:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.processes,))
            for unit in [*units, module]:
                fully_shard(unit, mesh=mesh)
            self._sharded = True
            return module
        wrapped: nn.Module = self._accelerator.prepare_model(module)
        return wrapped


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that FSDP has cut in pieces over the processes; every process must ask. Else ``tensor``."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(target: Tensor, value: Tensor) -> Tensor:
    """``value``, whole, on the device of ``target`` and cut as that is."""
    value = value.to(target.device)
    if not hasattr(target, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, target.device_mesh, target.placements)  # type: ignore[attr-defined]


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """``PREFIX/NAME`` -> the whole tensor."""
    return {f"{prefix}/{name}": whole(tensor) for name, tensor in tensors.items()}
