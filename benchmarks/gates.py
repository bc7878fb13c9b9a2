"""What the safety gates add to a turn and to a generation, without a model.

    python -m benchmarks.gates [--rounds 2000] [--frames 900] [--classifier]

Text: the shipped guard on requests of 4 to 20 words and on one of 1,000 words; its first call, which reads its weights,
alone. Clips: looking at all frames of a clip of 1280x720 and reading those that stand for it, which happens only where
a guard for pictures is installed; ``--classifier`` adds judging them with a ViT-B/16 of random weights.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

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


def measure_text(rounds: int) -> None:
    """Print the text gate's times."""
    began = time.perf_counter()
    gates = Gates.open()
    gates.text("a", "user text")
    first = 1000 * (time.perf_counter() - began)
    times = sorted(timed(lambda i=i: gates.text(REQUESTS[i % len(REQUESTS)], "user text")) for i in range(rounds))
    print(f"text gate, first call with loading: {first:.0f} ms")
    print(f"text gate, a request: median {statistics.median(times):.3f} ms, 99 % {times[rounds * 99 // 100]:.3f} ms")
    text = " ".join((f"{' '.join(REQUESTS)} " * 40).split()[:1000])
    long = statistics.median(timed(lambda: gates.text(text, "user text")) for _ in range(20))
    print(f"text gate, 1,000 words: {long:.1f} ms")


def moving(frames: int) -> np.ndarray:
    """uint8 [T, 720, 1280, 3]: a pattern that moves to the left, with a cut every 5 seconds."""
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (45, 96, 3), np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(6)]
    return np.stack([scenes[t // 150 % 6][:, t % 200 : t % 200 + 1280] for t in range(frames)])


def measure_frames(count: int, classifier: bool) -> None:
    """Print the times of looking at a clip."""
    with tempfile.TemporaryDirectory() as folder, FrameReader() as reader:
        path = write_mp4(Path(folder) / "a.mp4", moving(count), 30)
        reader.probe(path)  # the decoder's process has started
        began = time.perf_counter()
        found = reader.survey(path, MOST_FRAMES, min_side=FRAME_SIDE)
        seconds = time.perf_counter() - began
    each = 1000 * seconds / count
    print(f"looking at {count} frames of 1280x720: {seconds:.2f} s, {each:.2f} ms each; {len(found.frames)} to judge")
    thumbs = np.random.default_rng(0).integers(0, 255, (3000, 16, 16, 3), np.uint8)
    print(f"choosing among 3,000 frames that all differ: {timed(lambda: choose(thumbs, MOST_FRAMES)):.0f} ms")
    if classifier:
        measure_classifier(found.frames)


def measure_classifier(frames: np.ndarray) -> None:
    """Print the time of a ViT-B/16 for ``frames``."""
    from transformers import ViTConfig, ViTForImageClassification

    from gpt4video_cli.safety.frame_guards import ImageClassifier
    from gpt4video_cli.weights.guard_card import GuardCard

    with tempfile.TemporaryDirectory() as folder:
        ViTForImageClassification(ViTConfig()).save_pretrained(folder)
        (Path(folder) / "preprocessor_config.json").write_text('{"size": {"height": 224, "width": 224}}')
        card = GuardCard("vit", "", "", "image-classifier", labels={"LABEL_1": "sexual"})
        guard = ImageClassifier(card, Path(folder))
        guard.score(frames[:1])
        milliseconds = timed(lambda: guard.score(frames))
    print(f"ViT-B/16 on {len(frames)} frames: {milliseconds / 1000:.2f} s, {milliseconds / len(frames):.0f} ms each")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=900)
    parser.add_argument("--classifier", action="store_true")
    options = parser.parse_args()
    measure_text(options.rounds)
    measure_frames(options.frames, options.classifier)
