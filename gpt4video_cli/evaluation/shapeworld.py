"""Ask a model about held-out ShapeWorld clips and count the right answers, by kind of question.

    python -m gpt4video_cli.evaluation.shapeworld --clips 500 --output result.json

Every question goes the way of ``gpt4video chat CLIP -p QUESTION``: a real mp4 file, a new conversation, greedy
decoding. Beside it three checks that the answers come from the picture: the clip played backwards, another clip in its
place, and no clip at all.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.events import Done
from gpt4video_cli.shapeworld.dialogues import CANNOT_TELL, HELD_OUT_NOUNS, NO_CLIP, unknown_question
from gpt4video_cli.shapeworld.question import KINDS, Question
from gpt4video_cli.shapeworld.questions import ask
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.shapeworld.scene import Scene, reversed_scene, sample_events, sample_scene
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.writer import write_mp4
from gpt4video_cli.weights.card import read_card, render_card
from gpt4video_cli.whole_file import write_whole

TEST_KINDS = ("colour", "shape", "motion", "count", "background", "yesno")
"""The kinds that make up the overall accuracy; the others are reported beside it."""
BLIND_SHARE = 0.3
"""For this share of the clips each question is also asked about another clip and about none."""
EVENTS_SHARE = 0.5
"""So many clips more, as a share of the others, show two things that happen in order, and are asked for that."""
HELD_OUT = "held-out"
"""Scenes are drawn from this seed, which training never uses."""


@dataclass
class Tally:
    """Right answers of all answers."""

    right: int = 0
    asked: int = 0

    def add(self, right: bool) -> None:
        """Count one answer."""
        self.right += right
        self.asked += 1

    def as_dict(self) -> dict[str, float | int]:
        """Share with its 95 % interval (Wilson 1927)."""
        if not self.asked:
            return {"right": 0, "asked": 0}
        n, p, z = self.asked, self.right / self.asked, 1.96
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # Of none or all, rounding can put an end just below 0 or above 1, which prints as -0.00.
        low, high = max((middle - half) / (1 + z * z / n), 0.0), min((middle + half) / (1 + z * z / n), 1.0)
        return {"right": self.right, "asked": n, "accuracy": round(p, 4), "low": round(low, 4), "high": round(high, 4)}


def held_out_scene(index: int) -> Scene:
    """Scene ``index`` of the test; every one shows at least one shape."""
    rng = random.Random(f"{HELD_OUT}/{index}")
    while True:
        scene = sample_scene(rng)
        if scene.shapes:
            return scene


def film(path: Path, scene: Scene, *, backwards: bool = False) -> None:
    """Write ``scene`` as a two-second 128 x 128 mp4."""
    frames = render_clip(scene, side=128, frames=24)
    write_mp4(path, frames[::-1] if backwards else frames, fps=12)


def answer(assistant: Assistant, question: str, clip: Path | None) -> str:
    """One question in a new conversation, through ``Assistant.reply``."""
    session = assistant.new_session()
    clips = () if clip is None else (ClipRequest(str(clip), SamplingPlan()),)
    done = [e for e in assistant.reply(session, Message(question, clips)) if isinstance(e, Done)]
    return done[0].answer


def questions_about(scene: Scene, index: int) -> Iterator[Question]:
    """One question of each kind that the scene allows."""
    for kind in KINDS:
        asked = ask(scene, kind, random.Random(f"{HELD_OUT}/{index}/{kind}"))
        if asked is not None and asked.kind == kind != "order":  # few of these clips show an order
            yield asked


def evaluate(assistant: Assistant, clips: int, *, report: bool = True) -> dict[str, Any]:
    """All figures over ``clips`` held-out clips, as a JSON-ready dictionary."""
    tallies: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    truths: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[dict[str, Any]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(clips):
            scene = held_out_scene(index)
            path, other = Path(folder) / f"{index}.mp4", Path(folder) / f"{index}-other.mp4"
            film(path, scene)
            film(other, held_out_scene(clips + index))
            for question in questions_about(scene, index):
                said = answer(assistant, question.text, path)
                tallies["clip"][question.kind].add(question.is_right(said))
                if not question.is_right(said) and len(wrong) < 60:
                    asked = {"clip": index, "kind": question.kind, "question": question.text}
                    wrong.append({**asked, "answer": said, "truth": question.answer})
                if question.kind not in TEST_KINDS:
                    continue
                truths[question.kind][question.expected] += 1
                if index < clips * BLIND_SHARE:
                    tallies["another clip"][question.kind].add(
                        question.is_right(answer(assistant, question.text, other))
                    )
                    blind = answer(assistant, question.text, None)
                    tallies["no clip"][question.kind].add(question.is_right(blind))
                    tallies["no clip, says so"][question.kind].add(blind == NO_CLIP)
            if index < clips * EVENTS_SHARE:
                _ask_order(assistant, index, other, tallies)
            _ask_backwards(assistant, scene, index, path, tallies)
            _ask_unknown(assistant, index, path, tallies)
            for film_of_this_scene in Path(folder).iterdir():
                film_of_this_scene.unlink()
            if report and (index + 1) % 25 == 0:
                seen = _overall(tallies["clip"])
                print(f"{index + 1}/{clips} clips, {seen.right / seen.asked:.3f}", file=sys.stderr, flush=True)
    # The best that a model which never looks could do: always the most frequent truth of each kind.
    chance = sum(max(c.values()) for c in truths.values()) / sum(sum(c.values()) for c in truths.values())
    result: dict[str, Any] = {"clips": clips, "seconds": round(time.monotonic() - started, 1)}
    for name, kinds in tallies.items():
        result[name] = {kind: tally.as_dict() for kind, tally in kinds.items()}
        if set(TEST_KINDS) & set(kinds):
            result[name]["overall"] = _overall(kinds).as_dict()
    result["always the most frequent answer"] = round(chance, 4)
    result["wrong"] = wrong
    return result


def _overall(kinds: dict[str, Tally]) -> Tally:
    chosen = [kinds[k] for k in TEST_KINDS if k in kinds]
    return Tally(sum(t.right for t in chosen), sum(t.asked for t in chosen))


def _ask_order(assistant: Assistant, index: int, path: Path, tallies: dict[str, dict[str, Tally]]) -> None:
    """What happens first or last, of a clip at ``path`` where two things happen."""
    rng = random.Random(f"{HELD_OUT}/events/{index}")
    scene = sample_events(rng)
    film(path, scene)
    question = ask(scene, "order", rng)
    assert question is not None  # such scenes always have one
    tallies["clip"]["order"].add(question.is_right(answer(assistant, question.text, path)))


def _ask_backwards(
    assistant: Assistant, scene: Scene, index: int, path: Path, tallies: dict[str, dict[str, Tally]]
) -> None:
    """Left must become right where the clip is played backwards."""
    path = path.with_stem(f"{path.stem}-backwards")
    film(path, scene, backwards=True)
    backwards = reversed_scene(scene)
    for shape in backwards.shapes:
        if shape.motion in ("left", "right"):
            text = f"How does the {shape.colour} {shape.shape} move?"
            said = answer(assistant, text, path)
            question = Question("motion", text, "", shape.motion)
            tallies["backwards"]["left and right"].add(question.is_right(said))


def _ask_unknown(assistant: Assistant, index: int, path: Path, tallies: dict[str, dict[str, Tally]]) -> None:
    """What no such clip can show: half of the questions with nouns that training never used."""
    rng = random.Random(f"{HELD_OUT}/unknown/{index}")
    for name, nouns in (("known nouns", None), ("unseen nouns", HELD_OUT_NOUNS)):
        said = answer(assistant, unknown_question(rng, nouns), path)
        tallies["cannot know"][name].add(said == CANNOT_TELL)


def measured_table(result: dict[str, Any]) -> dict[str, Any]:
    """The figures that a card states: accuracies by kind of question, and how many clips were asked about."""
    table: dict[str, Any] = {
        "clips": result["clips"],
        "most_frequent_answer": result["always the most frequent answer"],
    }
    for name, kinds in result.items():
        if isinstance(kinds, dict):
            shares = {kind.replace(" ", "_"): t["accuracy"] for kind, t in kinds.items() if "accuracy" in t}
            table[name.replace(", ", "_").replace(" ", "_")] = shares
    return table


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundle", help="name or folder of a model")
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    parser.add_argument("--card", type=Path, help="card (TOML) whose measured numbers are replaced by this run's")
    options = parser.parse_args()
    with Assistant.open(options.model) as assistant:
        result = evaluate(assistant, options.clips)
    text = json.dumps(result, indent=1)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.card:
        card = read_card(options.card)
        write_whole(options.card, render_card(replace(card, measured=measured_table(result))))
    for name in ("clip", "backwards", "another clip", "no clip", "no clip, says so", "cannot know"):
        for kind, tally in result.get(name, {}).items():
            share = tally.get("accuracy", float("nan"))
            print(f"{name:20} {kind:16} {tally['right']:5} of {tally['asked']:5}  {share:.3f}")
    print(f"{'always the most frequent answer':37} {result['always the most frequent answer']:.3f}")


if __name__ == "__main__":
    main()
