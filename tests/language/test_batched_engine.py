"""Answers that are written together are the answers that are written alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4video_cli.language.batched_engine import BatchedEngine
from gpt4video_cli.language.engine import (
    EmbeddingSegment,
    GenerationStats,
    SamplingOptions,
    Segment,
    TextSegment,
    TokenSegment,
)
from gpt4video_cli.language.torch_engine import TorchCache, TorchEngine

GREEDY = SamplingOptions(max_tokens=20)
SAMPLED = SamplingOptions(max_tokens=20, temperature=1.1, top_p=0.95, top_k=60, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def alone(tiny_language_folder: Path) -> TorchEngine:
    return TorchEngine.load(tiny_language_folder, device="cpu")


def prompt(number: int) -> list[Segment]:
    """Of another length for each number, some with a clip."""
    start: list[Segment] = [TextSegment("<s>", trusted=True), TextSegment("the red circle moves " * (1 + 2 * number))]
    if number % 2:
        generator = torch.Generator().manual_seed(number)
        start.append(EmbeddingSegment(f"clip {number}", torch.randn(3 * number, 64, generator=generator)))
    return [*start, TextSegment("what is it")]


def options(number: int) -> SamplingOptions:
    return replace(SAMPLED if number % 3 == 2 else GREEDY, seed=number, max_tokens=8 + 3 * number)


def ask(
    engine: TorchEngine,
    segments: Sequence[Segment],
    how: SamplingOptions,
    cache: TorchCache,
    start: threading.Barrier | None = None,
) -> list[int]:
    """``start``: wait for the others before the first step, or a busy machine might run them one after the other."""
    tokens = engine.generate(segments, how, cache=cache, stats=GenerationStats())
    first = next(tokens)
    if start is not None:
        start.wait(60)
    return [first, *tokens]


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_together_they_say_what_they_say_alone_turn_by_turn(alone: TorchEngine) -> None:
    """Two turns each: the kept cache of a conversation survives the steps that it took with the others."""

    def two_turns(
        engine: TorchEngine, number: int, start: threading.Barrier | None = None
    ) -> tuple[list[int], list[int], int]:
        cache, stats = engine.new_cache(), GenerationStats()
        first = ask(engine, prompt(number), options(number), cache, start)
        again = [*prompt(number), TokenSegment(tuple(first)), TextSegment("and now the blue square")]
        second = list(engine.generate(again, options(number), cache=cache, stats=stats))
        held = {cache.past.get_seq_length(layer) for layer in range(len(cache.past.layers))}
        assert held == {len(cache.units)}
        return first, second, stats.reused_tokens

    expected = [two_turns(alone, number) for number in range(6)]
    together = BatchedEngine(alone)
    start = threading.Barrier(6)
    assert in_threads(6, lambda number: two_turns(together, number, start)) == expected
    tokens = sum(len(first) + len(second) for first, second, _ in expected)
    assert together.steps < 0.8 * tokens, "hardly any step was taken together"
    assert {len(first) for first, _, _ in expected} != {len(expected[0][0])}


def test_one_that_is_cancelled_does_not_disturb_the_others(alone: TorchEngine) -> None:
    expected = [ask(alone, prompt(number), options(number), alone.new_cache()) for number in range(4)]
    together, cancel = BatchedEngine(alone), threading.Event()

    def work(number: int) -> list[int]:
        tokens = together.generate(
            prompt(number),
            options(number),
            cache=together.new_cache(),
            stats=GenerationStats(),
            cancel=cancel if number == 1 else None,
        )
        said = []
        for token in tokens:
            said.append(token)
            if number == 1 and len(said) == 3:
                cancel.set()
        return said

    said = in_threads(4, work)
    assert said[1] == expected[1][:3]
    assert [said[i] for i in (0, 2, 3)] == [expected[i] for i in (0, 2, 3)]


def test_one_whose_reader_is_slow_does_not_hold_the_others_up(alone: TorchEngine) -> None:
    expected = ask(alone, prompt(2), options(2), alone.new_cache())
    together = BatchedEngine(alone)
    slow = together.generate(prompt(1), options(1), cache=together.new_cache(), stats=GenerationStats())
    started = [next(slow), next(slow)]  # and then nobody asks it for more
    assert ask(together, prompt(2), options(2), together.new_cache()) == expected
    assert [*started, *slow] == ask(alone, prompt(1), options(1), alone.new_cache())


@pytest.mark.parametrize("when", ["before", "half way"])
def test_where_there_is_no_room_for_all_each_goes_alone(
    when: str, alone: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, broken = BatchedEngine(alone), []
    last = alone.model.model.layers[-1] if when == "half way" else alone.model
    forward = last.forward

    def fails(*args: Any, **options: Any) -> Any:
        rows = (args[0] if args else options["inputs_embeds"]).shape[0]
        if rows > 1 and len(broken) < 2:
            broken.append(rows)
            raise MemoryError("no room for all of them")
        return forward(*args, **options)

    monkeypatch.setattr(last, "forward", fails)
    start = threading.Barrier(3)
    said = in_threads(3, lambda number: ask(together, prompt(number), options(number), together.new_cache(), start))
    assert broken
    assert said == [ask(alone, prompt(number), options(number), alone.new_cache()) for number in range(3)]


def test_an_error_of_one_alone_is_its_own(alone: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = BatchedEngine(alone)
    forward = alone.model.forward

    def fails(*args: Any, **given: Any) -> Any:
        if given["inputs_embeds"].shape[:2] == (1, 1):
            raise MemoryError("no room for one")
        return forward(*args, **given)

    monkeypatch.setattr(alone.model, "forward", fails)
    cache = together.new_cache()
    with pytest.raises(MemoryError, match="no room for one"):
        ask(together, prompt(0), GREEDY, cache)
    assert cache.units == []
    monkeypatch.setattr(alone.model, "forward", forward)
    assert ask(together, prompt(0), GREEDY, cache) == ask(alone, prompt(0), GREEDY, alone.new_cache())
