"""What each stage brings: the bundled model with and without stage 1 and stage 2.

    python -m gpt4video_cli.evaluation.stages --model DIR --work DIR.work --clips 100 --output stages.json

``DIR`` and ``DIR.work`` come from ``gpt4video train --recipe bundle``. Four models are asked the questions of
``evaluation.shapeworld`` and the requests of ``evaluation.requests``: the whole one; one without the adapter of stage
2; one whose abstractor had its warm start but no stage 1; one whose abstractor was never trained.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.errors import WeightsError
from gpt4video_cli.evaluation import requests, shapeworld
from gpt4video_cli.model.abstractor import Abstractor, load_abstractor, save_abstractor
from gpt4video_cli.training.checkpoint_store import CheckpointStore
from gpt4video_cli.whole_file import write_whole

WHOLE = "both stages"


def variants(model: Path, work: Path, folder: Path) -> dict[str, Path]:
    """Model folders below ``folder``, by what they lack."""
    found = {WHOLE: model}
    for name in ("without stage 2", "without stage 1", "without stage 1 and its warm start"):
        found[name] = folder / name.replace(" ", "-")
        shutil.copytree(model, found[name])
    shutil.rmtree(found["without stage 2"] / "adapter")
    trained = load_abstractor(model / "abstractor.safetensors", device="cpu")
    torch.manual_seed(0)
    fresh = Abstractor(trained.config)
    save_abstractor(fresh, found["without stage 1 and its warm start"] / "abstractor.safetensors")
    checkpoint = CheckpointStore(work / "checkpoints" / "warm_up").latest()
    if checkpoint is None:
        raise WeightsError(f"{work}: no checkpoint of the warm start", hint="is this the recipe's work folder?")
    fresh.load_state_dict({name: checkpoint.tensors[f"parameters/{name}"] for name in fresh.state_dict()})
    save_abstractor(fresh, found["without stage 1"] / "abstractor.safetensors")
    return found


def evaluate(model: Path, work: Path, clips: int, count: int) -> dict[str, dict[str, Any]]:
    """By variant: right answers overall and by kind, backwards, and requests that got what they asked for."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variant in variants(model, work, Path(folder)).items():
            with Assistant.open(str(variant)) as assistant:
                seen = shapeworld.evaluate(assistant, clips, report=False)
                asked = requests.evaluate(assistant, count)
            results[name] = {
                "questions": seen["clip"]["overall"],
                "by kind": {kind: tally.get("accuracy") for kind, tally in seen["clip"].items()},
                "clip wanted": asked["clip wanted"],
                "no clip wanted": asked["no clip wanted"],
            }
    return results


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--work", type=Path, required=True, help="work folder of its recipe")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--count", type=int, default=100, help="requests of each of the two groups")
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    options = parser.parse_args()
    results = evaluate(options.model, options.work, options.clips, options.count)
    if options.output:
        write_whole(options.output, json.dumps(results, indent=1) + "\n")
    for name, found in results.items():
        shares = "  ".join(
            f"{key} {found[key]['accuracy']:.3f}" for key in ("questions", "clip wanted", "no clip wanted")
        )
        print(f"{name:36} {shares}")


if __name__ == "__main__":
    main()
