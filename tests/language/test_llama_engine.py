"""What the llama.cpp engine has to show beside the laws of every engine: PyTorch's numbers, chunks, room, adapters.

Letters: n tokens of a segment, D width, V vocabulary.
"""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import Gpt4VideoError, SessionFileError, UsageError, WeightsError
from gpt4video_cli.language.adapters import Adapter, AdapterWish, parse_adapters
from gpt4video_cli.language.engine import GenerationStats, Segment, TextSegment, TokenSegment
from gpt4video_cli.language.llama_context import LlamaContext
from gpt4video_cli.language.llama_engine import LlamaEngine, _run_end
from gpt4video_cli.language.llama_options import LlamaOptions
from gpt4video_cli.language.torch_engine import TorchEngine
from tests.language.asking import GREEDY, SAMPLED, ask, check_consistent, clip, prompt


@pytest.fixture(scope="module")
def engine(tiny_gguf: Path, tiny_language_folder: Path) -> LlamaEngine:
    return LlamaEngine.load(tiny_gguf, tiny_language_folder)


@pytest.fixture(scope="module")
def reference(tiny_language_folder: Path) -> TorchEngine:
    return TorchEngine.load(tiny_language_folder, device="cpu")


TWO_CLIPS: list[Segment] = [
    *prompt("###Human: "),
    clip("a"),
    TextSegment("then"),
    clip("b", 5),
    TextSegment("what is it?\n###AI:"),
]


def difference(engine: LlamaEngine, other: TorchEngine | LlamaEngine, segments: list[Segment] = TWO_CLIPS) -> float:
    """Of logits, the largest."""
    return float(np.abs(engine.logits(segments) - np.asarray(other.logits(segments))).max())


# --- the same numbers ---------------------------------------------------------------------------------------------


def test_logits_and_greedy_answers_are_those_of_pytorch(engine: LlamaEngine, reference: TorchEngine) -> None:
    assert difference(engine, reference) < 2e-5
    swapped = [*TWO_CLIPS[:2], TWO_CLIPS[4], TWO_CLIPS[3], TWO_CLIPS[2], *TWO_CLIPS[5:]]
    assert difference(engine, reference, swapped) < 2e-5
    assert np.abs(engine.logits(swapped) - engine.logits(TWO_CLIPS)).max() > 0.1, "the order of clips matters"
    for options in (GREEDY, replace(GREEDY, max_tokens=40, repetition_penalty=1.3)):
        for segments in (TWO_CLIPS, prompt("what colour is it?"), prompt("é 中")):
            assert ask(engine, segments, options)[0] == ask(reference, segments, options)[0]


@pytest.mark.parametrize(("options", "tolerance"), [({"kv_type": "f16"}, 1e-2), ({"flash_attention": "on"}, 5e-2)])
def test_narrower_keys_and_values_stay_near(
    options: dict[str, str], tolerance: float, tiny_gguf: Path, tiny_language_folder: Path, engine: LlamaEngine
) -> None:
    narrow = LlamaEngine.load(tiny_gguf, tiny_language_folder, options=LlamaOptions(**options))  # type: ignore[arg-type]
    assert 0 < difference(narrow, engine) < tolerance


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_prefill_in_chunks_equals_whole(
    chunk: int, engine: LlamaEngine, tiny_gguf: Path, tiny_language_folder: Path
) -> None:
    loaded = LlamaEngine.load(tiny_gguf, tiny_language_folder)
    pieces = LlamaEngine(
        loaded._model,
        loaded.tokenizer,
        loaded.end_ids,
        context_length=512,
        cells=512,
        kind="f32",
        options=LlamaOptions(),
        chunk=chunk,
    )
    assert difference(pieces, engine) < 2e-5
    assert ask(pieces, TWO_CLIPS)[0] == ask(engine, TWO_CLIPS)[0]


def test_batches_hold_tokens_or_consecutive_rows_of_one_clip() -> None:
    units = [1, 2, ("a", 0), ("a", 1), ("a", 0), ("a", 1), ("b", 2), 3]
    ends = [0]
    while ends[-1] < len(units):
        ends.append(_run_end(units, ends[-1], 512))
    assert ends == [0, 2, 4, 6, 7, 8]
    assert _run_end([1] * 9, 0, 4) == 4 and _run_end([("a", i) for i in range(9)], 2, 4) == 6


# --- sampling -----------------------------------------------------------------------------------------------------


def test_samplers_draw_from_the_distribution_that_pytorch_draws_from(
    engine: LlamaEngine, reference: TorchEngine
) -> None:
    """First tokens of 400 seeds: the same support, and frequencies no further apart than chance makes them."""
    options = replace(SAMPLED, max_tokens=1, top_k=6, top_p=0.9)
    segments = prompt("the red circle red circle")
    counts: list[dict[int, int]] = []
    for one in (engine, reference):
        cache, found = one.new_cache(), {}  # type: ignore[var-annotated]
        for seed in range(400):
            stats = GenerationStats()
            ids = list(one.generate(segments, replace(options, seed=seed), cache=cache, stats=stats))
            found[ids[0] if ids else -1] = found.get(ids[0] if ids else -1, 0) + 1
        counts.append(found)
    assert set(counts[0]) == set(counts[1]) and len(counts[0]) > 2
    for id_, number in counts[0].items():
        assert abs(number - counts[1][id_]) < 5 * (number + counts[1][id_]) ** 0.5, counts


def test_scores_that_are_no_numbers(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaContext, "logits", lambda self: np.array([0.0, np.nan]))
    with pytest.raises(Gpt4VideoError, match="NaN"):
        ask(engine, prompt("the red"))


# --- room for conversations ---------------------------------------------------------------------------------------


def crowded(tiny_gguf: Path, folder: Path, cells: int) -> LlamaEngine:
    """An engine with little room for all conversations together."""
    loaded = LlamaEngine.load(tiny_gguf, folder)
    return LlamaEngine(
        loaded._model,
        loaded.tokenizer,
        loaded.end_ids,
        context_length=cells,
        cells=cells,
        kind="f32",
        options=LlamaOptions(),
    )


def test_whoever_was_silent_for_longest_makes_room(
    engine: LlamaEngine, tiny_gguf: Path, tiny_language_folder: Path
) -> None:
    tight = crowded(tiny_gguf, tiny_language_folder, 96)
    questions = [[clip(key, 20), TextSegment("what is it?")] for key in "abcd"]
    caches = [tight.new_cache() for _ in questions]
    for question, cache in zip(questions, caches, strict=True):
        assert ask(tight, question, cache=cache)[0] == ask(engine, question)[0]
    assert [bool(cache.units) for cache in caches] == [False, False, True, True]
    ids, stats = ask(tight, questions[3], cache=caches[3])
    assert stats.evaluated_tokens == 1
    ids, stats = ask(tight, questions[0], cache=caches[0])
    assert stats.reused_tokens == 0 and ids == ask(engine, questions[0])[0]
    for cache in caches:
        check_consistent(cache)


def test_a_reply_goes_on_after_others_took_its_room(
    engine: LlamaEngine, tiny_gguf: Path, tiny_language_folder: Path
) -> None:
    tight = crowded(tiny_gguf, tiny_language_folder, 64)
    questions = [[clip("a", 30), TextSegment("a")], [clip("b", 40), TextSegment("b")]]
    runs = [
        tight.generate(question, GREEDY, cache=tight.new_cache(), stats=GenerationStats()) for question in questions
    ]
    together: list[list[int]] = [[], []]
    for _ in range(GREEDY.max_tokens):
        for number, tokens in enumerate(runs):
            together[number] += [token for token in [next(tokens, None)] if token is not None]
    assert together == [ask(engine, question)[0] for question in questions]


def test_conversations_that_are_gone_free_their_sequence(engine: LlamaEngine) -> None:
    for number in range(40):  # more than there are sequences
        ask(engine, prompt(f"the red {number}"))
    gc.collect()
    cache = engine.new_cache()
    ask(engine, prompt("the red"), cache=cache)
    assert len(engine._sequences._taken) == 1, "the others were garbage"


# --- stopping -----------------------------------------------------------------------------------------------------


def test_cancel_breaks_off_in_the_middle_of_a_prompt(engine: LlamaEngine) -> None:
    cancel, cache, stats = threading.Event(), engine.new_cache(), GenerationStats()
    asked = []

    class LateCancel(threading.Event):
        def is_set(self) -> bool:
            asked.append(1)
            return len(asked) > 20

    segments = [*prompt("the red"), clip("a", 64), TextSegment("what is it?")]
    cancel = LateCancel()
    assert list(engine.generate(segments, GREEDY, cache=cache, stats=stats, cancel=cancel)) == []
    assert stats.finish_reason == "cancelled" and stats.evaluated_tokens < stats.prompt_tokens - 1
    assert len(cache.units) == stats.evaluated_tokens
    check_consistent(cache)
    assert ask(engine, segments, cache=cache)[0] == ask(engine, segments)[0]


def test_an_exception_in_the_middle_of_a_prompt_comes_through(
    engine: LlamaEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is an exception in whatever Python code runs next: here the question whether to stop."""

    class Interrupted(threading.Event):
        count = 0

        def is_set(self) -> bool:
            self.count += 1
            if self.count > 5:
                raise KeyboardInterrupt
            return False

    cache = engine.new_cache()
    with pytest.raises(KeyboardInterrupt):
        list(engine.generate(TWO_CLIPS, GREEDY, cache=cache, stats=GenerationStats(), cancel=Interrupted()))
    check_consistent(cache)
    assert ask(engine, TWO_CLIPS, cache=cache)[0] == ask(engine, TWO_CLIPS)[0]
    assert capfd.readouterr().err == ""


def test_failure_inside_llama_cpp_empties_the_cache(engine: LlamaEngine) -> None:
    cache = engine.new_cache()
    ask(engine, prompt("the red"), cache=cache)
    assert cache.sequence is not None
    engine._context.forget(cache.sequence, 1)  # behind its back: positions have a gap now, which llama.cpp refuses
    with pytest.raises(Gpt4VideoError, match="failed to evaluate"):
        ask(engine, prompt("the red circle"), cache=cache)
    check_consistent(cache)
    assert ask(engine, prompt("the red circle"), cache=cache)[0] == ask(engine, prompt("the red circle"))[0]


def test_close_frees_and_clearing_afterwards_is_harmless(tiny_gguf: Path, tiny_language_folder: Path) -> None:
    engine = LlamaEngine.load(tiny_gguf, tiny_language_folder)
    cache = engine.new_cache()
    ask(engine, prompt("the red"), cache=cache)
    engine.close()
    cache.clear()
    assert not engine._context._free.alive and not engine._model._free.alive


# --- state --------------------------------------------------------------------------------------------------------


def test_stored_state_goes_on_where_it_was(engine: LlamaEngine, tiny_adapter_gguf: Path) -> None:
    cache = engine.new_cache()
    ids, _ = ask(engine, TWO_CLIPS, cache=cache)
    stored = engine.save_state(cache)
    again = engine.load_state(stored)
    assert again.units == cache.units
    history = [*TWO_CLIPS, TokenSegment(tuple(ids)), TextSegment("and now?")]
    answer, stats = ask(engine, history, cache=again)
    assert stats.reused_tokens >= len(cache.units) - 1
    assert answer == ask(engine, history)[0]
    assert engine.load_state(engine.save_state(engine.new_cache())).units == []
    engine.use_adapters([Adapter("a", tiny_adapter_gguf)])
    try:
        assert engine.load_state(stored).units == [], "computed without the adapter"
    finally:
        engine.use_adapters([])
    with pytest.raises(SessionFileError, match="cannot be read"):
        engine.load_state(b"no state\n")
    head, _, numbers = stored.partition(b"\n")
    cut = engine.load_state(head + b"\n" + numbers[: len(numbers) // 2])
    assert cut.units == [] and ask(engine, history, cache=cut)[0] == answer


# --- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(tiny_language_folder: Path) -> TorchEngine:
    """PyTorch with adapters beside the weights."""
    return TorchEngine.load(tiny_language_folder, device="cpu")


def test_adapters_at_any_scale_are_those_of_pytorch(
    engine: LlamaEngine,
    reference: TorchEngine,
    apart: TorchEngine,
    tiny_language_folder: Path,
    tiny_adapter_folder: Path,
    tiny_adapter_gguf: Path,
) -> None:
    merged = TorchEngine.load(tiny_language_folder, adapter=tiny_adapter_folder, device="cpu", merge_adapter=True)
    cache, theirs = engine.new_cache(), apart.new_cache()
    try:
        plain = ask(engine, TWO_CLIPS, cache=cache)[0]
        assert ask(apart, TWO_CLIPS, cache=theirs)[0] == plain
        for scale in (1.0, 0.5, -0.5, 0.0, 1.0):
            engine.use_adapters([Adapter("a", tiny_adapter_gguf, scale)])
            apart.use_adapters([Adapter("a", tiny_adapter_folder, scale)])
            assert difference(engine, apart) < 5e-5
            ids, stats = ask(engine, TWO_CLIPS, cache=cache)
            assert stats.reused_tokens == 0, "computed without the adapter"
            theirs_ids, stats = ask(apart, TWO_CLIPS, cache=theirs)
            assert ids == theirs_ids and stats.reused_tokens == 0
            if scale == 0:
                assert difference(engine, reference) < 2e-5 and ids == plain
            elif scale == 1:
                assert difference(engine, merged) < 5e-5
                assert difference(engine, reference) > 0.1
    finally:
        engine.use_adapters([])
        apart.use_adapters([])
    assert difference(engine, reference) < 2e-5


def test_two_adapters_add_up_and_switching_reads_nothing_again(
    engine: LlamaEngine,
    apart: TorchEngine,
    tiny_language_folder: Path,
    tiny_adapter_folder: Path,
    tiny_adapter_gguf: Path,
    tmp_path: Path,
    adapter_writer,  # type: ignore[no-untyped-def]
) -> None:
    from gpt4video_cli.weights.gguf_export import export_adapter_gguf

    second = adapter_writer(tiny_language_folder, tmp_path / "second", seed=1)
    file = export_adapter_gguf(second, tiny_language_folder, tmp_path / "second.gguf", "f32")
    try:
        engine.use_adapters([Adapter("a", tiny_adapter_gguf, 0.5), Adapter("b", file)])
        apart.use_adapters([Adapter("a", tiny_adapter_folder, 0.5), Adapter("b", second)])
        assert difference(engine, apart) < 5e-5
        both = engine.logits(TWO_CLIPS)
        engine.use_adapters([Adapter("b", file)])
        apart.use_adapters([Adapter("b", second)])
        assert difference(engine, apart) < 5e-5 and np.abs(engine.logits(TWO_CLIPS) - both).max() > 0.1
        file.rename(tmp_path / "gone.gguf")
        began = time.perf_counter()
        engine.use_adapters([])
        engine.use_adapters([Adapter("a", tiny_adapter_gguf, 0.5), Adapter("b", file)])
        assert time.perf_counter() - began < 0.1
        assert np.array_equal(engine.logits(TWO_CLIPS), both)
    finally:
        engine.use_adapters([])
        apart.use_adapters([])


def test_adapters_that_do_nothing_or_are_for_another_model(
    engine: LlamaEngine,
    reference: TorchEngine,
    tiny_language_folder: Path,
    tiny_adapter_gguf: Path,
    tmp_path: Path,
    adapter_writer,  # type: ignore[no-untyped-def]
    language_writer,  # type: ignore[no-untyped-def]
) -> None:
    from gpt4video_cli.weights.gguf_export import export_adapter_gguf

    untrained = adapter_writer(tiny_language_folder, tmp_path / "untrained", trained=False)
    nothing = export_adapter_gguf(untrained, tiny_language_folder, tmp_path / "nothing.gguf", "f32")
    wide = language_writer(tmp_path / "wide", width=128)
    foreign = export_adapter_gguf(adapter_writer(wide, tmp_path / "foreign"), wide, tmp_path / "foreign.gguf", "f32")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_adapter_gguf.read_bytes()[:-2000])
    engine.use_adapters([Adapter("a", tiny_adapter_gguf)])
    for path, said in (
        (nothing, "changes nothing"),
        (foreign, "llama.cpp cannot load the adapter: .*shape"),
        (cut, "cannot load the adapter"),
        (tmp_path / "missing.gguf", "no such adapter"),
    ):
        with pytest.raises(WeightsError, match=said) as error:
            engine.use_adapters([Adapter("x", path)])
        assert str(path) in error.value.line()
        assert engine.adapters == () and difference(engine, reference) < 2e-5, "none is in force then"


def test_a_merged_adapter_cannot_be_taken_out(
    tiny_language_folder: Path, tiny_adapter_folder: Path, tiny_adapter_gguf: Path, tmp_path: Path
) -> None:
    from gpt4video_cli.weights.gguf_export import export_gguf

    file = export_gguf(tiny_language_folder, tmp_path / "merged-f32.gguf", "f32", adapter=tiny_adapter_folder)
    ours = LlamaEngine.load(file, tiny_language_folder)
    theirs = TorchEngine.load(tiny_language_folder, adapter=tiny_adapter_folder, device="cpu")
    assert difference(ours, theirs) < 5e-5
    for one in (ours, theirs):
        with pytest.raises(UsageError, match="cannot be"):
            one.use_adapters([])
    assert [a.name for a in theirs.adapters] == ["adapter"]


def test_how_adapters_are_written() -> None:
    assert parse_adapters(["a:0.5,b", "c:-1"]) == (AdapterWish("a", 0.5), AdapterWish("b"), AdapterWish("c", -1.0))
    assert parse_adapters(["dir/x:y"]) == (AdapterWish("dir/x:y"),)
    assert parse_adapters(["off"]) == ()
    assert str(AdapterWish("a", 0.25)) == "a:0.25" and str(AdapterWish("a")) == "a"
    for wrong in ("", "a,", "off,a", "a:nan", ":1", "a:1,a:2"):
        with pytest.raises(UsageError, match="--adapter"):
            parse_adapters([wrong])
