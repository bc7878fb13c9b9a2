"""What the safety gates add to a turn and to a generation, without a model.

    python -m benchmarks.gates [--rounds 2000] [--frames 900] [--classifier]

Text: the shipped guard on requests of 4 to 20 words and on one of 1,000 words; its first call, which reads its weights,
alone. Clips: looking at all frames of a clip of 1280x720 and reading those that stand for it, which happens only where
a guard for pictures is installed; ``--classifier`` adds judging them with a ViT-B/16 of random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Report, spread
from gpt4video_cli.safety.gates import FRAME_SIDE, MOST_FRAMES, Gates
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.survey import choose
from gpt4video_cli.video.writer import write_mp4

REQUESTS = (
    "What moves here?",
    "a red circle moves left across a blue background",
    "Film a golden retriever that runs along a beach at sunset, waves behind it, slow motion, warm light, please",
    "How many people walk through the gate, and in which direction do they go?",
)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def measure_text(report: Report, rounds: int) -> None:
    """The text gate's times."""
    began = time.perf_counter()
    gates = Gates.open()
    gates.text("a", "user text")
    first = 1000 * (time.perf_counter() - began)
    times = sorted(timed(lambda i=i: gates.text(REQUESTS[i % len(REQUESTS)], "user text")) for i in range(rounds))
    report.row("text gate", "first call, with loading", ms=first)
    report.row("text gate", "a request", **{"ms": spread(times), "99 %, ms": times[rounds * 99 // 100]})
    text = " ".join((f"{' '.join(REQUESTS)} " * 40).split()[:1000])
    report.row("text gate", "1,000 words", ms=spread([timed(lambda: gates.text(text, "user text")) for _ in range(20)]))


def moving(frames: int) -> np.ndarray:
    """uint8 [T, 720, 1280, 3]: a pattern that moves to the left, with a cut every 5 seconds."""
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (45, 96, 3), np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(6)]
    return np.stack([scenes[t // 150 % 6][:, t % 200 : t % 200 + 1280] for t in range(frames)])


def measure_frames(report: Report, count: int, classifier: bool) -> None:
    """The times of looking at a clip."""
    with tempfile.TemporaryDirectory() as folder, FrameReader() as reader:
        path = write_mp4(Path(folder) / "a.mp4", moving(count), 30)
        reader.probe(path)  # the decoder's process has started
        began = time.perf_counter()
        found = reader.survey(path, MOST_FRAMES, min_side=FRAME_SIDE)
        seconds = time.perf_counter() - began
    case, each = f"{count} frames of 1280x720", {"s": seconds, "ms a frame": 1000 * seconds / count}
    report.row(case, "looking at all", **each, chosen=len(found.frames))
    thumbs = np.random.default_rng(0).integers(0, 255, (3000, 16, 16, 3), np.uint8)
    choosing = timed(lambda: choose(thumbs, MOST_FRAMES)) / 1000
    report.row("3,000 frames that all differ", "choosing", **{"s": choosing, "ms a frame": choosing / 3})
    if classifier:
        measure_classifier(report, found.frames)


def measure_classifier(report: Report, frames: np.ndarray) -> None:
    """The time of a ViT-B/16 for ``frames``."""
    from transformers import ViTConfig, ViTForImageClassification

    from gpt4video_cli.safety.frame_guards import ImageClassifier
    from gpt4video_cli.weights.guard_card import GuardCard

    with tempfile.TemporaryDirectory() as folder:
        ViTForImageClassification(ViTConfig()).save_pretrained(folder)
        (Path(folder) / "preprocessor_config.json").write_text('{"size": {"height": 224, "width": 224}}')
        card = GuardCard("vit", "", "", "image-classifier", labels={"LABEL_1": "sexual"})
        guard = ImageClassifier(card, Path(folder))
        guard.score(frames[:1])
        seconds = timed(lambda: guard.score(frames)) / 1000
    each = {"s": seconds, "ms a frame": 1000 * seconds / len(frames)}
    report.row(f"{len(frames)} frames to judge", "ViT-B/16", **each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--classifier", action="store_true")
    options = parser.parse_args()
    found = Report("gates")
    measure_text(found, options.rounds)
    measure_frames(found, options.frames, options.classifier)
    found.finish()
