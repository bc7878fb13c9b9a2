"""How much memory a training step takes, found by running one on tensors that have shapes but no content.

Every tensor that the step makes, forward, backward and in the optimiser, is counted while it lives. What that leaves
out is what PyTorch does not show: the program itself, workspaces of its kernels, and gaps between blocks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations make: ``live`` now, ``peak`` so far."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        """Add the storage of ``tensor`` until it is freed, if it is not counted yet."""
        storage = tensor.untyped_storage()
        key = id(storage)
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self._known[key] = weakref.ref(storage, self._freed(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, key: int, size: int) -> Callable[[Any], None]:
        def forget(reference: Any) -> None:
            self.live -= size
            if self._known.get(key) is reference:
                del self._known[key]

        return forget


def without_content(module: nn.Module, device: str = "cpu") -> None:
    """Give a module on the meta device parameters and buffers of the same shapes on ``device``; under a fake mode they
    take no memory."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                part._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
