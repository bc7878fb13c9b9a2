"""Text <-> ids: round trips, special tokens only from trusted text, parity with SentencePiece."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.sentencepiece_model import tokenizer_spec
from gpt4video_cli.language.tokenizer import Tokenizer

DATA = Path(__file__).parent / "data"
SPECIAL = {1, 2}


@pytest.fixture(scope="module")
def llama_style(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    shutil.copy(DATA / "llama_style.model", folder / "tokenizer.model")
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def byte_level(tiny_language_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_language_folder)


@pytest.fixture(scope="module", params=["byte_level", "llama_style"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def test_sentencepiece_model_gives_the_ids_of_the_sentencepiece_library(llama_style: Tokenizer) -> None:
    cases = json.loads((DATA / "llama_style.json").read_text(encoding="utf-8"))
    assert len(cases) > 5
    for case in cases:
        assert llama_style.encode(case["text"]) == case["ids"], case["text"]


def test_trusted_text_spells_special_tokens_and_typed_text_does_not(tokenizer: Tokenizer) -> None:
    text = "<s>what is it?</s>"
    trusted = tokenizer.encode(text, trusted=True)
    assert trusted[0] == 1 and trusted[-1] == 2
    typed = tokenizer.encode(text)
    assert SPECIAL.isdisjoint(typed)
    assert tokenizer.decode(typed) == text, "what was typed is not lost either"
    assert "<s>" not in tokenizer.decode(trusted)


@given(text=st.text(alphabet=st.one_of(st.sampled_from("</s>un k"), st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_back_and_none_becomes_special(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    assert SPECIAL.isdisjoint(ids)
    assert byte_level.decode(ids) == text


@given(text=st.text(alphabet="</s>un k▁é中"))
def test_no_text_becomes_special_with_byte_fallback(llama_style: Tokenizer, text: str) -> None:
    assert SPECIAL.isdisjoint(llama_style.encode(text))


def test_special_token_that_is_also_an_ordinary_piece_stays_text() -> None:
    pieces = [["<unk>", 0.0], ["</s>", 0.0], ["<", -5.0], ["/s>", -5.0], ["a", -1.0]]
    added = {"id": 1, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False}
    spec = {
        "version": "1.0",
        "added_tokens": [{**added, "normalized": False, "special": True}],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces},
    }
    tokenizer = Tokenizer(json.dumps(spec))
    assert tokenizer.encode("a</s>a", trusted=True) == [4, 1, 4]
    assert tokenizer.encode("a</s>a") == [4, 2, 3, 4]


def test_end_token_named_only_in_the_config_is_special(tiny_language_folder: Path, tmp_path: Path) -> None:
    spec = json.loads((tiny_language_folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        token["special"] = False  # as some conversions leave it
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    tokenizer = Tokenizer.load(tmp_path)
    assert 2 not in tokenizer.encode("bye</s>")
    assert tokenizer.decode([2]) == ""


def test_truncation_remembered_by_the_file_is_ignored(tiny_language_folder: Path, tmp_path: Path) -> None:
    spec = json.loads((tiny_language_folder / "tokenizer.json").read_text())
    spec["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    text = "the red circle moves left " * 5
    assert Tokenizer.load(tmp_path).decode(Tokenizer.load(tmp_path).encode(text)) == text


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((DATA / "llama_style.model").read_bytes()[:3000])
    with pytest.raises(WeightsError, match=r"tokenizer\.model: not a SentencePiece model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_other_kinds_of_sentencepiece_models_are_refused(tmp_path: Path) -> None:
    piece = b"\x0a\x01a"
    unigram = b"\x0a" + bytes([len(piece)]) + piece + b"\x12\x02\x18\x01"
    (tmp_path / "tokenizer.model").write_bytes(unigram)
    with pytest.raises(WeightsError, match="not LLaMA's"):
        tokenizer_spec(tmp_path / "tokenizer.model")


def test_tokenizing_imports_neither_torch_nor_transformers(tiny_language_folder: Path) -> None:
    code = (
        "import sys; from gpt4video_cli.language.tokenizer import Tokenizer; import gpt4video_cli.language.stream, "
        "gpt4video_cli.language.torch_engine; Tokenizer.load(sys.argv[1]).encode('a'); "
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tiny_language_folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == "[]", run.stderr
