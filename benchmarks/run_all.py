"""Every benchmark in turn, each in a process of its own with a time limit, all within twenty minutes; then the page.

    python -m benchmarks.run_all [--only vision,frames] [--quick] [--minutes 19] [--output benchmarks]

``make bench`` runs this. The last line that a benchmark prints is its result (``benchmarks/report.py``). They are
written to results.json with the date, the commit and what was skipped and why, and RESULTS.md is made from that file
alone (``python -m benchmarks.results_page`` makes it again). The most telling come first: what no time is left for is
skipped. One that fails or hangs is noted and takes nothing from the others; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import hardware, versions
from benchmarks.results_page import VERSION, write_page
from gpt4video_cli.whole_file import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = "results.json"
_LEAST = 20.0
"""Seconds with which nothing is begun any more."""


@dataclass(frozen=True)
class Entry:
    """A benchmark: ``words`` after ``python -m benchmarks.NAME``, ``quick`` instead of them, its limit in seconds."""

    name: str
    words: str = ""
    quick: str = "--quick"
    limit: float = 150


ENTRIES = (
    Entry("abstractor", limit=200),
    Entry("frames", "--budget 3", limit=300),
    Entry("vision"),
    Entry("generation", limit=200),
    Entry("batch", "speed --clips 24 --loop 3 --rounds 2", "speed --clips 3 --loop 1 --rounds 1"),
    Entry("startup", "--rounds 3", "--rounds 1", 180),
    Entry("llama_speed", "--rounds 3", "--shape tiny --kinds q8_0 --rounds 1 --prompt 64 --answer 8", 90),
    Entry("training_speed", "trainer --size small --rounds 2", "trainer --size small --rounds 1"),
    Entry("engines", "--questions 20 --dialogues 2 --kinds f32,q8_0", "--questions 2 --dialogues 1 --kinds q8_0", 90),
    Entry("gates", "--rounds 1000 --frames 450", "--rounds 50 --frames 60", 60),
    Entry("large_model", "--layers 2 --tokens 16", "--layers 1 --tokens 4", 120),
    Entry("import_checkpoint", "--gigabytes 1.2 --rounds 2", "--gigabytes 1.2 --rounds 1", 90),
    Entry("memory_estimate", "--sizes small", "--sizes small --steps 2", 120),
)


def run(entry: Entry, *, quick: bool, limit: float) -> dict[str, Any]:
    """The result of one benchmark; or ``why`` there is none."""
    words = entry.quick if quick else entry.words
    command = ["-m", f"benchmarks.{entry.name}", *words.split()]
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as scratch,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": scratch},  # so that nothing stays of one that is killed
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what it started ends with it
        ) as child,
    ):
        try:
            said, complaints = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"name": entry.name, "why": f"did not end within {limit:g} s"}
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        last = complaints.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        return {"name": entry.name, "why": f"failed: {last[0]}"}
    try:
        found = json.loads(said.strip().splitlines()[-1])
        source = ast.parse((ROOT / "benchmarks" / f"{entry.name}.py").read_text(encoding="utf-8"))
        about = {
            "title": (ast.get_docstring(source) or "").partition("\n")[0],
            "command": shlex.join(["python", *command]),
        }
        return {**found, **about, "seconds": round(time.perf_counter() - began)}
    except (IndexError, ValueError, TypeError):
        return {"name": entry.name, "why": "printed no line of JSON"}


def run_all(entries: tuple[Entry, ...], *, quick: bool, minutes: float) -> dict[str, Any]:
    """What results.json holds. Progress goes to stderr."""
    began = time.perf_counter()
    found: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for entry in entries:
        left = 60 * minutes - (time.perf_counter() - began)
        if left < _LEAST:
            result = {"name": entry.name, "why": f"no time was left of {minutes:g} minutes"}
        else:
            print(f"{entry.name} ... ", end="", file=sys.stderr, flush=True)
            result = run(entry, quick=quick, limit=min(entry.limit, round(left)))
            print(result.get("why", f"{result.get('seconds')} s"), file=sys.stderr, flush=True)
        (skipped if "why" in result else found).append(result)
    return {
        "version": VERSION,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "quick": quick,
        "seconds": round(time.perf_counter() - began),
        "hardware": hardware(),
        "versions": versions(),
        "benchmarks": found,
        "skipped": skipped,
    }


def commit() -> str:
    """The checkout's, with a plus where files were changed since; "" outside a checkout."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names, with commas between")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes: whether everything runs")
    parser.add_argument("--minutes", type=float, default=19.0, help="for everything together")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks", help="folder of results.json and RESULTS.md"
    )
    options = parser.parse_args()
    wanted = [entry.name for entry in ENTRIES] if options.only is None else options.only.split(",")
    if unknown := set(wanted) - {entry.name for entry in ENTRIES}:
        parser.error(f"--only: no benchmark is called {min(unknown)}")
    results = run_all(tuple(e for e in ENTRIES if e.name in wanted), quick=options.quick, minutes=options.minutes)
    write_whole(options.output / RESULTS, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_page(options.output / RESULTS)
    failed = [row for row in results["skipped"] if not row["why"].startswith("no time")]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
