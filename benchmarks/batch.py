"""Clips a second of ``gpt4video batch``, against a shell loop of ``chat -p`` and against batch with one of everything.

    python -m benchmarks.batch speed [--clips 40] [--loop 5] [--rounds 3]
    python -m benchmarks.batch memory [--jobs 100 1000]
    python -m benchmarks.batch mixed [--jobs 200] [--kills 5] [--real FOLDER]

``speed``: the answers of all ways are compared before anything is timed. Each run is a process of its own, from its
start to its end, with an empty cache of clips; ways take turns for a few rounds, so that a busy machine slows all of
them. The loop does ``--loop`` clips only: each costs it a start of the program. ``memory``: the most that a run and
its decoders had in memory, for few jobs and for many. ``mixed``: exact counts, and what SIGKILL costs; see
``mixed_jobs.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.mixed_jobs import run_mixed
from benchmarks.report import Report, Times
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.video.writer import write_mp4

QUESTION = "What happens in the clip?"
PROGRAM = [sys.executable, "-m", "gpt4video_cli"]
WAYS = {
    "batch": [],
    "one worker": ["--workers", "1"],
    "one of everything": ["--workers", "1", "--batch-size", "1"],
}


def write_clips(folder: Path, count: int) -> list[Path]:
    """``count`` ShapeWorld clips of two seconds, 128 x 128, as the bundled model is tested on."""
    folder.mkdir()
    paths = []
    for number in range(count):
        scene = sample_scene(random.Random(f"benchmark {number}"))
        paths.append(write_mp4(folder / f"{number:04}.mp4", render_clip(scene, side=128, frames=24), 12))
    return paths


def run(words: list[str], home: Path) -> str:
    """Standard output of the program, whose files go to ``home``."""
    environment = {**os.environ, "GPT4VIDEO_HOME": str(home)}
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def loop(clips: list[Path], home: Path) -> dict[str, str]:
    """Answers by clip, each from a run of ``chat`` of its own."""
    return {clip.name: run(["chat", str(clip), "-p", QUESTION, "-q"], home).strip() for clip in clips}


def batch(clips: list[Path], home: Path, words: list[str]) -> dict[str, str]:
    """Answers by clip, from one run of ``batch``."""
    lines = run(["batch", *map(str, clips), "-p", QUESTION, "-q", *words], home).splitlines()
    return {Path(line["id"]).name: line["answer"] for line in map(json.loads, lines)}


def speed(options: argparse.Namespace, scratch: Path) -> None:
    """The seconds of a clip in all ways, and how many times as fast batch is."""
    clips = write_clips(scratch / "clips", options.clips)
    seconds: dict[str, list[float]] = {name: [] for name in ("loop", *WAYS)}
    answers: dict[str, dict[str, str]] = {}
    for number in range(options.rounds):
        for name in seconds:
            home = scratch / f"{name} {number}"
            home.mkdir()
            given = clips[: options.loop] if name == "loop" else clips
            began = time.perf_counter()
            answers[name] = loop(given, home) if name == "loop" else batch(given, home, WAYS[name])
            seconds[name].append((time.perf_counter() - began) / len(given))
        check(answers)
        print(json.dumps({name: round(1 / values[-1], 3) for name, values in seconds.items()}), file=sys.stderr)
    report = Report("batch")
    case = f"seconds of a clip, {len(clips)} clips ({options.loop} in the loop)"
    report.times(case, {name: Times(tuple(values)) for name, values in seconds.items()}, ours="batch")
    report.finish()


def check(answers: dict[str, dict[str, str]]) -> None:
    """That all ways say the same of each clip that they were asked about."""
    for name, said in answers.items():
        for clip, answer in said.items():
            for other, theirs in answers.items():
                if theirs.get(clip, answer) != answer:
                    raise SystemExit(f"{clip}: {name} says {answer!r}, {other} says {theirs[clip]!r}")


def memory(options: argparse.Namespace, scratch: Path) -> None:
    """The most memory of the largest process of a run, for each number of jobs."""
    clips = write_clips(scratch / "clips", max(options.jobs))
    for count in options.jobs:
        code = f"from benchmarks.batch import measured\nmeasured({str(scratch)!r}, {count})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"{count} of {len(clips)} clips: {done.stdout.strip()}", flush=True)


def measured(scratch: str, count: int) -> None:
    """One run over the first ``count`` clips, and the most memory that one of its processes had."""
    home = Path(scratch) / f"home {count}"
    home.mkdir()
    said = batch(sorted((Path(scratch) / "clips").iterdir())[:count], home, [])
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{len(said)} answers, at most {most:.0f} MB in the largest process")


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory", "mixed"))
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--loop", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", help="100 1000 for memory, 200 for mixed")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="real clips, for every tenth of the mixed jobs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ways = {"speed": speed, "memory": memory, "mixed": run_mixed}
    options.jobs = options.jobs or ([200] if options.what == "mixed" else [100, 1000])
    with tempfile.TemporaryDirectory() as scratch:
        ways[options.what](options, Path(scratch))


if __name__ == "__main__":
    main()
