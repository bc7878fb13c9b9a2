"""CLIP, LLaMA and adapters of Hugging Face's libraries: imported, then opened by us and by those libraries again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gpt4video_cli.model.visual_encoder import load_visual_encoder
from gpt4video_cli.weights import convert_source
from gpt4video_cli.weights.convert import import_weights, pickle_to_safetensors


def as_pickle(folder: Path, target: Path, *, legacy: bool = False, **changes: Tensor) -> Path:
    """The Hugging Face folder ``folder`` as it was published before safetensors: two pickles and an index."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(folder / "model.safetensors") | changes
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        part = {name: tensors[name] for name in half}
        torch.save(part, target / file, _use_new_zipfile_serialization=not legacy)
        weight_map |= dict.fromkeys(half, file)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target


def tensors_in(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("whole", [True, False], ids=["CLIPModel", "CLIPVisionModel"])
def test_clip(tmp_path: Path, whole: bool) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96}
    config = CLIPVisionConfig(**sizes, patch_size=14, image_size=56)
    text = {**sizes, "vocab_size": 99}
    model: Any = (
        CLIPModel(CLIPConfig(text_config=text, vision_config=config.to_dict())) if whole else CLIPVisionModel(config)
    )
    model.eval().save_pretrained(tmp_path / "clip")
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        theirs = (model.vision_model if whole else model)(pixels).last_hidden_state
    made = import_weights(tmp_path / "clip", "hf-clip", tmp_path / "model", shard_bytes=50_000)
    assert made == tmp_path / "model" / "vision"
    assert len(list(made.glob("model-*.safetensors"))) > 2
    with torch.no_grad():
        ours = load_visual_encoder(made, device="cpu")(pixels)
        assert (ours - theirs).abs().max() < 1e-5
        again, report = CLIPVisionModel.from_pretrained(made, output_loading_info=True)
        assert not any(report.values()), report
        assert torch.equal(again.eval()(pixels).last_hidden_state, theirs)
    assert json.loads((made / "preprocessor_config.json").read_text())["crop_size"] == {"height": 56, "width": 56}


@pytest.mark.parametrize("kind", ["safetensors", "pickles", "old pickles"])
def test_llama(tmp_path: Path, tiny_language_folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(convert_source, "MAPPED_AT_ONCE", 20_000)  # the file is closed and mapped again on the way
    source = tiny_language_folder
    if kind != "safetensors":
        source = as_pickle(source, tmp_path / "llama", legacy=kind == "old pickles")
    told: list[str] = []
    written: list[tuple[int, int]] = []
    made = import_weights(
        source,
        "hf-llama",
        tmp_path / "model",
        shard_bytes=100_000,
        tell=told.append,
        progress=lambda done, total: written.append((done, total)),
    )
    theirs, report = LlamaForCausalLM.from_pretrained(made, output_loading_info=True)
    assert not any(report.values()), report
    expected = load_file(tiny_language_folder / "model.safetensors")
    assert same(tensors_in(made), expected)
    assert same(dict(theirs.state_dict()), expected)
    assert (made / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected.keys()
    assert written[-1] == (index["metadata"]["total_size"],) * 2
    assert max(file.stat().st_size for file in made.glob("*.safetensors")) < 100_000 + 5_000  # and the header
    assert sum("has to be read whole" in note for note in told) == (2 if kind == "old pickles" else 0)
    assert told[-1].endswith("is not a whole model yet: vision, abstractor.safetensors, card.toml missing")


def test_one_file_or_its_index_can_be_named(tmp_path: Path, tiny_language_folder: Path) -> None:
    expected = load_file(tiny_language_folder / "model.safetensors")
    made = import_weights(tiny_language_folder / "model.safetensors", "hf-llama", tmp_path / "one")
    assert [file.name for file in made.glob("*.safetensors*")] == ["model.safetensors"]
    assert same(tensors_in(made), expected)
    source = as_pickle(tiny_language_folder, tmp_path / "llama")
    made = import_weights(source / "pytorch_model.bin.index.json", "hf-llama", tmp_path / "index")
    assert same(tensors_in(made), expected)
    pickle_to_safetensors(source / "pytorch_model-00001-of-00002.bin", tmp_path / "half.safetensors")
    half = load_file(tmp_path / "half.safetensors")
    assert same(half, {name: expected[name] for name in sorted(expected)[::2]})


def test_dtype(tmp_path: Path, tiny_language_folder: Path) -> None:
    from transformers import LlamaForCausalLM

    made = import_weights(tiny_language_folder, "hf-llama", tmp_path, dtype=torch.bfloat16)
    expected = load_file(tiny_language_folder / "model.safetensors")
    assert same(tensors_in(made), {name: tensor.bfloat16() for name, tensor in expected.items()})
    assert json.loads((made / "config.json").read_text())["dtype"] == "bfloat16"
    assert LlamaForCausalLM.from_pretrained(made).dtype == torch.bfloat16


def test_mixed_dtypes_stay_as_they_are(tmp_path: Path, tiny_language_folder: Path) -> None:
    """Also where an odd number of narrow ones would put wide ones at a place where they cannot be mapped."""
    expected = load_file(tiny_language_folder / "model.safetensors")
    expected = {name: tensor.half() if tensor.ndim == 1 else tensor for name, tensor in expected.items()}
    source = as_pickle(tiny_language_folder, tmp_path / "llama", **expected)
    made = import_weights(source, "hf-llama", tmp_path / "model")
    assert same(tensors_in(made), expected)
    assert "dtype" not in json.loads((made / "config.json").read_text())


def test_tied_words_are_written_once(tmp_path: Path, tiny_language_folder: Path) -> None:
    from gpt4video_cli.errors import WeightsError

    words = load_file(tiny_language_folder / "model.safetensors")["model.embed_tokens.weight"]
    for name, head in (("equal", words.clone()), ("other", words + 1)):
        source = as_pickle(tiny_language_folder, tmp_path / name, **{"lm_head.weight": head})
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    made = import_weights(tmp_path / "equal", "hf-llama", tmp_path / "model")
    assert "lm_head.weight" not in tensors_in(made)
    with pytest.raises(WeightsError, match="it does not"):
        import_weights(tmp_path / "other", "hf-llama", tmp_path / "never")


@pytest.mark.parametrize("pickled", [False, True])
def test_adapter(tmp_path: Path, tiny_language_folder: Path, tiny_adapter_folder: Path, pickled: bool) -> None:
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    source, tensors = tiny_adapter_folder, load_file(tiny_adapter_folder / "adapter_model.safetensors")
    if pickled:
        source = tmp_path / "lora"
        shutil.copytree(tiny_adapter_folder, source, ignore=shutil.ignore_patterns("*.safetensors"))
        torch.save(tensors, source / "adapter_model.bin")
    language = import_weights(tiny_language_folder, "hf-llama", tmp_path / "model")
    made = import_weights(source, "peft", tmp_path / "model")
    assert same(tensors_in(made), tensors)
    ids = torch.arange(9)[None]
    base = LlamaForCausalLM.from_pretrained(language)
    with torch.no_grad():
        plain = base(ids).logits
        ours = PeftModel.from_pretrained(base, made).eval()(ids).logits
        theirs = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_language_folder), tiny_adapter_folder)
        assert torch.equal(ours, theirs.eval()(ids).logits)
        assert (ours - plain).abs().max() > 0.01


def test_parts_come_together_as_a_model(tmp_path: Path, tiny_model_folder: Path) -> None:
    """Vision, language and adapter imported into one folder, with an abstractor and a card put beside them."""
    from gpt4video_cli.model.checkpoint import load_model

    told: list[str] = []
    for part, name in (("vision", "hf-clip"), ("adapter", "peft"), ("language", "hf-llama")):
        import_weights(tiny_model_folder / part, name, tmp_path / "model", tell=told.append)
    assert told[-1].endswith("is not a whole model yet: abstractor.safetensors, card.toml missing")
    for name in ("abstractor.safetensors", "card.toml"):
        shutil.copyfile(tiny_model_folder / name, tmp_path / "model" / name)
    frames = torch.randint(0, 255, (4, 48, 64, 3), dtype=torch.uint8).numpy()
    ours, theirs = (load_model(f, device="cpu") for f in (tmp_path / "model", tiny_model_folder))
    assert torch.equal(ours.embed(frames), theirs.embed(frames))
    assert ours.engine is not None


@pytest.mark.parametrize("place", ["an empty folder", "the current folder", "a link"])
def test_an_empty_output_may_be_there(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).resolve().parents[1] / "data" / "mplug-owl-video-small"
    real = output = tmp_path / "here"
    real.mkdir()
    if place == "a link":
        output = tmp_path / "link"
        output.symlink_to(real)
    if place == "the current folder":
        monkeypatch.chdir(real)
        output = Path(".")
    assert import_weights(source, "mplug-owl-video", output) == output
    assert {"card.toml", "vision", "language", "abstractor.safetensors"} == {path.name for path in real.iterdir()}
    assert 'name = "here"' in (real / "card.toml").read_text()
