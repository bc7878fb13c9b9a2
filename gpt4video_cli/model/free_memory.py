"""The devices of this machine and how much memory each has free now, what other programs hold left out."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from gpt4video_cli.errors import UsageError

RESERVE = {"cpu": 500_000_000, "cuda": 300_000_000, "mps": 300_000_000}
"""Bytes left alone: the libraries themselves (torch and transformers take 0.4 GB when imported), the workspaces of CUDA
kernels, and gaps between blocks."""

GPU_NODES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""Without one of these Linux has no GPU that torch calls CUDA: NVIDIA's driver, that of its boards (Jetson), AMD's
ROCm, and Windows' in WSL2. A look at them takes microseconds, torch a second or more to import."""


@dataclass(frozen=True)
class Device:
    """``name`` as torch spells it (``cpu``, ``cuda:1``); bytes ``free`` and ``total``."""

    name: str
    free: int
    total: int

    @property
    def kind(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        return self.name.partition(":")[0]

    @property
    def usable(self) -> int:
        """Bytes that a model may take."""
        return max(0, self.free - RESERVE[self.kind])


def main_memory() -> Device:
    """The CPU's memory: what the kernel calls available, less where a control group allows less."""
    fields: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0]) * 1024
        total, free = fields["MemTotal"], fields["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):  # not Linux: the kernel does not say what is free
        total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit, used in _group_limits():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Device("cpu", free, total)


def _group_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(limit, used) in bytes of this process's control groups and those above; empty where there are none.

    Cached files count as free, as the kernel gives them back when memory is short.
    """
    found: list[tuple[int, int]] = []
    try:
        paths = [line.split(":", 2)[2] for line in own.read_text().splitlines() if line.startswith("0::")]
    except (OSError, IndexError):
        return []
    for path in paths:
        folder = root / path.strip().lstrip("/")
        for group in (folder, *folder.parents):
            try:
                limit = (group / "memory.max").read_text().strip()
                used = int((group / "memory.current").read_text())
                lines = (group / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):
                continue
            cached = sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))
            if limit != "max":
                found.append((int(limit), max(0, used - cached)))
            if group == root:
                break
    return found


def cuda_possible() -> bool:
    """Whether torch, which is not imported for that, could find a CUDA (or ROCm) GPU here."""
    if sys.platform == "darwin":
        return False
    return sys.platform != "linux" or any(os.path.exists(node) for node in GPU_NODES)


def find_devices(wanted: str) -> list[Device]:
    """The devices that ``wanted`` allows: ``auto`` (every CUDA GPU, else the CPU), ``cpu``, ``cuda`` (every one),
    ``cuda:N``, ``mps``. ``UsageError`` for one that is not there. torch is asked only where there may be a GPU."""
    if wanted == "cpu" or (wanted == "auto" and not cuda_possible()):
        return [main_memory()]
    import torch

    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("device 'mps' cannot be used: this torch finds none")
        total = int(torch.mps.recommended_max_memory())
        return [Device("mps", total - int(torch.mps.driver_allocated_memory()), total)]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto" and count == 0:
        return [main_memory()]
    if count == 0:
        raise UsageError(f"device {wanted!r} cannot be used: torch finds no CUDA GPU", hint="use --device cpu")
    numbers = range(count) if wanted in ("auto", "cuda") else [int(wanted.partition(":")[2])]
    if max(numbers) >= count:
        raise UsageError(f"device {wanted!r} cannot be used: there are cuda:0 to cuda:{count - 1}")
    found = []
    for number in numbers:
        try:
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError as error:  # a GPU that is full, or in exclusive use, cannot even be asked
            if len(numbers) == 1:
                first = str(error).splitlines()[0]
                raise UsageError(f"device cuda:{number} cannot be used: {first}") from error
            continue
        found.append(Device(f"cuda:{number}", free, total))
    if not found:
        raise UsageError(f"device {wanted!r} cannot be used: no GPU answers", hint="use --device cpu")
    return found
