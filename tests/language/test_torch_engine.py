"""What only the PyTorch engine has to show, on a small real LLaMA; for both engines see test_engine_laws.py."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt4video_cli.language import torch_engine
from gpt4video_cli.language.engine import GenerationStats, TextSegment, TokenSegment
from gpt4video_cli.language.torch_engine import TorchEngine
from tests.language.asking import GREEDY, ask, check_consistent, clip, prompt


@pytest.fixture(scope="module")
def engine(tiny_language_folder: Path) -> TorchEngine:
    return TorchEngine.load(tiny_language_folder, device="cpu")


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
        torch.from_numpy(first.embeddings),
        table(torch.tensor(engine.tokenize("then"))),
        torch.from_numpy(second.embeddings),
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


def test_finish_reasons_length_and_stop(engine: TorchEngine) -> None:
    ids, stats = ask(engine, prompt("the red"), replace(GREEDY, max_tokens=3))
    assert (len(ids), stats.finish_reason) == (3, "length")
    ending = TorchEngine(engine.model, engine.tokenizer, frozenset({ids[2]}), context_length=512)
    shorter, stats = ask(ending, prompt("the red"))
    assert (shorter, stats.finish_reason) == (ids[: ids.index(ids[2])], "stop")


def test_half_precision_runs(tiny_language_folder: Path, engine: TorchEngine) -> None:
    half = TorchEngine.load(tiny_language_folder, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    segments = [*prompt("the red"), clip("a")]
    ids, _ = ask(half, segments)
    assert len(ids) > 0
    assert torch.nn.functional.cosine_similarity(half.logits(segments), engine.logits(segments), dim=0) > 0.99
