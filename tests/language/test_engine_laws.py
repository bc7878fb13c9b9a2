"""Laws of every engine, on a small real LLaMA: what a kept cache, a cancel or a second conversation may not change.

Letters: n tokens of a segment, D width, V vocabulary.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4video_cli.errors import ContextFullError, UsageError, WeightsError
from gpt4video_cli.language import prompt_units
from gpt4video_cli.language.engine import (
    EmbeddingSegment,
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
from tests.language.asking import GREEDY, SAMPLED, ask, check_consistent, clip, length, prompt, units_of


@pytest.fixture(scope="module")
def engines(tiny_language_folder: Path, tiny_gguf: Path) -> dict[str, Engine]:
    return {
        "torch": TorchEngine.load(tiny_language_folder, device="cpu"),
        "llama": LlamaEngine.load(tiny_gguf, tiny_language_folder),
    }


@pytest.fixture(params=["torch", "llama"])
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.fixture
def other(engine: Engine, engines: dict[str, Engine]) -> Engine:
    return engines["llama" if engine.name == "torch" else "torch"]


@pytest.fixture
def small(engine: Engine, tiny_language_folder: Path, tiny_gguf: Path) -> Engine:
    """The same model with a context of 24."""
    if isinstance(engine, TorchEngine):
        return TorchEngine(engine.model, engine.tokenizer, engine.end_ids, context_length=24)
    return LlamaEngine.load(tiny_gguf, tiny_language_folder, context_length=24)


def test_it_is_an_engine(engine: Engine, request: pytest.FixtureRequest) -> None:
    assert (engine.name, engine.device) == (request.node.callspec.params["engine"], "cpu")
    assert (engine.width, engine.context_length, engine.end_ids) == (64, 512, frozenset({2}))
    assert engine.adapters == ()


def test_full_context(engine: Engine, small: Engine) -> None:
    segments = [clip("a", 20), TextSegment("a")]
    ids, stats = ask(small, segments)
    assert stats.finish_reason == "context" and len(ids) == 24 - stats.prompt_tokens
    assert ids == ask(engine, segments)[0][: len(ids)]
    for n in (24, 30):
        with pytest.raises(ContextFullError, match=f"{n} tokens.*24"):
            ask(small, [clip("a", n)])
    with pytest.raises(UsageError, match="empty"):
        ask(small, [TextSegment("")])
    with pytest.raises(UsageError, match="not this model's"):
        ask(small, [TokenSegment((1, 5000))])


def test_embeddings_of_another_width_or_number_format(engine: Engine) -> None:
    with pytest.raises(WeightsError, match=r"\[16, 32\].*\[n, 64\]"):
        ask(engine, [clip("a", width=32), TextSegment("a")])
    exact = torch.from_numpy(clip("a").embeddings)
    half = EmbeddingSegment("a", exact.half().requires_grad_())
    rounded = EmbeddingSegment("a", exact.half().float().numpy())
    plain = EmbeddingSegment("a", np.asfortranarray(rounded.embeddings))
    assert ask(engine, [half])[0] == ask(engine, [rounded])[0] == ask(engine, [plain])[0]


def test_length_is_a_finish_reason_and_the_last_token_is_not_evaluated(engine: Engine) -> None:
    cache = engine.new_cache()
    ids, stats = ask(engine, prompt("the red"), replace(GREEDY, max_tokens=3), cache)
    assert (len(ids), stats.finish_reason) == (3, "length")
    assert len(units_of(cache)) == stats.prompt_tokens + 2
    cache.clear()
    check_consistent(cache)
    assert units_of(cache) == []


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_ten_turns_with_the_kept_cache_equal_those_without_and_evaluate_only_what_is_new(
    engine: Engine, options: SamplingOptions
) -> None:
    cache = engine.new_cache()
    history: list[Segment] = [TextSegment("<s>", trusted=True)]
    known = 0  # positions that the cache must hold from the turns before
    for turn in range(10):
        if turn in (0, 4):
            history += [TextSegment("###Human: <video>"), clip(f"clip{turn}"), TextSegment("</video>\n")]
        history.append(TextSegment(f"###Human: what colour is it {turn}?\n###AI:"))
        kept, fresh = GenerationStats(), GenerationStats()
        text = "".join(stream_text(engine, history, options, cache=cache, stats=kept))
        again = "".join(stream_text(engine, history, options, cache=engine.new_cache(), stats=fresh))
        assert (text, kept.ids) == (again, fresh.ids)
        assert fresh.reused_tokens == 0
        assert kept.reused_tokens == known
        assert kept.evaluated_tokens == length(engine, history) - known
        # The cache holds the prompt and the reply, but not a last token that max_tokens cut off before it was needed.
        computed = kept.prompt_tokens + kept.new_tokens - (kept.finish_reason == "length")
        assert len(units_of(cache)) == computed
        history += [TokenSegment(tuple(kept.ids)), TextSegment("</s>", trusted=True), TextSegment("\n")]
        # A reply that max_tokens cut inside a character ends before it, so ids may be fewer than tokens.
        known = min(computed, kept.prompt_tokens + len(kept.ids))
        check_consistent(cache)


def test_turn_after_a_stop_string_reuses_what_was_kept(engine: Engine) -> None:
    cache, whole, cut = engine.new_cache(), GenerationStats(), GenerationStats()
    text = "".join(stream_text(engine, prompt("the red"), GREEDY, cache=engine.new_cache(), stats=whole))
    stop = text[len(text) // 2 :][:3]
    options = replace(GREEDY, stop=(stop,))
    kept = "".join(stream_text(engine, prompt("the red"), options, cache=cache, stats=cut))
    assert kept == text[: text.index(stop)] == engine.detokenize(cut.ids)
    assert cut.finish_reason == "stop" and 0 < len(cut.ids) < cut.new_tokens < len(whole.ids)
    same = prompt_units.common_prefix(cut.ids, whole.ids)
    assert same >= len(cut.ids) - 1, "only a token that the stop string cuts is spelled anew"
    history = [*prompt("the red"), TokenSegment(tuple(cut.ids)), TextSegment("what is it?")]
    ids, stats = ask(engine, history, cache=cache)
    assert stats.reused_tokens == cut.prompt_tokens + same
    assert ids == ask(engine, history)[0]


def test_same_question_again_evaluates_one_position(engine: Engine) -> None:
    cache = engine.new_cache()
    first, _ = ask(engine, prompt("what is it?"), cache=cache)
    second, stats = ask(engine, prompt("what is it?"), cache=cache)
    assert first == second and stats.evaluated_tokens == 1


def test_changed_history_is_reused_up_to_the_change(engine: Engine) -> None:
    cache = engine.new_cache()
    ask(engine, [*prompt("the red"), TextSegment("circle")], cache=cache)
    shared = length(engine, prompt("the red"))
    ids, stats = ask(engine, [*prompt("the red"), TextSegment("square moves")], cache=cache)
    assert stats.reused_tokens == shared
    assert ids == ask(engine, [*prompt("the red"), TextSegment("square moves")])[0]
    ids, stats = ask(engine, [TextSegment("a blue")], cache=cache)  # not even the start token is shared
    assert stats.reused_tokens == 0 and ids == ask(engine, [TextSegment("a blue")])[0]


def test_embeddings_are_reused_by_their_key(engine: Engine) -> None:
    cache = engine.new_cache()
    question = TextSegment("what is it?")
    ask(engine, [clip("a"), question], cache=cache)
    _, stats = ask(engine, [clip("a"), question], cache=cache)
    assert stats.reused_tokens == stats.prompt_tokens - 1
    ids, stats = ask(engine, [clip("b"), question], cache=cache)
    assert stats.reused_tokens == 0 and ids == ask(engine, [clip("b"), question])[0]
    _, stats = ask(engine, [clip("b", 20), question], cache=cache)
    assert stats.reused_tokens == 16, "the same key with more vectors continues"


def test_two_conversations_do_not_disturb_each_other(engine: Engine, other: Engine) -> None:
    questions = [prompt("the red circle moves"), prompt("what colour is it?")]
    alone = [ask(engine, question)[0] for question in questions]
    caches = [engine.new_cache(), engine.new_cache()]
    runs = [
        engine.generate(question, GREEDY, cache=cache, stats=GenerationStats())
        for question, cache in zip(questions, caches, strict=True)
    ]
    together: list[list[int]] = [[], []]
    for _ in range(GREEDY.max_tokens):
        for number, tokens in enumerate(runs):
            together[number] += [token for token in [next(tokens, None)] if token is not None]
    assert together == alone
    with pytest.raises(TypeError, match="another engine"):
        ask(other, questions[0], cache=caches[0])


def test_cancel_stops_between_tokens_and_leaves_the_cache_usable(engine: Engine) -> None:
    whole, _ = ask(engine, prompt("the red"), replace(GREEDY, max_tokens=8))
    assert len(whole) == 8
    cancel, cache, stats = threading.Event(), engine.new_cache(), GenerationStats()
    ids = []
    for token in engine.generate(prompt("the red"), GREEDY, cache=cache, stats=stats, cancel=cancel):
        ids.append(token)
        if len(ids) == 3:
            cancel.set()
    assert ids == whole[:3] == stats.ids and stats.finish_reason == "cancelled"
    check_consistent(cache)
    rest, stats = ask(engine, [*prompt("the red"), TokenSegment(tuple(ids))], replace(GREEDY, max_tokens=5), cache)
    assert ids + rest == whole and stats.evaluated_tokens == 1


def test_sampling_is_repeatable_and_differs_between_seeds(engine: Engine) -> None:
    runs = [ask(engine, prompt("the red"), replace(SAMPLED, seed=seed))[0] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
