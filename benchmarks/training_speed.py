"""How fast the stages train: kept features against none, packed rows against padded ones, this loop against Trainer.

    python -m benchmarks.training_speed features|packing|trainer [--size middle] [--rounds 3]

Ways take turns for a few rounds, each in a process of its own on the same model and data, so that a busy machine slows
all of them. The losses of the first steps stand beside the rates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Report, spread
from benchmarks.sized_model import SIZES, write_clip_dialogues, write_sized_model, write_text_dialogues


@dataclass(frozen=True)
class Load:
    """Optimiser steps of a run, dialogues in each, what matrix products are computed in, and clips that there are."""

    steps: int
    batch: int
    precision: str = "float32"

    @property
    def clips(self) -> int:
        """Enough that no step sees the one before again."""
        return 6 * self.batch


def train(model: Path, data: Path, folder: Path, load: Load, *words: str, bucketing: bool = True) -> dict[str, Any]:
    """A run of the command: its rates from the log, without the first steps, and its losses."""
    arguments = ["train", "--data", str(data), "--model", str(model), "--output", str(folder), "--device", "cpu"]
    arguments += f"--batch-size {load.batch} --max-steps {load.steps} --evaluate-every 10000 --quiet".split()
    log = folder.with_suffix(".toml")
    settings = f'log_every = 1\nprompts = 0\nbucketing = {str(bucketing).lower()}\nprecision = "{load.precision}"\n'
    log.write_text(settings + ("lora_dropout = 0.0\n" if "2" in words else ""))
    run([sys.executable, "-m", "gpt4video_cli", *arguments, "--config", str(log), *words])
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][4:-1]
    seconds = records[-1]["seconds"] - records[0]["seconds"]
    counted = records[1:]
    return {
        "steps": len(counted) / seconds,
        "tokens": statistics.median(r["tokens"] for r in counted),
        "samples": statistics.median(r["samples"] for r in counted),
        "memory": records[-1]["memory"],
        "losses": [round(r["loss"], 3) for r in records[:5]],
    }


def run(words: list[str]) -> str:
    """Standard output of a process."""
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def features(model: Path, folder: Path, number: int, load: Load) -> dict[str, dict[str, Any]]:
    """Stage 1 with features that were computed before, and with none kept: every clip is decoded and encoded."""
    data = folder / "clips" / "dialogues.jsonl"
    if not data.exists():
        write_clip_dialogues(folder / "clips", load.clips)
        words = [str(data), "--model", str(model), "--features", str(folder / "kept"), "--device", "cpu"]
        run([sys.executable, "-m", "gpt4video_cli", "data", "precompute", *words])
    ways = {"kept": ["--features", str(folder / "kept")], "not kept": ["--no-keep-features"]}
    return {
        name: train(model, data, folder / f"{name.replace(' ', '-')}-{number}", load, "--stage", "1", *words)
        for name, words in ways.items()
    }


def packing(model: Path, folder: Path, number: int, load: Load) -> dict[str, dict[str, Any]]:
    """Stage 2 with dialogues of 1 to 6 turns, several in a row or one in each; drawn in plain random order and, as by
    default, with those of like length in a step."""
    data = folder / "text.jsonl"
    if not data.exists():
        write_text_dialogues(data, 600)
    ways = {"packed": (True, False), "padded": (False, False), "both": (True, True), "bucketed": (False, True)}
    found = {}
    for name, (packed, bucketing) in ways.items():
        word = "--packing" if packed else "--no-packing"
        found[name] = train(model, data, folder / f"{name}-{number}", load, "--stage", "2", word, bucketing=bucketing)
    return found


def trainer(model: Path, folder: Path, number: int, load: Load) -> dict[str, dict[str, Any]]:
    """Stage 2 against transformers' Trainer: the same model, adapter, dialogues, batches, float32, no dropout."""
    data = folder / "text.jsonl"
    if not data.exists():
        write_text_dialogues(data, 600)
    found = {"this loop": train(model, data, folder / f"ours-{number}", load, "--stage", "2", "--no-packing")}
    words = [
        "-m",
        "benchmarks.with_trainer",
        str(model),
        str(data),
        str(load.batch),
        str(load.steps),
        str(folder / f"t-{number}"),
    ]
    found["Trainer"] = json.loads(run([sys.executable, *words]).splitlines()[-1])
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("features", "packing", "trainer"))
    parser.add_argument("--size", choices=SIZES, default="middle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24, help="of a run; the first four are not counted")
    parser.add_argument("--batch", type=int, default=8, help="dialogues in a step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    options = parser.parse_args()
    if options.what == "trainer" and options.precision != "float32":
        parser.error("Trainer runs in float32 here")
    load = Load(options.steps, options.batch, options.precision)
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = write_sized_model(folder / "model", SIZES[options.size])
        for number in range(options.rounds):
            rounds.append(globals()[options.what](model, folder, number, load))
            print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    report = Report("training_speed")
    case = f"{options.what}, {options.size}, {options.batch} at once, {options.precision}"
    ours, *others = rounds[0]
    for way in (ours, *others):
        figures = {f"{key}/s": spread([one[way][key] for one in rounds]) for key in ("steps", "samples", "tokens")}
        report.row(case, way, **figures, losses=rounds[0][way]["losses"])
        report.row(case, way, **{"peak memory, MiB": spread([one[way]["memory"] for one in rounds])})
    for other in others:
        ratios = [one[ours]["tokens"] / one[other]["tokens"] for one in rounds]
        report.ratio(case, ours, other, ratios, "tokens a second")
    report.finish()


if __name__ == "__main__":
    main()
