"""Memory and time of ``gpt4video models import``, beside plain ``torch.load`` and ``save_file`` of the same checkpoint.

    python -m benchmarks.import_checkpoint [--gigabytes 2] [--shard-size 0.5] [--rounds 2] [--kind bin|safetensors]

A checkpoint in the public mPLUG-Owl-video format is made of random numbers (float16; the vision tower and abstractor of
the 7B model, a LLaMA of the same width with as many layers as fit). Each way runs in a process of its own. Peak memory
is VmHWM of Linux, reset after the imports, less what the process had then; the mapped pages of files count in it. Times
include flushing the result to the disk. Ways take turns.
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

import torch

from benchmarks.report import Report, Times, spread
from gpt4video_cli.weights.convert_mplug_owl import read_config
from gpt4video_cli.weights.mplug_owl_layout import mplug_owl_shapes

CONFIG: dict[str, Any] = {
    "model_type": "mplug-owl",
    "num_query_tokens": 64,
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 14,
        "image_size": 224,
        "layer_norm_eps": 1e-6,
    },
    "visual_abstractor_config": {
        "hidden_size": 1024,
        "encoder_hidden_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-6,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 2048,
    },
}
"""The 7B model's, in the keys of the public format."""


def sized(gigabytes: float) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The configuration and the tensors of a checkpoint of at least that size in float16, by layers of the LLaMA."""
    for layers in range(1, 33):
        config = {**CONFIG, "text_config": {**CONFIG["text_config"], "num_hidden_layers": layers}}
        shapes = mplug_owl_shapes(*read_config(config, Path("config.json")))
        if 2 * sum(torch.Size(shape).numel() for shape in shapes.values()) >= gigabytes * 1e9:
            break
    return config, shapes


def make(folder: Path, gigabytes: float, kind: str) -> None:
    """Write the checkpoint."""
    config, shapes = sized(gigabytes)
    generator = torch.Generator().manual_seed(0)
    # Cut from one row of random numbers: drawing 1e9 of them would take longer than all that is measured.
    numbers = torch.randn(2**22, generator=generator).to(torch.float16)
    tensors = {}
    for name, shape in shapes.items():
        count = torch.Size(shape).numel()
        tensors[name] = numbers.repeat(-(-count // len(numbers)))[:count].view(shape).clone()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if kind == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        from safetensors.torch import save_file

        save_file(tensors, folder / "model.safetensors")


_COMMON = """
import json, os, resource, sys, time
from pathlib import Path

def memory(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))

def measured(work):
    Path("/proc/self/clear_refs").write_text("5")
    before, used, start = memory("VmRSS"), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": memory("VmHWM") - before, "seconds": seconds, "cpu": cpu, "before": before}))

source, target, size = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
"""
WAYS = {
    "models import": _COMMON
    + """
from gpt4video_cli.weights.convert import import_weights
import safetensors.torch
measured(lambda: import_weights(source, "mplug-owl-video", target, shard_bytes=int(size * 1e9)))
""",
    "torch.load + save_file": _COMMON
    + """
import torch
from safetensors.torch import load_file, save_file

def work():
    target.mkdir()
    pickle = source / "pytorch_model.bin"
    tensors = torch.load(pickle, weights_only=True) if pickle.exists() else load_file(source / "model.safetensors")
    save_file(tensors, target / "model.safetensors")
    with open(target / "model.safetensors", "rb+") as file:
        os.fsync(file.fileno())

measured(work)
""",
}


def run(way: str, source: Path, target: Path, shard_size: float) -> dict[str, float]:
    """One way in a process of its own: MiB and seconds."""
    command = [sys.executable, "-c", WAYS[way], str(source), str(target), str(shard_size)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--shard-size", type=float, default=0.5, help="in GB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kind", choices=["bin", "safetensors"], default="bin")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "checkpoint"
        make(source, options.gigabytes, options.kind)
        size = sum(file.stat().st_size for file in source.iterdir())
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(options.rounds):
            for way in WAYS:
                with tempfile.TemporaryDirectory(dir=scratch) as made:
                    found[way].append(run(way, source, Path(made) / f"out-{number}", options.shard_size))
    report = Report("import_checkpoint")
    case = f"checkpoint of {size / 1e9:.2f} GB ({options.kind}), shards of {options.shard_size} GB"
    times = {
        way: Times(tuple(r["seconds"] for r in runs), tuple(r["cpu"] for r in runs)) for way, runs in found.items()
    }
    ours, peer = WAYS
    report.times(case, times, ours=ours)
    for way, runs in found.items():
        report.row(case, way, **{"peak MiB over the imports": spread([r["peak"] for r in runs])})
    peaks = [b["peak"] / a["peak"] for a, b in zip(found[ours], found[peer], strict=True)]
    report.ratio(case, ours, peer, peaks, "peak memory")
    report.finish()


if __name__ == "__main__":
    main()
