"""PyTorch and llama.cpp on the same weights: the same answers, logits, perplexity and accuracy, for each GGUF kind.

    python -m benchmarks.engines --questions 100 --dialogues 20 --kinds f32,f16,q8_0,q4_0

Held-out ShapeWorld clips of the evaluation are rendered in memory and encoded once; each engine is then asked about the
same embeddings, with the model's own adapter: added to the weights in PyTorch, beside them in llama.cpp. ``same``:
greedy answers whose token ids are those of PyTorch in float32. ``logits``: the largest difference from PyTorch's over
the vocabulary, after the prompts of the questions and of 20 pairs of clips. ``perplexity``: of the answers in held-out
dialogues of three turns, each token after the true ones before it. ``adapter``: the largest difference of logits with
the adapter at scale 1, 0.5 and 0, from PyTorch's with the same adapter apart. A minute for each kind on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report, spread
from gpt4video_cli.evaluation.shapeworld import HELD_OUT, held_out_scene, questions_about
from gpt4video_cli.language.adapters import Adapter, AdapterWish
from gpt4video_cli.language.engine import (
    Engine,
    GenerationStats,
    SamplingOptions,
    Segment,
    TextSegment,
    TokenSegment,
)
from gpt4video_cli.language.llama_engine import LlamaEngine
from gpt4video_cli.language.stream import stream_text
from gpt4video_cli.language.torch_engine import TorchEngine
from gpt4video_cli.model.checkpoint import Model, load_model
from gpt4video_cli.model.prompt import PromptClip, PromptTurn
from gpt4video_cli.shapeworld.dialogues import watching
from gpt4video_cli.shapeworld.question import Question
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import Scene
from gpt4video_cli.weights.find_adapter import OWN
from gpt4video_cli.weights.gguf_export import export_adapter_gguf, export_gguf

PAIRS = 20
SCALES = (1.0, 0.5, 0.0)
CASE = "held-out clips"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundle", help="name or folder of a model")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--dialogues", type=int, default=20)
    parser.add_argument("--kinds", default="f32,f16,q8_0,q4_0", help="GGUF kinds")
    options = parser.parse_args()
    model = load_model(options.model, device="cpu", dtype="float32")
    seen = [_clip(model, held_out_scene(i), i) for i in range(options.questions)]
    asked = [_one_question(i) for i in range(options.questions)]
    prompts = [_render(model, [PromptTurn(q.text, (c,))]) for q, c in zip(asked, seen, strict=True)]
    pairs = [
        _render(model, [PromptTurn(asked[i].text, (seen[i], replace(seen[i - 1], number=2)))])
        for i in range(min(PAIRS, len(seen)))
    ]
    dialogues = [_dialogue(model, i) for i in range(options.dialogues)]
    torch_engine = model.engine
    report = Report("engines")
    base = _measure(torch_engine, model, prompts, asked)
    reference = [np.asarray(torch_engine.logits(p)) for p in (*prompts, *pairs)]  # type: ignore[attr-defined]
    _add(report, "torch f32", 0, base, base, 0.0, perplexity(torch_engine, dialogues))
    with tempfile.TemporaryDirectory() as place:
        apart = _apart(model)
        for kind in options.kinds.split(","):
            file = export_gguf(model.folder / "language", Path(place) / f"model-{kind}.gguf", kind)
            engine = LlamaEngine.load(file, model.folder / "language")
            effect = _with_adapter(engine, apart, model, Path(place), kind, pairs[:5])
            found = _measure(engine, model, prompts, asked)
            logits = [engine.logits(p) for p in (*prompts, *pairs)]
            worst = max(float(np.abs(a - b).max()) for a, b in zip(logits, reference, strict=True))
            _add(report, f"llama {kind}", file.stat().st_size, found, base, worst, perplexity(engine, dialogues))
            report.row(CASE, f"llama {kind}", **{f"adapter at {s:g}": d for s, d in effect.items()})
            ratios = [a / b for a, b in zip(base["seconds"], found["seconds"], strict=True)]
            report.ratio(CASE, f"llama {kind}", "torch f32", ratios, "wall time of an answer")
            engine.close()
    report.finish()


def _clip(model: Model, scene: Scene, index: int) -> PromptClip:
    frames = render_clip(scene, side=128, frames=24)
    count = model.card.frames
    middles = [int((i + 0.5) * len(frames) / count) for i in range(count)]
    return PromptClip(f"clip {index}", model.condense(model.encode(frames[middles])))


def _one_question(index: int) -> Question:
    questions = list(questions_about(held_out_scene(index), index))
    return questions[index % len(questions)]


def _render(model: Model, turns: Sequence[PromptTurn]) -> list[Segment]:
    return model.template.render(turns)


def _dialogue(model: Model, index: int) -> list[tuple[Segment, bool]]:
    """A held-out dialogue of three turns; of each segment whether it is the assistant's."""
    scene = held_out_scene(10_000 + index)
    told = watching(random.Random(f"{HELD_OUT}/perplexity/{index}"), turns=3, scene=scene)
    clip = _clip(model, scene, 10_000 + index)
    turns = [PromptTurn(turn.user, (clip,) if turn.clips else (), turn.answer) for turn in told.turns]
    return model.template.render_labelled(turns)


def perplexity(engine: Engine, dialogues: Sequence[list[tuple[Segment, bool]]]) -> float:
    """exp of the mean negative log-likelihood of the assistant's tokens, each after the true ones before it."""
    total, count = 0.0, 0
    for labelled in dialogues:
        cache, before = engine.new_cache(), []  # type: ignore[var-annotated]
        for segment, reply in labelled:
            if not (reply and isinstance(segment, TextSegment | TokenSegment)):
                before.append(segment)
                continue
            ids = segment.ids if isinstance(segment, TokenSegment) else _ids(engine, segment)
            for id_ in ids:
                logits = np.asarray(engine.logits(before, cache), np.float64)  # type: ignore[attr-defined]
                total += float(np.log(np.exp(logits - logits.max()).sum()) - (logits[id_] - logits.max()))
                count += 1
                before.append(TokenSegment((id_,)))
        cache.clear()
    return math.exp(total / count)


def _ids(engine: Engine, segment: TextSegment) -> list[int]:
    return engine.tokenize(segment.text, trusted=segment.trusted)


def _measure(engine: Engine, model: Model, prompts: list[list[Segment]], asked: list[Question]) -> dict[str, Any]:
    """Greedy answers, how many are right, and the seconds of each with its prompt."""
    options = SamplingOptions(max_tokens=60, stop=model.template.stop)
    ids, right, seconds = [], 0, []
    for prompt, question in zip(prompts, asked, strict=True):
        stats, began = GenerationStats(), time.perf_counter()
        text = "".join(stream_text(engine, prompt, options, cache=engine.new_cache(), stats=stats))
        seconds.append(time.perf_counter() - began)
        ids.append(tuple(stats.ids))
        right += question.is_right(text.strip())
    return {"ids": ids, "right": right, "seconds": seconds}


def _add(
    report: Report, name: str, size: int, found: dict[str, Any], base: dict[str, Any], worst: float, perplexed: float
) -> None:
    same = sum(a == b for a, b in zip(found["ids"], base["ids"], strict=True))
    count = len(base["ids"])
    report.row(CASE, name, MB=size / 1e6, same=f"{same}/{count}", logits=worst, perplexity=perplexed)
    report.row(CASE, name, accuracy=found["right"] / count, **{"seconds of an answer": spread(found["seconds"])})


def _apart(model: Model) -> TorchEngine | None:
    """PyTorch with the model's adapter beside its weights."""
    if not (model.folder / OWN).is_dir():
        return None
    return TorchEngine.load(model.folder / "language", device="cpu", dtype="float32")


def _with_adapter(
    engine: LlamaEngine, apart: TorchEngine | None, model: Model, place: Path, kind: str, prompts: list[list[Segment]]
) -> dict[float, float]:
    """Put the model's adapter in force; the largest difference of logits at each scale."""
    if apart is None:
        return {}
    own, exact = model.folder / OWN, "f32" if kind == "f32" else "f16"
    file = export_adapter_gguf(own, model.folder / "language", place / f"{kind}-adapter.gguf", exact)
    found = {}
    for scale in SCALES:
        engine.use_adapters([Adapter(OWN, file, scale)])
        apart.use_adapters([Adapter(OWN, own, scale)])
        found[scale] = max(float(np.abs(engine.logits(p) - apart.logits(p).numpy()).max()) for p in prompts)
    engine.use_adapters([Adapter(OWN, file, AdapterWish(OWN).scale)])
    return found


if __name__ == "__main__":
    main()
