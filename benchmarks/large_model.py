"""The 7B assembly (CLIP ViT-L/14, the paper's abstractor, LLaMA-7B) with random weights answers about a real clip.

    python -m benchmarks.large_model --layers 2 --device cpu
    python -m benchmarks.large_model --layers 32 --device cuda --dtype bfloat16

``--layers`` is the depth of the language model; everything else has its full size. The model is written as a folder in
16 bits, in shards, one tensor at a time, and opened in a process of its own by the code that the program uses. What is
printed: the plan, seconds to load and to the first token, tokens a second, and the peak of the memory beside the plan.
On the CPU the peak is what the process held for itself (anonymous pages, sampled) and in all (with the pages of mapped
weight files, which the system takes back when memory is short).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Report
from gpt4video_cli.model.assembly import write_assembly

DEMO = Path(__file__).parents[1] / "gpt4video_cli" / "bundle" / "clips" / "demo.mp4"


class PeakMemory:
    """Samples the anonymous memory of this process every few milliseconds; Linux only."""

    def __init__(self) -> None:
        self.anonymous = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.anonymous = max(self.anonymous, status("RssAnon"))


def status(name: str) -> int:
    """A size of /proc/self/status in bytes: VmHWM (peak of all), RssAnon, RssFile (now)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def measure(folder: Path, clip: Path, *, device: str, dtype: str, offload: bool, tokens: int) -> dict[str, Any]:
    """Open the model, answer twice (the second answer is measured without first-time costs), in this process."""
    import transformers.models.llama.modeling_llama  # noqa: F401  # imported first: it is no part of loading

    from gpt4video_cli.assistant import Assistant, ClipRequest, Message
    from gpt4video_cli.events import Done

    before = status("RssAnon")
    start = time.perf_counter()
    with PeakMemory() as peak, Assistant.open(str(folder), device=device, dtype=dtype, offload=offload) as assistant:
        model = assistant.model
        plan = model.placement
        assert plan is not None
        parts = [model.visual_encoder, model.abstractor, model.engine]
        if plan.main.startswith("cuda"):
            torch.cuda.synchronize()
        loaded = time.perf_counter() - start
        weights = peak.anonymous - before
        assert len(parts) == 3
        options = replace(assistant.default_options(), max_tokens=tokens)
        answers = []
        for question in ("What happens in the clip?", "What colour is it?"):
            session = assistant.new_session()
            message = Message(question, (ClipRequest(str(clip)),))
            *_, last = assistant.reply(session, message, options)
            assert isinstance(last, Done)
            answers.append(last)
    first, done = answers
    found: dict[str, Any] = {
        "plan": {f"{row.what} on {row.place}": round(row.bytes / 1e9, 3) for row in plan.rows},
        "precision": plan.sizes.precision.weights,
        "parameters": sum(part.parameters for part in plan.sizes.parts),
        "seconds to load": round(loaded, 2),
        "first token, first answer": round(first.timings["first_token"], 2),
        "first token, the same clip again": round(done.timings["first_token"], 2),
        "tokens per second": round((done.new_tokens - 1) / done.timings["generate"], 2),
        "tokens": {"prompt": done.prompt_tokens, "new": done.new_tokens, "end": done.finish_reason},
        "answer": done.answer[:200],
        "planned GB": {device.name: round(plan.used(device.name) / 1e9, 3) for device in plan.devices},
        "own memory while loading, GB": round(weights / 1e9, 3),
        "own memory at the peak, GB": round((peak.anonymous - before) / 1e9, 3),
        "with mapped files, GB": round(status("VmHWM") / 1e9, 3),
    }
    for number in range(torch.cuda.device_count() if plan.main.startswith("cuda") else 0):
        found[f"peak of cuda:{number}, GB"] = round(torch.cuda.max_memory_allocated(number) / 1e9, 3)
        found[f"reserved on cuda:{number}, GB"] = round(torch.cuda.max_memory_reserved(number) / 1e9, 3)
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2, help="depth of the language model (LLaMA-7B has 32)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("--clip", type=Path, default=DEMO)
    parser.add_argument("--folder", type=Path, help="write the model here and keep it, or use the one that is here")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the child process
    options = parser.parse_args()
    if options.measure:
        wanted = {"device": options.device, "dtype": options.dtype, "offload": options.offload}
        print(json.dumps(measure(options.measure, options.clip, tokens=options.tokens, **wanted)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "assembly"
        if not (folder / "card.toml").is_file():
            start = time.perf_counter()
            write_assembly(folder, layers=options.layers, device="cuda" if torch.cuda.is_available() else "cpu")
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
            print(f"wrote {size / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s", flush=True)
        words = [sys.executable, "-m", "benchmarks.large_model", "--measure", str(folder)]
        words += ["--device", options.device, "--dtype", options.dtype, "--tokens", str(options.tokens)]
        words += ["--clip", str(options.clip), *(["--offload"] if options.offload else [])]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
    found = json.loads(done.stdout.splitlines()[-1])
    report = Report("large_model")
    case = f"7B assembly, {options.layers} layers of the language model, {found['precision']}"
    del found["answer"]  # random words
    for name, value in found.items():
        report.row(case, name, figure=value)
    report.finish()


if __name__ == "__main__":
    main()
