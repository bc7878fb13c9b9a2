"""The choice of the next token: parity with transformers' logits processors, and its laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4video_cli.errors import Gpt4VideoError, UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.language.sampling import keep_top_k, keep_top_p, new_generator, next_token, penalise_repetition


def random_logits(seed: int, size: int = 50) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("seed", range(5))
def test_filters_equal_transformers(seed: int) -> None:
    from transformers.generation.logits_process import (
        RepetitionPenaltyLogitsProcessor,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = random_logits(seed)
    ids = torch.tensor([[3, 4, 4, 7, 20]])
    for penalty in (0.8, 1.0, 1.3):
        reference = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits[None].clone())[0]
        torch.testing.assert_close(penalise_repetition(logits, ids[0].tolist(), penalty), reference, rtol=0, atol=0)
    for k in (1, 5, 50, 80):
        torch.testing.assert_close(keep_top_k(logits, k), TopKLogitsWarper(k)(ids, logits[None])[0], rtol=0, atol=0)
    for p in (0.05, 0.5, 0.9, 1.0):
        torch.testing.assert_close(keep_top_p(logits, p), TopPLogitsWarper(p)(ids, logits[None])[0], rtol=0, atol=0)


def test_penalty_changes_the_greedy_choice_and_needs_history() -> None:
    logits = torch.tensor([1.0, 2.0, -0.5])
    options = SamplingOptions(repetition_penalty=3.0)
    assert next_token(logits, options, [], new_generator(0)) == 1
    assert next_token(logits, options, [1], new_generator(0)) == 0
    assert next_token(logits, options, [0, 1], new_generator(0)) == 1


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**70), top_k=st.integers(0, 10), top_p=st.floats(0.01, 1.0))
def test_same_seed_same_draws_inside_the_filters(seed: int, top_k: int, top_p: float) -> None:
    logits = random_logits(1, 12)
    options = SamplingOptions(temperature=1.5, top_k=top_k, top_p=top_p, seed=seed)
    runs = []
    for _ in range(2):
        generator = new_generator(seed)
        runs.append([next_token(logits, options, [], generator) for _ in range(10)])
    assert runs[0] == runs[1]
    allowed = torch.isfinite(keep_top_p(keep_top_k(logits / 1.5, top_k), top_p)).nonzero().flatten().tolist()
    assert set(runs[0]) <= set(allowed)


def test_draws_follow_the_distribution_and_differ_between_seeds() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    options = SamplingOptions(temperature=1.0)
    generator = new_generator(0)
    draws = [next_token(probabilities.log(), options, [], generator) for _ in range(3000)]
    for token, expected in enumerate(probabilities.tolist()):
        assert abs(draws.count(token) / 3000 - expected) < 0.04
    other = new_generator(1)
    assert draws[:50] != [next_token(probabilities.log(), options, [], other) for _ in range(50)]


def test_temperature_towards_zero_is_greedy() -> None:
    logits = random_logits(2)
    best = int(logits.argmax())
    assert next_token(logits, SamplingOptions(), [], new_generator(0)) == best
    cold = SamplingOptions(temperature=1e-4)
    generator = new_generator(0)
    assert {next_token(logits, cold, [], generator) for _ in range(20)} == {best}


def test_scores_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(Gpt4VideoError, match="not numbers"):
        next_token(torch.tensor([0.0, float("nan")]), SamplingOptions(), [], new_generator(0))


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"repetition_penalty": 0}, {"max_tokens": 0}]
)
def test_options_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        SamplingOptions(**wrong)  # type: ignore[arg-type]
