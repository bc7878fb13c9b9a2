"""A clip's file to its embeddings at the 7B model's size, in each type of the visual encoder, against the usual way.

    python -m benchmarks.vision [--rounds 2] [--threads 2] [--clips 40] [--quick]

ViT-L/14 at 224 pixels, four frames of a clip of ten seconds in 1280x720, the paper's abstractor to 4,096 numbers;
weights are random, which changes no speed. The usual way: decord at the frame numbers of the same moments,
transformers' CLIP processor and CLIPVisionModel (its default attention, float32), and the abstractor as its formulas
stand: every layer norms and projects the features and attends over the concatenation with softmax in eager torch. Both
hold the same weights; that they give the same features and embeddings of the same frames is checked before anything is
timed. Then what bfloat16 and int8 cost in accuracy: of random weights, and of the bundled model, which is trained, with
its answers about held-out clips.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.plain_abstractor import plain_abstractor
from benchmarks.report import Report, spread, take_turns
from gpt4video_cli.evaluation.shapeworld import held_out_scene, questions_about
from gpt4video_cli.language.engine import GenerationStats, SamplingOptions
from gpt4video_cli.language.stream import stream_text
from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig
from gpt4video_cli.model.checkpoint import Model, open_model
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.model.prompt import PromptClip, PromptTurn
from gpt4video_cli.model.visual_encoder import (
    VisualEncoder,
    VisualEncoderConfig,
    load_visual_encoder,
    save_visual_encoder,
)
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4

FRAMES, FPS, SECONDS = 4, 30, 10
TYPES = ("float32", "bfloat16", "int8")
USUAL = "decord + transformers + plain abstractor"
Steps = Sequence[tuple[str, Callable[[Any], Any]]]
"""Names and functions from a file to embeddings, each of what the one before gave."""


def write_clip(path: Path) -> Path:
    """A pattern that moves, ten seconds of 1280x720 in H.264."""
    scene = np.random.default_rng(0).integers(0, 255, (45, 93, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    return write_mp4(path, np.stack([scene[:, t % 200 : t % 200 + 1280] for t in range(FPS * SECONDS)]), FPS)


def ours(encoder: VisualEncoder, abstractor: Abstractor, reader: FrameReader) -> Steps:
    """As ``Assistant.see`` does it."""
    config, plan = PreprocessConfig.square(224), SamplingPlan(frames=FRAMES)
    return (
        ("decode", lambda path: reader.read(path, plan, min_side=config.decode_side).frames),
        ("pixels", lambda frames: preprocess(frames, config)),
        ("encode", lambda pixels: encoder(pixels)[None].float()),
        ("condense", abstractor),
    )


def usual(encoder: VisualEncoder, abstractor: Abstractor) -> Steps:
    """As scripts of the field do it, with the same weights."""
    from decord import VideoReader
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    with torch.device("meta"):
        theirs = CLIPVisionModel(CLIPVisionConfig(**encoder.config.as_clip_vision_config()))
    weights = encoder.state_dict()
    prefix = next(iter(theirs.state_dict())).removesuffix("embeddings.class_embedding")
    theirs.load_state_dict({prefix + name: value for name, value in weights.items()}, assign=True)
    numbers = torch.arange(1 + encoder.config.patches)[None]
    next(m for m in theirs.modules() if hasattr(m, "position_ids")).position_ids = numbers
    theirs.eval()
    processor = CLIPImageProcessorPil()

    def decode(path: Path) -> np.ndarray:
        reader = VideoReader(str(path))
        at = [int((i + 0.5) * len(reader) / FRAMES) for i in range(FRAMES)]
        frames: np.ndarray = reader.get_batch(at).asnumpy()
        return frames

    return (
        ("decode", decode),
        ("pixels", lambda frames: processor(list(frames), return_tensors="pt")["pixel_values"]),
        ("encode", lambda pixels: theirs(pixels).last_hidden_state[None]),
        ("condense", lambda features: plain_abstractor(abstractor, features)),
    )


def follow(steps: Steps, path: Any, seconds: dict[str, list[float]] | None = None) -> Any:
    """The embeddings; the seconds of each step are added to ``seconds``."""
    value = path
    with torch.inference_mode():
        for name, step in steps:
            began = time.perf_counter()
            value = step(value)
            if seconds is not None:
                seconds.setdefault(name, []).append(time.perf_counter() - began)
    return value


def difference(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Of vectors in the last dimension: the relative error of all, and how far from 1 the worst cosine is."""
    found, exact = found.double(), exact.double()
    return {
        "relative error": float((found - exact).norm() / exact.norm()),
        "1 - worst cosine": 1 - float(F.cosine_similarity(found, exact, dim=-1).min()),
    }


def measure_speed(report: Report, folder: Path, *, layers: int, rounds: int) -> None:
    """Equality, times and the accuracy on random weights."""
    torch.manual_seed(0)
    case = f"file to embeddings, {layers} layers"
    clip = write_clip(folder / "clip.mp4")
    save_visual_encoder(VisualEncoder(VisualEncoderConfig(layers=layers)), folder / "vision")
    encoders = {kind: load_visual_encoder(folder / "vision", device="cpu", dtype=kind) for kind in TYPES}
    abstractor = Abstractor(AbstractorConfig.paper()).eval().requires_grad_(False)
    with FrameReader() as reader:
        ways = {f"ours, {kind}": ours(encoder, abstractor, reader) for kind, encoder in encoders.items()}
        try:
            ways[USUAL] = usual(encoders["float32"], abstractor)
        except ImportError as missing:
            report.skip(USUAL, str(missing))
        frames = follow(ways["ours, float32"][:1], clip)
        features = {name: follow(steps[1:3], frames) for name, steps in ways.items()}
        embeddings = {name: follow(steps[3:], features[name]) for name, steps in ways.items()}
        for name in ways:
            for what, found in (("features", features), ("embeddings", embeddings)):
                error = difference(found[name], found["ours, float32"])
                if name == USUAL and error["relative error"] > 1e-4:
                    raise SystemExit(f"{name}: {what} differ from ours in float32: {error}")
                if name != "ours, float32":
                    report.row(f"{what} of the same frames against ours in float32", name, **error)
        stages: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
        runs = {name: partial(follow, steps, clip, stages[name]) for name, steps in ways.items()}
        times = take_turns(runs, rounds=rounds, warm=0)  # the comparison was the first run of all
    for kind in TYPES:
        alone = {name: times[name] for name in (f"ours, {kind}", USUAL) if name in times}
        # By the clock: ours decodes in another process, whose CPU time is not in these, and theirs in this one.
        report.times(case, alone, ours=f"ours, {kind}", clock="wall")
    for name, steps in stages.items():
        report.row(case, name, **{f"{step} s": spread(seconds) for step, seconds in steps.items()})


def measure_answers(report: Report, clips: int) -> None:
    """The bundled model in each type: features, embeddings and greedy answers about held-out clips."""
    models = {kind: open_model("bundle", LoadWish("cpu", vision_dtype=kind)) for kind in TYPES}
    exact = models["float32"]
    found: dict[str, list[tuple[Tensor, Tensor, str, bool]]] = {kind: [] for kind in TYPES}
    for number in range(clips):
        scene = held_out_scene(number)
        frames = render_clip(scene, side=128, frames=24)
        chosen = frames[[int((i + 0.5) * len(frames) / exact.card.frames) for i in range(exact.card.frames)]]
        questions = list(questions_about(scene, number))
        question = questions[number % len(questions)]
        for kind, model in models.items():
            features = model.encode(chosen)
            embeddings = model.condense(features)
            said = answer(exact, PromptClip("clip", embeddings), question.text)
            found[kind].append((features[0], torch.from_numpy(embeddings), said, question.is_right(said)))
    case = f"bundled model, {clips} held-out clips"
    for kind in TYPES:
        same = sum(a[2] == b[2] for a, b in zip(found[kind], found["float32"], strict=True))
        report.row(case, kind, **{"same answers": same, "right": sum(one[3] for one in found[kind])})
        for at, what in enumerate(("features", "embeddings")):
            here, exactly = (torch.stack([one[at] for one in found[of]]) for of in (kind, "float32"))  # type: ignore[misc]
            report.row(case, kind, **{f"{what}: {name}": value for name, value in difference(here, exactly).items()})


def answer(model: Model, clip: PromptClip, question: str) -> str:
    """Greedy."""
    options = SamplingOptions(max_tokens=40, stop=model.template.stop)
    prompt = model.template.render([PromptTurn(question, (clip,))])
    cache, stats = model.engine.new_cache(), GenerationStats()
    return "".join(stream_text(model.engine, prompt, options, cache=cache, stats=stats)).strip()


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of torch (default: its own choice)")
    parser.add_argument("--clips", type=int, default=40, help="that the bundled model is asked about")
    parser.add_argument("--quick", action="store_true", help="two layers, one round, four clips")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    report = Report("vision", quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        layers = 2 if options.quick else VisualEncoderConfig().layers
        measure_speed(report, Path(folder), layers=layers, rounds=1 if options.quick else options.rounds)
    measure_answers(report, 4 if options.quick else options.clips)
    report.note(
        f"torch used {torch.get_num_threads()} threads; ours decodes in a process of its own, which no CPU time counts."
    )
    report.finish()


if __name__ == "__main__":
    main()
