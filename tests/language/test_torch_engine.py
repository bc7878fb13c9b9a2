"""Laws of the PyTorch engine on a small real LLaMA. Letters: n tokens of a segment, D width, V vocabulary."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt4video_cli.errors import ContextFullError, UsageError, WeightsError
from gpt4video_cli.language import torch_engine
from gpt4video_cli.language.engine import (
    EmbeddingSegment,
    Engine,
    GenerationStats,
    SamplingOptions,
    Segment,
    TextSegment,
    TokenSegment,
)
from gpt4video_cli.language.stream import stream_text
from gpt4video_cli.language.torch_engine import TorchCache, TorchEngine

GREEDY = SamplingOptions(max_tokens=12)
SAMPLED = SamplingOptions(max_tokens=12, temperature=1.1, top_p=0.95, top_k=60, repetition_penalty=1.2, seed=7)


@pytest.fixture(scope="module")
def engine(tiny_language_folder: Path) -> TorchEngine:
    return TorchEngine.load(tiny_language_folder, device="cpu")


def clip(key: str, n: int = 16, width: int = 64) -> EmbeddingSegment:
    generator = torch.Generator().manual_seed(sum(key.encode()))
    return EmbeddingSegment(key, torch.randn(n, width, generator=generator))


def prompt(*text: str) -> list[Segment]:
    return [TextSegment("<s>", trusted=True), *map(TextSegment, text)]


def length(engine: TorchEngine, segments: list[Segment]) -> int:
    return len(engine._lay_out(segments)[0])


def ask(
    engine: TorchEngine, segments: list[Segment], options: SamplingOptions = GREEDY, cache: TorchCache | None = None
) -> tuple[list[int], GenerationStats]:
    """Token ids of a reply; checks what must hold after every reply."""
    cache, stats = cache or engine.new_cache(), GenerationStats()
    ids = list(engine.generate(segments, options, cache=cache, stats=stats))
    assert stats.ids == ids and stats.new_tokens == len(ids)
    assert stats.prompt_tokens == stats.reused_tokens + stats.evaluated_tokens == length(engine, segments)
    check_consistent(cache)
    return ids, stats


def check_consistent(cache: TorchCache) -> None:
    """The cache holds as many positions as it names, in every layer."""
    held = [cache.past.get_seq_length(layer) for layer in range(len(cache.past.layers))]
    assert set(held) <= {len(cache.units)} and (held or not cache.units)


def test_it_is_an_engine(engine: TorchEngine) -> None:
    as_protocol: Engine = engine
    assert (as_protocol.name, as_protocol.device) == ("torch", "cpu")
    assert (as_protocol.width, as_protocol.context_length, as_protocol.end_ids) == (64, 512, frozenset({2}))


def test_greedy_equals_transformers_generate(engine: TorchEngine) -> None:
    for text in ("the red circle moves", "what colour is it?", "é 中"):
        ids = engine.tokenize("<s>", trusted=True) + engine.tokenize(text)
        reference = engine.model.generate(
            torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        answer = reference[0, len(ids) :].tolist()
        assert ask(engine, prompt(text), replace(GREEDY, max_tokens=20))[0] == [i for i in answer if i != 2]


def test_logits_equal_a_plain_forward_with_embeddings(engine: TorchEngine) -> None:
    first, second = clip("a"), clip("b", 5)
    segments = [TextSegment("<s>", trusted=True), first, TextSegment("then"), second, TextSegment("what is it?")]
    table = engine.model.get_input_embeddings()
    parts = [
        table(torch.tensor([1])),
        first.embeddings,
        table(torch.tensor(engine.tokenize("then"))),
        second.embeddings,
        table(torch.tensor(engine.tokenize("what is it?"))),
    ]
    with torch.no_grad():
        reference = engine.model(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0, -1]
    torch.testing.assert_close(engine.logits(segments), reference, atol=1e-4, rtol=1e-4)
    swapped = [segments[0], second, segments[2], first, segments[4]]
    assert (engine.logits(swapped) - reference).abs().max() > 0.1, "the order of clips matters"


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_prefill_in_chunks_equals_whole(engine: TorchEngine, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [*prompt("the red"), clip("a"), TextSegment("circle moves left")]
    whole, whole_ids = engine.logits(segments), ask(engine, segments)[0]
    monkeypatch.setattr(torch_engine, "CHUNK", chunk)
    torch.testing.assert_close(engine.logits(segments), whole, atol=1e-4, rtol=1e-4)
    assert ask(engine, segments)[0] == whole_ids


@pytest.mark.parametrize("options", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_ten_turns_with_the_kept_cache_equal_those_without_and_evaluate_only_what_is_new(
    engine: TorchEngine, options: SamplingOptions
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
        assert len(cache.units) == computed
        history += [TokenSegment(tuple(kept.ids)), TextSegment("</s>", trusted=True), TextSegment("\n")]
        # A reply that max_tokens cut inside a character ends before it, so ids may be fewer than tokens.
        known = min(computed, kept.prompt_tokens + len(kept.ids))
        check_consistent(cache)


def test_turn_after_a_stop_string_reuses_what_was_kept(engine: TorchEngine) -> None:
    cache, whole, cut = engine.new_cache(), GenerationStats(), GenerationStats()
    text = "".join(stream_text(engine, prompt("the red"), GREEDY, cache=engine.new_cache(), stats=whole))
    stop = text[len(text) // 2 :][:3]
    options = replace(GREEDY, stop=(stop,))
    kept = "".join(stream_text(engine, prompt("the red"), options, cache=cache, stats=cut))
    assert kept == text[: text.index(stop)] == engine.detokenize(cut.ids)
    assert cut.finish_reason == "stop" and 0 < len(cut.ids) < cut.new_tokens < len(whole.ids)
    same = torch_engine.common_prefix(cut.ids, whole.ids)
    assert same >= len(cut.ids) - 1, "only a token that the stop string cuts is spelled anew"
    history = [*prompt("the red"), TokenSegment(tuple(cut.ids)), TextSegment("what is it?")]
    ids, stats = ask(engine, history, cache=cache)
    assert stats.reused_tokens == cut.prompt_tokens + same
    assert ids == ask(engine, history)[0]


def test_all_positions_are_evaluated_exactly_once(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the model itself, not in the engine's own statistics."""
    seen: list[int] = []
    forward = engine.model.forward

    def counting(**arguments: torch.Tensor) -> object:
        seen.extend(arguments["position_ids"][0].tolist())
        return forward(**arguments)

    monkeypatch.setattr(engine.model, "forward", counting)
    cache = engine.new_cache()
    history = prompt("the red circle")
    for _ in range(4):
        ids, _ = ask(engine, history, cache=cache)
        history += [TokenSegment(tuple(ids)), TextSegment("</s>", trusted=True), TextSegment("what is it?")]
    assert seen == list(range(len(seen))), "each position once, in order"
    assert len(seen) == len(cache.units)


def test_same_question_again_evaluates_one_position(engine: TorchEngine) -> None:
    cache = engine.new_cache()
    first, _ = ask(engine, prompt("what is it?"), cache=cache)
    second, stats = ask(engine, prompt("what is it?"), cache=cache)
    assert first == second and stats.evaluated_tokens == 1


def test_changed_history_is_reused_up_to_the_change(engine: TorchEngine) -> None:
    cache = engine.new_cache()
    ask(engine, [*prompt("the red"), TextSegment("circle")], cache=cache)
    shared = length(engine, prompt("the red"))
    ids, stats = ask(engine, [*prompt("the red"), TextSegment("square moves")], cache=cache)
    assert stats.reused_tokens == shared
    assert ids == ask(engine, [*prompt("the red"), TextSegment("square moves")])[0]
    ids, stats = ask(engine, [TextSegment("a blue")], cache=cache)  # not even the start token is shared
    assert stats.reused_tokens == 0 and ids == ask(engine, [TextSegment("a blue")])[0]


def test_embeddings_are_reused_by_their_key(engine: TorchEngine) -> None:
    cache = engine.new_cache()
    question = TextSegment("what is it?")
    ask(engine, [clip("a"), question], cache=cache)
    _, stats = ask(engine, [clip("a"), question], cache=cache)
    assert stats.reused_tokens == stats.prompt_tokens - 1
    ids, stats = ask(engine, [clip("b"), question], cache=cache)
    assert stats.reused_tokens == 0 and ids == ask(engine, [clip("b"), question])[0]
    _, stats = ask(engine, [clip("b", 20), question], cache=cache)
    assert stats.reused_tokens == 16, "the same key with more vectors continues"


def test_two_conversations_do_not_disturb_each_other(engine: TorchEngine) -> None:
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
    other_engine = TorchEngine(engine.model, engine.tokenizer, engine.end_ids, context_length=64)
    with pytest.raises(TypeError, match="another engine"):
        ask(other_engine, questions[0], cache=caches[0])


def test_cancel_stops_between_tokens_and_leaves_the_cache_usable(engine: TorchEngine) -> None:
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


def test_cancel_during_the_prompt_and_closing_early(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "CHUNK", 4)
    segments = prompt("the red circle moves left and right")
    cancel, cache, stats = threading.Event(), engine.new_cache(), GenerationStats()
    evaluate = engine._evaluate

    def then_cancel(*arguments: object) -> torch.Tensor:
        cancel.set()
        return evaluate(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_evaluate", then_cancel)
        assert list(engine.generate(segments, GREEDY, cache=cache, stats=stats, cancel=cancel)) == []
    assert (stats.finish_reason, stats.evaluated_tokens, len(cache.units)) == ("cancelled", 4, 4)
    _, stats = ask(engine, segments, cache=cache)
    assert stats.reused_tokens == 4

    stats = GenerationStats()
    tokens = engine.generate(segments, GREEDY, cache=cache, stats=stats)
    next(tokens)
    tokens.close()  # type: ignore[attr-defined]
    assert stats.finish_reason == "cancelled" and stats.new_tokens == 1
    check_consistent(cache)


def test_failure_inside_the_model_empties_the_cache(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = engine.new_cache()
    ask(engine, prompt("the red"), cache=cache)
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise KeyboardInterrupt  # Ctrl-C after the first layer wrote its keys

        patch.setattr(engine.model.model.layers[1], "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            ask(engine, prompt("the red circle"), cache=cache)
    check_consistent(cache)
    assert ask(engine, prompt("the red circle"), cache=cache)[0] == ask(engine, prompt("the red circle"))[0]


def test_full_context(engine: TorchEngine) -> None:
    small = TorchEngine(engine.model, engine.tokenizer, engine.end_ids, context_length=24)
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


def test_finish_reasons_length_and_stop(engine: TorchEngine) -> None:
    ids, stats = ask(engine, prompt("the red"), replace(GREEDY, max_tokens=3))
    assert (len(ids), stats.finish_reason) == (3, "length")
    ending = TorchEngine(engine.model, engine.tokenizer, frozenset({ids[2]}), context_length=512)
    shorter, stats = ask(ending, prompt("the red"))
    assert (shorter, stats.finish_reason) == (ids[: ids.index(ids[2])], "stop")


def test_embeddings_of_another_width_or_number_format(engine: TorchEngine) -> None:
    with pytest.raises(WeightsError, match=r"\[16, 32\].*\[n, 64\]"):
        ask(engine, [clip("a", width=32), TextSegment("a")])
    half = EmbeddingSegment("a", clip("a").embeddings.half().requires_grad_())
    rounded = EmbeddingSegment("a", clip("a").embeddings.half().float())
    torch.testing.assert_close(engine.logits([half]), engine.logits([rounded]))


def test_half_precision_runs(tiny_language_folder: Path, engine: TorchEngine) -> None:
    half = TorchEngine.load(tiny_language_folder, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    segments = [*prompt("the red"), clip("a")]
    ids, _ = ask(half, segments)
    assert len(ids) > 0
    assert torch.nn.functional.cosine_similarity(half.logits(segments), engine.logits(segments), dim=0) > 0.99


def test_sampling_is_repeatable_and_differs_between_seeds(engine: TorchEngine) -> None:
    runs = [ask(engine, prompt("the red"), replace(SAMPLED, seed=seed))[0] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
