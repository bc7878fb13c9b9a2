"""What all benchmarks share: turns that are timed, ratios with their spread, the JSON line that ``make bench`` reads.

    report = Report("abstractor", quick=options.quick)
    times = take_turns({"ours": ours, "plain": plain, "SDPA": sdpa}, rounds=7)   # after checking that they are equal
    report.times("T=32, float32", times, ours="ours")     # a row for each way, a ratio of each other way to ours
    report.row("T=32, float32", "ours", megabytes=12.5)   # any other figure, beside the times of that row
    report.note("plain is the form of equations (2) and (3), a layer at a time")
    report.skip("CUDA", "no GPU here")
    report.finish()                                       # the table, then one line of JSON, the last of stdout

A ratio is theirs to ours, taken in each round and then the median: above 1 ours is faster, below 1 the peer wins. Where
processes or rates are measured and not functions, make ``Times`` of the seconds of each round, or call ``ratio``.
Commands that measure take ``--quick``, a size for tests and tight budgets that takes a few seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 1
"""Of the line of JSON."""
PACKAGES = (
    "gpt4video",
    "numpy",
    "torch",
    "triton",
    "transformers",
    "diffusers",
    "peft",
    "av",
    "decord",
    "opencv-python-headless",
    "opencv-python",
    "llama-cpp-python",
    "ray",
)
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
_CLOCKS = ("cpu", "wall")


@dataclass(frozen=True)
class Times:
    """Seconds of each round: ``wall`` on the clock, ``cpu`` of this process with all its threads (empty: unknown)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...] = ()


def take_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm: int = 1,
    synchronise: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Time each way once a round, so that what else the machine does hits all alike; each round starts with another.

    ``warm``: rounds before the first that counts. ``synchronise``: waits for the device (``torch.cuda.synchronize``).
    """
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(warm + rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            began, used = time.perf_counter(), time.process_time()
            ways[name]()
            if synchronise is not None:
                synchronise()
            if number >= warm:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - used)
    return {name: Times(tuple(wall[name]), tuple(cpu[name])) for name in names}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the most, to four figures; and of how many."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()} | {"rounds": len(values)}


class Report:
    """What one run of a benchmark found. ``name`` is its module's, ``quick`` says that sizes were cut."""

    def __init__(self, name: str, *, quick: bool = False) -> None:
        self.name = name
        self.quick = quick
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._ratios: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._skipped: list[dict[str, str]] = []

    def row(self, case: str, way: str, **figures: Any) -> None:
        """Add figures to the row of ``way`` in ``case``: numbers, text or a ``spread``, named with their unit."""
        self._rows.setdefault((case, way), {}).update(figures)

    def times(self, case: str, times: Mapping[str, Times], *, ours: str, clock: str = "wall") -> None:
        """A row for each way, and the ratio of each other way to ``ours`` by ``clock``, "wall" or "cpu"."""
        for way, found in times.items():
            seconds = {f"{name} s": spread(values) for name in _CLOCKS if (values := getattr(found, name))}
            self.row(case, way, **seconds)
        for way, found in times.items():
            if way != ours:
                theirs, mine = getattr(found, clock), getattr(times[ours], clock)
                self.ratio(case, ours, way, [a / b for a, b in zip(theirs, mine, strict=True)], f"{clock} time")

    def ratio(self, case: str, ours: str, peer: str, ratios: Sequence[float], of: str = "wall time") -> None:
        """How many times better ``ours`` is than ``peer`` in ``of``, in each round."""
        self._ratios.append({"case": case, "ours": ours, "peer": peer, "of": of, **spread(ratios)})

    def note(self, text: str) -> None:
        """A sentence that a reader of the figures needs."""
        self._notes.append(text)

    def skip(self, what: str, why: str) -> None:
        """Something that this machine could not measure."""
        self._skipped.append({"what": what, "why": why})

    def as_dict(self) -> dict[str, Any]:
        """What the line of JSON says."""
        return {
            "version": VERSION,
            "name": self.name,
            "quick": self.quick,
            "results": [{"case": case, "way": way, **rest} for (case, way), rest in self._rows.items()],
            "ratios": self._ratios,
            "notes": self._notes,
            "skipped": self._skipped,
            "hardware": hardware(),
            "versions": versions(),
        }

    def finish(self) -> dict[str, Any]:
        """Print the tables and, as the last line, the JSON; what that says is returned too."""
        found = self.as_dict()
        print("\n".join(tables(found)) + "\n")
        print(json.dumps(found, ensure_ascii=False), flush=True)
        return found


def tables(found: Mapping[str, Any]) -> list[str]:
    """What a line of JSON says as lines of Markdown that can also be read in a terminal."""
    lines: list[str] = []
    ratios = [{**{name: row[name] for name in ("case", "of", "ours", "peer")}, "ratio": row} for row in found["ratios"]]
    for rows in (ratios, *_alike(found["results"])):
        if rows:
            lines += [*aligned(rows), ""]
    lines += [f"- {note}" for note in found["notes"]]
    lines += [f"- Not measured: {skipped['what']}: {skipped['why']}." for skipped in found["skipped"]]
    return lines


def _alike(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows with a figure in common together, each with all columns of its table."""
    found: list[tuple[dict[str, None], list[dict[str, Any]]]] = []
    for row in rows:
        kin = [group for group in found if len(group[0].keys() & row.keys()) > len(("case", "way"))]
        if not kin:
            found += (kin := [({}, [])])
        columns, alike = kin[0]
        columns.update(dict.fromkeys(row))
        alike.append(row)
    return [[{name: row.get(name, "") for name in columns} for row in alike] for columns, alike in found]


def aligned(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table of Markdown whose columns stand below each other; the first row names them."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        alone = value["rounds"] == 1
        return f"{value['median']:g}" + ("" if alone else f" ({value['least']:g} to {value['most']:g})")
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(shown.split()).replace("|", "\\|")


def hardware() -> dict[str, Any]:
    """The processor with its instructions that matter here, cores, memory and GPUs of this machine."""
    said: dict[str, str] = {}
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), value.strip())
    flags = said.get("flags", said.get("Features", "")).split()
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), 0)
    return {
        "processor": said.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "memory GB": round(memory * 1024 / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "GPUs": _gpus(),
    }


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text().splitlines()
    except OSError:  # no Linux
        return []


def versions() -> dict[str, str]:
    """Python's and those of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
