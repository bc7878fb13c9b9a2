"""The dry run's estimate of memory beside the peak of a real run, for three sizes and both stages; and for 7B.

    python -m benchmarks.memory_estimate [--sizes small,middle,large] [--steps 6]

Each run is a process of its own on the CPU. The 7B model is estimated alone, as on a GPU: nothing of that size runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Report
from benchmarks.sized_model import (
    SIZES,
    write_clip_dialogues,
    write_hollow_model,
    write_sized_model,
    write_text_dialogues,
)


def measure(model: Path, data: Path, stage: int, folder: Path, *, steps: int = 6, batch: int = 8) -> dict[str, Any]:
    """Estimate and measured peak in MiB."""
    words = ["train", "--stage", str(stage), "--data", str(data), "--model", str(model), "--output", str(folder)]
    words += f"--batch-size {batch} --max-steps {steps} --device cpu --evaluate-every 1000 --no-packing".split()
    words += ["--features", str(folder.parent / f"features-{model.name}")]
    estimate = json.loads(run(words + ["--dry-run", "--json"]))
    last = json.loads(run(words + ["--json"]))["last"]
    ratio = estimate["memory"] / last["memory"]
    return {
        "estimated": round(estimate["memory"]),
        "measured": round(last["memory"]),
        "ratio": round(ratio, 3),
        "tensors": round(estimate["tensors"]),
        "parameters": sum(part["trained"] + part["frozen"] for part in estimate["parts"]),
    }


def run(words: list[str]) -> str:
    """What ``gpt4video WORDS`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "gpt4video_cli", *words], capture_output=True, text=True, env=os.environ, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def estimate_7b(folder: Path) -> dict[str, Any]:
    """Of both stages of the 7B model on a GPU, in bfloat16, with one and with eight dialogues at once."""
    from gpt4video_cli.training.dry_run import dry_run
    from gpt4video_cli.training.settings import Settings

    model = write_hollow_model(folder / "hollow-7b")
    data = {1: write_clip_dialogues(folder / "clips7", 16), 2: write_text_dialogues(folder / "text7.jsonl", 64)}
    found = {}
    for stage in (1, 2):
        for micro in (1, 8):
            for forgetful in (False, True):
                asked = Settings(
                    stage,
                    (str(data[stage]),),
                    "nowhere",
                    str(model),
                    micro_batch_size=micro,
                    gradient_checkpointing=forgetful,
                    packing=False,
                )
                made = dry_run(asked, device="cuda")
                name = f"stage {stage}, {micro} at once{', gradient checkpointing' if forgetful else ''}"
                trained = sum(part.trained for part in made.parts)
                longest = made.lengths["largest"]
                found[name] = {"GiB": round(made.memory / 1024, 1), "trained": trained, "longest": longest}
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="small,middle,large")
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    report = Report("memory_estimate")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips, text = write_clip_dialogues(folder / "clips", 16), write_text_dialogues(folder / "text.jsonl", 64)
        for name in options.sizes.split(","):
            model = write_sized_model(folder / name, SIZES[name])
            for stage, data in ((1, clips), (2, text)):
                found = measure(model, data, stage, folder / f"run-{name}-{stage}", steps=options.steps)
                report.row("peak memory in MiB", f"{name}, stage {stage}", **found)
        for name, estimate in estimate_7b(folder).items():
            report.row("7B on a GPU, estimated", name, **estimate)
    report.note("ratio: of the estimate to what was measured, so that 1 is exact and below 1 is too little.")
    report.finish()


if __name__ == "__main__":
    main()
