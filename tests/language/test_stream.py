"""Streaming text: whatever the split into tokens, the pieces joined are the same text, cut at the same place."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt4video_cli.language.engine import GenerationStats, KeptCache, SamplingOptions, Segment
from gpt4video_cli.language.stream import StopFilter, TextDecoder, stream_text
from gpt4video_cli.language.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"


class ScriptedEngine:
    """An engine that says given ids with a real tokenizer: the only way to choose where tokens split."""

    name, context_length, width, device, end_ids = "scripted", 10_000, 4, "cpu", frozenset({2})

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        self.tokenizer, self.ids, self.closed = tokenizer, ids, False

    def tokenize(self, text: str, *, trusted: bool = False) -> list[int]:
        return self.tokenizer.encode(text, trusted=trusted)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def new_cache(self) -> KeptCache:
        raise NotImplementedError

    def generate(
        self,
        segments: Sequence[Segment],
        options: SamplingOptions,
        *,
        cache: KeptCache,
        stats: GenerationStats,
        cancel: threading.Event | None = None,
    ) -> Iterator[int]:
        stats.finish_reason = "cancelled"
        try:
            for token in self.ids:
                stats.ids.append(token)
                yield token
            stats.finish_reason = "stop"
        finally:
            self.closed = True


def run(tokenizer: Tokenizer, ids: Sequence[int], stop: tuple[str, ...] = ()) -> tuple[list[str], GenerationStats]:
    engine, stats = ScriptedEngine(tokenizer, ids), GenerationStats()
    pieces = list(stream_text(engine, [], SamplingOptions(stop=stop), cache=None, stats=stats))  # type: ignore[arg-type]
    assert engine.closed
    assert all(pieces), "no empty pieces"
    assert tokenizer.decode(stats.ids) == "".join(pieces), "the ids are those of the text"
    return pieces, stats


@pytest.fixture(scope="module")
def byte_level(tiny_language_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_language_folder)


@pytest.fixture(scope="module")
def llama_style(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    shutil.copy(DATA / "llama_style.model", folder / "tokenizer.model")
    return Tokenizer.load(folder)


def split_byte_level(tokenizer: Tokenizer, text: str, cuts: Sequence[bool]) -> list[int]:
    """Ids of ``text`` where a True in ``cuts`` spells the next few bytes one token each."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = "".join(piece for piece, _ in ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text))
    vocab = json.loads(tokenizer._plain.to_str())["model"]["vocab"]
    ids, at = [], 0
    for cut in [*cuts, *[False] * len(letters)]:
        if at >= len(letters):
            break
        longest = 1 if cut else 8
        length = next(n for n in range(min(longest, len(letters) - at), 0, -1) if letters[at : at + n] in vocab)
        ids.append(vocab[letters[at : at + length]])
        at += length
    return ids


TEXT = st.text(alphabet=st.sampled_from("the red#é中😀 \n\u200d"), max_size=30)


@settings(max_examples=200, deadline=None)
@given(
    text=TEXT,
    cuts=st.lists(st.booleans(), max_size=40),
    stop=st.lists(st.sampled_from(["#", "##", "# r", "the", "é中"])),
)
@example(text="a 中😀", cuts=[True] * 10, stop=[])
@example(text="the red", cuts=[], stop=["e r"])
def test_any_split_into_tokens_gives_the_same_text(
    byte_level: Tokenizer, text: str, cuts: list[bool], stop: list[str]
) -> None:
    ids = split_byte_level(byte_level, text, cuts)
    assert byte_level.decode(ids) == text
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    expected = text[: min(ends)[1]] if ends else text
    pieces, stats = run(byte_level, ids, tuple(stop))
    assert "".join(pieces) == expected
    assert "\ufffd" not in "".join(pieces)
    assert stats.finish_reason == "stop"


@settings(max_examples=200, deadline=None)
@given(text=TEXT, stop=st.lists(st.sampled_from(["#", "# r", "the", "é中", "\n"])))
def test_sentencepiece_keeps_spaces_and_characters(llama_style: Tokenizer, text: str, stop: list[str]) -> None:
    whole = llama_style.decode(llama_style.encode(text))
    assert whole == text
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    pieces, _ = run(llama_style, llama_style.encode(text), tuple(stop))
    assert "".join(pieces) == (text[: min(ends)[1]] if ends else text)


def test_space_behind_a_token_without_text_is_kept(llama_style: Tokenizer) -> None:
    ids = [*llama_style.encode("red"), 1, *llama_style.encode("circle")]  # <s> in the middle of a reply
    assert llama_style.decode(ids) == "red circle"
    assert "".join(run(llama_style, ids)[0]) == "red circle"


def test_text_comes_as_soon_as_it_is_certain(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("the red circle")
    pieces, _ = run(byte_level, ids, ("###Human",))
    assert len(pieces) == len(ids), "nothing here could begin the stop string, so nothing waits"


def test_possible_beginning_of_a_stop_string_waits_and_is_released() -> None:
    stops = StopFilter(["###Human", "\n\n"])
    assert [stops.feed(c) for c in "a##"] == ["a", "", ""]
    assert stops.feed("b") == "##b"
    assert stops.feed("\n") == "" and stops.feed("#") == "\n" and stops.feed("##Hum") == ""
    assert stops.rest() == "###Hum" and not stops.found
    assert stops.feed("x###Human: more") == "x" and stops.found and stops.rest() == ""


def test_character_bytes_wait_for_each_other(byte_level: Tokenizer) -> None:
    decoder = TextDecoder(byte_level.decode)
    ids = split_byte_level(byte_level, "😀", [True] * 4)
    assert len(ids) == 4
    assert [decoder.feed(token) for token in ids] == ["", "", "", "😀"]
    assert decoder.complete == 4


def test_reply_cut_inside_a_character_ends_before_it(byte_level: Tokenizer) -> None:
    ids = split_byte_level(byte_level, "a😀", [True] * 5)
    pieces, stats = run(byte_level, ids[:-1])
    assert pieces == ["a"] and stats.ids == ids[:1]


def test_broken_bytes_in_the_middle_do_not_stop_the_text(byte_level: Tokenizer) -> None:
    lone = split_byte_level(byte_level, "😀", [True] * 4)[0]
    pieces, _ = run(byte_level, [*byte_level.encode("a"), lone, *byte_level.encode("b")])
    assert "".join(pieces) == "a\ufffdb"


def test_ids_before_a_stop_string_inside_a_token_stay(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("the red circle")
    pieces, stats = run(byte_level, ids, ("rcle",))
    assert "".join(pieces) == "the red ci"
    assert stats.ids[:2] == ids[:2]


def test_sentencepiece_cut_inside_a_token_is_spelled_anew(llama_style: Tokenizer) -> None:
    ids = llama_style.encode("the red circle")
    assert len(ids) == 3
    pieces, stats = run(llama_style, ids, ("rcle",))
    assert "".join(pieces) == "the red ci"
    assert stats.ids[:2] == ids[:2]


def test_caller_that_closes_early_gets_the_ids_of_what_it_saw(byte_level: Tokenizer) -> None:
    engine, stats = ScriptedEngine(byte_level, byte_level.encode("the red circle")), GenerationStats()
    stream = stream_text(engine, [], SamplingOptions(), cache=None, stats=stats)  # type: ignore[arg-type]
    seen = next(stream) + next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert engine.closed and byte_level.decode(stats.ids) == seen
    assert stats.finish_reason == "cancelled"
