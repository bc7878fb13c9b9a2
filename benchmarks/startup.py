"""A cold ``chat -p`` about one clip, with each engine and with the clip kept, beside what cannot be avoided.

    python -m benchmarks.startup --rounds 5

Each run is a process of its own; the rounds are interleaved, so that whatever else the machine does hits all alike. CPU
seconds are those of the process and its children, wall seconds are what a person waits. Without a GGUF file beside the
model one is made first (q8_0), in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.report import Report, Times, spread

CLIP = "gpt4video_cli/bundle/clips/demo.mp4"
PROGRAM = (sys.executable, "-m", "gpt4video_cli")
QUESTION = ("-p", "What is in the clip?", "--json", "--quiet")


def cases(model: str, clip: str) -> dict[str, list[str]]:
    """Name -> command. What is imported alone is the floor of what needs it."""
    bare = {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    chat = [*PROGRAM, "chat", clip, *QUESTION, "--model", model]
    return bare | {
        "chat, torch": [*chat, "--engine", "torch", "--no-cache"],
        "chat, torch, clip kept": [*chat, "--engine", "torch"],
        "chat, llama": [*chat, "--engine", "llama", "--no-cache"],
        "chat, llama, clip kept": [*chat, "--engine", "llama"],
    }


IMPORTS = {
    "python": "pass",
    "numpy": "import numpy",
    "av": "import av",
    "llama_cpp": "import llama_cpp",
    "torch": "import torch",
    "our commands": "import gpt4video_cli.cli.app, gpt4video_cli.cli.chat",
    "transformers' LLaMA": "from transformers.models.llama.modeling_llama import LlamaForCausalLM",
}


def run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Wall and CPU seconds of one process and its children, and the program's own timings."""
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    found: dict[str, Any] = {"wall": wall, "cpu": cpu}
    if "--json" in command:
        answer = json.loads(done.stdout)
        # Counted by the program from its own start: what came before it is added.
        found["first_token"] = answer["timings"]["first_token"] + wall - answer["timings"]["total"]
        found["answer"] = answer["answer"]
        found["torch"] = "torch" in answer["versions"]
    return found


def prepare(model: str, clip: str, environment: dict[str, str], kind: str) -> None:
    """A GGUF file for the model, and the clip kept."""
    command = [*PROGRAM, "models", "export", model, "--gguf", kind, "--quiet"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    run([*PROGRAM, "chat", clip, *QUESTION, "--model", model, "--engine", "llama"], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundle")
    parser.add_argument("--clip", default=CLIP)
    parser.add_argument("--gguf", default="q8_0", help="the kind of the GGUF file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "GPT4VIDEO_HOME": home, "OMP_NUM_THREADS": "1"}
        prepare(options.model, options.clip, environment, options.gguf)
        commands = cases(options.model, options.clip)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for number in range(options.rounds + 1):  # the first round warms the file cache and is left out
            for name, command in commands.items():
                runs[name].append(run(command, environment))
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    report = Report("startup")
    times = {}
    for name, (_, *of_case) in runs.items():
        times[name] = Times(*(tuple(run[clock] for run in of_case) for clock in ("wall", "cpu")))
        report.times(CASE, {name: times[name]}, ours=name)
        if "answer" in of_case[0]:
            (answer,) = {run["answer"] for run in of_case}
            (torch,) = {run["torch"] for run in of_case}
            first = spread([run["first_token"] for run in of_case])
            report.row(CASE, name, **{"first token s": first, "imports torch": torch, "answer": answer})
    quickest = "chat, llama, clip kept"
    for name, found in times.items():
        if name.startswith("chat") and name != quickest:
            pairs = zip(found.wall, times[quickest].wall, strict=True)
            report.ratio(CASE, quickest, name, [a / b for a, b in pairs])
    report.finish()


CASE = "a process from start to end"

if __name__ == "__main__":
    main()
