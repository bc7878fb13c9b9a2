"""Train the text guard that ships with the program, and measure it on held-out templates and words.

    python -m gpt4video_cli.recipes.safety_text

Draws sentences, trains one logistic regression for each category, rounds the weights to 8 bits and writes
``gpt4video_cli/safety/text_guard.safetensors``: about a minute on one core. Needs nothing but numpy. The figures are of
a guard that has not seen the held-out templates and words; the one that is written was trained on all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from gpt4video_cli.recipes.safety_sentences import Sentence, draw, vocabulary
from gpt4video_cli.safety.categories import CATEGORIES
from gpt4video_cli.safety.text_features import feature_count, features, with_ages
from gpt4video_cli.safety.text_guard import WEIGHTS, BuiltinTextGuard, normaliser_for
from gpt4video_cli.safety.text_lexicon import lexicon
from gpt4video_cli.whole_file import whole_file


@dataclass(frozen=True)
class Recipe:
    """All numbers of the training. ``decay``: L2 of concepts and their pairs; ``hashed_decay``: of hashed words.

    ``hidden``: share of a sentence's hashed words that a step does not see, so that concepts carry what they can.
    ``bias``: of a text without any evidence, which is harmless. ``lowest``: weight of a hashed word, so that many
    harmless words do not outweigh a harmful one.
    """

    sentences: int = 60_000
    held_out: int = 4_000
    epochs: int = 10
    batch: int = 256
    rate: float = 0.15
    decay: float = 1e-5
    hashed_decay: float = 3e-4
    hidden: float = 0.5
    bias: float = -2.0
    lowest: float = -1.0
    seed: int = 0


def plain_words() -> frozenset[str]:
    """Words that exist and look like the disguise of another: ``text_plain_words.txt``."""
    text = files("gpt4video_cli.safety").joinpath("text_plain_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def train(recipe: Recipe, *, everything: bool) -> tuple[BuiltinTextGuard, np.ndarray, np.ndarray, np.ndarray]:
    """Train on ``everything``, or leave out what is held out.

    The guard, and its weights int8 [features, categories + 1], their scale and the bias [categories + 1]."""
    known, names = lexicon(), tuple(CATEGORIES)
    normaliser = normaliser_for(known, plain_words(), vocabulary())
    rng = random.Random(recipe.seed)
    drawn = [draw(rng, held_out=None if everything else False) for _ in range(recipe.sentences)]
    rows = [features(with_ages(normaliser.words(s.text)), known) for s in drawn]
    wanted = np.array([[*(name in s.categories for name in names), bool(s.categories)] for s in drawn], np.float32)
    count, concepts = feature_count(len(known.names)), len(known.names)
    hashed = concepts + concepts * concepts
    decay = np.full((count, 1), recipe.decay, np.float32)
    decay[hashed:] = recipe.hashed_decay
    weights, bias = np.zeros((count, len(names) + 1), np.float32), np.full(len(names) + 1, recipe.bias, np.float32)
    lowest, highest = _bounds(recipe, count)
    squares = np.full_like(weights, 1e-6)
    noise = np.random.default_rng(recipe.seed)
    for epoch in range(recipe.epochs):
        order, rate = noise.permutation(len(rows)), recipe.rate * (1 - epoch / recipe.epochs)
        for start in range(0, len(rows), recipe.batch):
            chosen = order[start : start + recipe.batch]
            index = np.concatenate([np.asarray(rows[i]) for i in chosen])
            owner = np.repeat(np.arange(len(chosen)), [len(rows[i]) for i in chosen])
            seen = (index < hashed) | (noise.random(len(index)) >= recipe.hidden)
            index, owner = index[seen], owner[seen]
            logits = np.zeros((len(chosen), wanted.shape[1]), np.float32)
            np.add.at(logits, owner, weights[index])
            error = 1 / (1 + np.exp(-(logits + bias))) - wanted[chosen]
            touched, place = np.unique(index, return_inverse=True)
            slope = np.zeros((len(touched), wanted.shape[1]), np.float32)
            np.add.at(slope, place, error[owner])
            slope = slope / len(chosen) + decay[touched] * weights[touched]
            squares[touched] += slope**2  # AdaGrad (Duchi et al. 2011): rare features keep their step
            weights[touched] -= rate * slope / np.sqrt(squares[touched])
            weights[touched] = weights[touched].clip(lowest[touched], highest[touched])
    scale = np.abs(weights).max(axis=0) / 127
    rounded = np.round(weights / scale).astype(np.int8)
    guard = BuiltinTextGuard(known, normaliser, names, rounded.astype(np.float32) * scale, bias)
    return guard, rounded, scale.astype(np.float32), bias


def _bounds(recipe: Recipe, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest weight of each feature, [features, 1].

    Only what has to do with a harmful concept speaks for harm: no way of asking is harmful, and no unknown word.
    """
    harm, concepts = lexicon().harm, len(lexicon().names)
    lowest, highest = np.full((count, 1), -np.inf, np.float32), np.zeros((count, 1), np.float32)
    lowest[concepts + concepts * concepts :] = recipe.lowest
    for number in harm:
        highest[number] = np.inf
        for other in range(concepts):
            highest[concepts + min(number, other) * concepts + max(number, other)] = np.inf
    return lowest, highest


def save(path: Path, recipe: Recipe, rounded: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> None:
    """Write the guard's file."""
    from safetensors.numpy import save_file

    notes = {
        "categories": json.dumps(list(CATEGORIES)),
        "concepts": json.dumps(list(lexicon().names)),
        "plain": json.dumps(sorted(plain_words()), separators=(",", ":")),
        "vocabulary": json.dumps(sorted(vocabulary()), separators=(",", ":")),
        "recipe": repr(recipe),
    }
    with whole_file(path) as temporary:
        save_file({"weights": rounded, "scale": scale, "bias": bias}, temporary, notes)


def wrong(guard: BuiltinTextGuard, sentences: list[Sentence]) -> dict[str, list[Sentence]]:
    """Kind -> the sentences that are judged wrongly at a threshold of 0.5."""
    result: dict[str, list[Sentence]] = {"harmful": [], "hard": [], "plain": []}
    for sentence in sentences:
        if (max(guard.score(sentence.text).values()) >= 0.5) != bool(sentence.categories):
            result[sentence.kind].append(sentence)
    return result


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(str(files("gpt4video_cli.safety").joinpath(WEIGHTS))))
    parser.add_argument(
        "--show", type=int, default=0, metavar="N", help="print N wrongly judged sentences of each kind"
    )
    options = parser.parse_args()
    recipe, started = Recipe(), time.monotonic()
    guard, *_ = train(recipe, everything=False)
    rng = random.Random(recipe.seed + 1)
    held_out = [draw(rng, held_out=True) for _ in range(recipe.held_out)]
    for kind, sentences in wrong(guard, held_out).items():
        total = sum(s.kind == kind for s in held_out)
        print(f"held out, {kind:8} {len(sentences):5} of {total:5} wrong  {len(sentences) / total:.4f}")
        for sentence in sentences[: options.show]:
            print(f"    {sentence.categories} {sentence.text}")
    save(options.output, recipe, *train(recipe, everything=True)[1:])
    print(f"{options.output}: {options.output.stat().st_size} bytes, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
