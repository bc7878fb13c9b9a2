"""The tokenizer in a GGUF file reads text as the model's own, or the export says that it does not."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.sentencepiece_model import tokenizer_spec
from gpt4video_cli.language.tokenizer import Tokenizer
from gpt4video_cli.weights.gguf_export import export_gguf
from gpt4video_cli.weights.gguf_probe import first_difference
from gpt4video_cli.weights.gguf_tokenizer import _LLAMA_3, BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, read_tokenizer
from tests.weights.gguf_reading import BUNDLE, SIZES, write_llama

SENTENCEPIECE = Path(__file__).parents[1] / "language" / "data" / "llama_style.model"
PROSE = (
    "What happens in the clip? A red circle moves to the left, then it's gone; they'll say 12 shapes, 3.14 each.\n"
    "def frames(path):\n    return [frame for frame in decode(path) if frame.time >= 0.5]\n"
    "IT'S LATE and WE'LL see 2023-11-28, naïve café, Straße, 100 000 000 €."
)


def texts() -> list[str]:
    """300 texts: prose, many alphabets, white space and digits, spellings of special tokens. The same each time."""
    chance = random.Random(0)
    words = PROSE.split(" ")
    scraps = [*" \n\t", "  ", "\n\n", "'s", "'LL", "1", "23", "4567", "word", "Ä", "</s>", "<s>", "...", "▁", "\u00a0"]
    ranges = [(32, 127), (0xA0, 0x500), (0x5D0, 0x700), (0x900, 0x980), (0x4E00, 0x4F00), (0x1F300, 0x1F600)]
    found = []
    for _ in range(100):
        letters = [chr(chance.randrange(*chance.choice(ranges))) for _ in range(20)]
        found.append(" ".join(chance.choices(words, k=8)))
        found.append("".join(chance.choices([*letters, " ", "\n"], k=30)))
        found.append("".join(chance.choices(scraps, k=20)))
    return found


def trained(cuts: Any, **model: Any) -> str:
    """A byte-level ``tokenizer.json`` with 300 merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = cuts, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=560,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROSE] * 10, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["model"] |= model
    return json.dumps(spec)


def byte_level(**more: bool) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **more})


def exported(folder: Path, tokenizer: str, **sizes: Any) -> tuple[Path, Path, list[str]]:
    """The GGUF file of a tiny model with this tokenizer, the model's folder, and what the export told."""
    notes: list[str] = []
    size = Tokenizer(tokenizer).size
    language = write_llama(folder / "llama", tokenizer, **{"vocab_size": size, **sizes})
    return export_gguf(language, folder / "model.gguf", "f16", tell=notes.append), language, notes


def test_the_bundle_s_tokenizer(tmp_path: Path) -> None:
    notes: list[str] = []
    made = export_gguf(BUNDLE / "language", tmp_path / "model.gguf", tell=notes.append)
    assert first_difference(made, BUNDLE / "language", texts()) is None
    assert not notes


LLAMA_3 = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(_LLAMA_3), "isolated"), byte_level(use_regex=False)]  # as in LLaMA 3's tokenizer.json
)


@pytest.mark.parametrize(
    ("cuts", "model"),
    [
        (byte_level(), {}),
        (LLAMA_3, {"ignore_merges": True}),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]), {}),
    ],
    ids=["gpt-2", "llama 3", "smollm"],
)
def test_byte_level_tokenizers(tmp_path: Path, cuts: Any, model: dict[str, Any]) -> None:
    made, folder, notes = exported(tmp_path, trained(cuts, **model))
    assert first_difference(made, folder, texts()) is None
    assert not notes


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_sentencepiece(tmp_path: Path, file: str) -> None:
    made, folder, notes = exported(tmp_path, tokenizer_spec(SENTENCEPIECE))
    if file == "tokenizer.model":
        (folder / "tokenizer.json").unlink()
        shutil.copy(SENTENCEPIECE, folder / "tokenizer.model")
        made = export_gguf(folder, tmp_path / "second.gguf", tell=notes.append)
    assert first_difference(made, folder, texts()) is None
    assert not notes
    from gguf import GGUFReader

    fields = GGUFReader(made).fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE] and types[-1] == NORMAL


def test_a_difference_is_found_and_told(tmp_path: Path) -> None:
    spec = json.loads(tokenizer_spec(SENTENCEPIECE))
    spec["normalizer"] = None  # newer conversions put no space behind a special token, llama.cpp does
    spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    _, _, notes = exported(tmp_path, json.dumps(spec))
    assert len(notes) == 1 and "otherwise than this model's own tokenizer does, for instance '<s>What" in notes[0]


def test_cuts_without_a_name_are_told(tmp_path: Path) -> None:
    _, _, notes = exported(tmp_path, trained(byte_level(add_prefix_space=True)))
    assert notes == [
        "llama.cpp has no name for how this tokenizer cuts words: other programs will read some texts otherwise"
    ]


def test_a_tokenizer_without_form_in_gguf_is_told_and_the_file_can_be_computed_with(tmp_path: Path) -> None:
    from tests.weights.gguf_reading import logits

    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], *([f"p{number}", -float(number)] for number in range(50))]
    spec = {"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}}
    made, _, notes = exported(tmp_path, json.dumps(spec))
    assert len(notes) == 1 and "a Unigram tokenizer of this kind has no form in GGUF" in notes[0]
    assert logits(made, [1, 2, 3]).shape == (3, 53)


def test_ids_above_the_tokenizer_s_are_unused_and_ids_above_the_model_s_refused(tmp_path: Path) -> None:
    spec = trained(byte_level())
    size = Tokenizer(spec).size
    made, folder, _ = exported(tmp_path, spec, vocab_size=size + 3)
    assert first_difference(made, folder, texts()[:20]) is None
    assert read_tokenizer(folder, SIZES | {"vocab_size": size + 3}).types[-4:] == [NORMAL, UNUSED, UNUSED, UNUSED]
    with pytest.raises(WeightsError, match=f"the tokenizer has {size} tokens, the model {size - 1}"):
        read_tokenizer(folder, SIZES | {"vocab_size": size - 1})


def test_special_tokens_and_template_come_from_the_tokenizer_s_files(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama", trained(byte_level()), vocab_size=560)
    assert read_tokenizer(folder, SIZES | {"vocab_size": 560}).special == {"bos": 1, "eos": 2}
    said = {"eos_token": "<unk>", "pad_token": "</s>", "add_bos_token": False, "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    found = read_tokenizer(folder, SIZES | {"vocab_size": 560, "bos_token_id": -1})
    assert found.special == {"eos": 0, "pad": 2}
    assert not found.add_bos
    from gguf import GGUFReader

    fields = GGUFReader(export_gguf(folder, tmp_path / "model.gguf")).fields
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    (folder / "chat_template.jinja").write_text("{{ newer }}")
    fields = GGUFReader(export_gguf(folder, tmp_path / "model.gguf", force=True)).fields
    assert fields["tokenizer.chat_template"].contents() == "{{ newer }}"
