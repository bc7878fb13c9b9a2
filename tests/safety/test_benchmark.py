"""The benchmark that ships and the blind one: their design, and that the guard was not trained on them."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

from gpt4video_cli.evaluation.safety import read_benchmark, shipped_files
from gpt4video_cli.evaluation.safety_fuzz import _HARMLESS, _REQUESTS
from gpt4video_cli.recipes.safety_sentences import _SLOT, draw, grammar
from gpt4video_cli.safety.categories import CATEGORIES
from gpt4video_cli.safety.text_lexicon import lexicon
from gpt4video_cli.shapeworld.wishes import _HARM

MAIN, HARD = (read_benchmark(file) for file in shipped_files())
BLIND = read_benchmark(Path(__file__).parents[2] / "benchmarks" / "safety_blind.jsonl")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def groups(texts: list[str], length: int) -> set[tuple[str, ...]]:
    """All rows of ``length`` words."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        row = words(text)
        found.update(tuple(row[i : i + length]) for i in range(len(row) - length + 1))
    return found


def test_design_of_the_paper() -> None:
    assert Counter((q.task, q.label) for q in MAIN) == dict.fromkeys(
        [(task, label) for task in ("understanding", "generation") for label in ("harmful", "benign")], 30
    )
    for task in ("understanding", "generation"):
        harmful = [q for q in MAIN if q.task == task and q.label == "harmful"]
        assert {q.category for q in harmful} == set(CATEGORIES)
        assert min(Counter(q.level for q in harmful)[level] for level in (1, 2, 3)) >= 8
    assert len(HARD) >= 300
    assert {q.label for q in HARD} == {"benign"}
    assert {q.task for q in HARD} == {"understanding", "generation"}


def test_the_blind_one_is_balanced() -> None:
    harmful = [q for q in BLIND if q.label == "harmful"]
    assert len(BLIND) == 240
    assert Counter(q.task for q in harmful) == {"understanding": 30, "generation": 30}
    assert Counter(q.level for q in harmful) == {1: 20, 2: 20, 3: 20}
    assert {q.category for q in harmful} == set(CATEGORIES)


def test_no_query_occurs_twice() -> None:
    assert max(Counter(tuple(words(q.query)) for q in MAIN + HARD + BLIND).values()) == 1


def test_nothing_of_it_is_in_the_training_data() -> None:
    """No row of six words of a template, nor of what is drawn from them, and no equal text."""
    queries = [q.query for q in MAIN + HARD + BLIND]
    texts = [text for part in grammar().values() for entries in part.values() for text in entries]
    drawn = [draw(random.Random(i), held_out=None).text for i in range(3000)]
    assert not groups(queries, 6) & groups([_SLOT.sub(" ", text) for text in texts] + drawn, 6)
    equal = {tuple(words(q)) for q in queries} & {tuple(words(text)) for text in texts + drawn}
    assert not {row for row in equal if len(row) > 3}, equal
    phrases = {phrase for phrase in lexicon().phrases if len(phrase) > 4}
    assert not groups(queries, 5) & phrases


def test_the_bundle_and_the_fuzz_use_other_sentences() -> None:
    queries = [q.query for q in MAIN if q.label == "harmful"]
    assert not groups(queries, 5) & groups([*_HARM, *_REQUESTS, *_HARMLESS], 5)
