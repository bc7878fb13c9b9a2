"""Loading: adapters do what PEFT does, and whatever is missing, damaged or does not fit is named in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.engine import EmbeddingSegment, TextSegment
from gpt4video_cli.language.torch_engine import TorchEngine

SEGMENTS = [
    TextSegment("<s>", trusted=True),
    EmbeddingSegment("clip", torch.randn(6, 64, generator=torch.Generator().manual_seed(0))),
    TextSegment("what colour is the circle?"),
]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tiny_language_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_language_folder, tmp_path / "llama"))


@pytest.fixture
def adapter(tiny_adapter_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_adapter_folder, tmp_path / "lora"))


def change_tensors(path: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(folder: Path, **options: object) -> str:
    with pytest.raises(WeightsError) as caught:
        TorchEngine.load(folder, device="cpu", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_adapter_merged_equals_unmerged_and_peft(tiny_language_folder: Path, tiny_adapter_folder: Path) -> None:
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    plain = TorchEngine.load(tiny_language_folder, device="cpu").logits(SEGMENTS)
    merged, apart = (
        TorchEngine.load(tiny_language_folder, adapter=tiny_adapter_folder, device="cpu", merge_adapter=merge)
        for merge in (True, False)
    )
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    assert any("lora" in name for name, _ in apart.model.named_parameters())
    torch.testing.assert_close(merged.logits(SEGMENTS), apart.logits(SEGMENTS), atol=1e-4, rtol=1e-4)
    assert (merged.logits(SEGMENTS) - plain).abs().max() > 0.1, "the adapter changes the answer"
    reference = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_language_folder), tiny_adapter_folder)
    ids = torch.tensor([[1, *apart.tokenize("what is it?")]])
    with torch.no_grad():
        expected = reference(ids).logits[0, -1]
    text = [TextSegment("<s>", trusted=True), TextSegment("what is it?")]
    torch.testing.assert_close(apart.logits(text), expected, atol=1e-5, rtol=1e-5)


def test_adapter_stays_apart_in_half_precision(tiny_language_folder: Path, tiny_adapter_folder: Path) -> None:
    half = TorchEngine.load(tiny_language_folder, adapter=tiny_adapter_folder, device="cpu", dtype="bfloat16")
    assert any("lora" in name for name, _ in half.model.named_parameters())
    assert half.logits(SEGMENTS).isfinite().all()


def test_missing_tensor_is_named(folder: Path) -> None:
    change_tensors(folder / "model.safetensors", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    assert "model.layers.1.mlp.up_proj.weight is missing" in refusal(folder)


def test_unexpected_tensor_is_named_but_not_computed_buffers(folder: Path) -> None:
    path = folder / "model.safetensors"
    change_tensors(path, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    TorchEngine.load(folder, device="cpu")
    change_tensors(path, lambda t: t.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2, 2)}))
    assert "model.layers.7.mlp.up_proj.weight is unexpected" in refusal(folder)


def test_wrong_shape_is_named(folder: Path) -> None:
    change_tensors(folder / "model.safetensors", lambda t: t.update({"model.norm.weight": torch.ones(32)}))
    assert "model.norm.weight has shape [32], config.json asks for [64]" in refusal(folder)


def test_truncated_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])
    assert str(folder) in refusal(folder)


def test_incomplete_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights")
    assert "no model.safetensors" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pytorch_model.bin is a pickle" in refusal(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert "model-00001-of-00002.safetensors is missing" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    assert "pytorch_model.bin is not a safetensors file" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read" in refusal(folder)
    (folder / "config.json").unlink()
    assert "no " in refusal(folder)
    assert "tokenizer" in refusal(tmp_path / "nowhere")


def test_other_architectures_and_vocabularies(folder: Path) -> None:
    change_json(folder / "config.json", model_type="gpt2")
    assert "'gpt2'" in refusal(folder)
    change_json(folder / "config.json", model_type="llama", vocab_size=100)
    change_tensors(
        folder / "model.safetensors",
        lambda t: t.update({name: t[name][:100].clone() for name in ("model.embed_tokens.weight", "lm_head.weight")}),
    )
    assert "the model has 100 rows" in refusal(folder)


def test_sharded_and_tied_weights_load(tiny_language_folder: Path, folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    expected = TorchEngine.load(folder, device="cpu").logits(SEGMENTS)
    model = LlamaForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert (folder / "model.safetensors.index.json").is_file()
    torch.testing.assert_close(TorchEngine.load(folder, device="cpu").logits(SEGMENTS), expected)
    tied = Path(shutil.copytree(tiny_language_folder, tmp_path / "tied"))
    change_json(tied / "config.json", tie_word_embeddings=True)
    change_tensors(tied / "model.safetensors", lambda t: t.pop("lm_head.weight"))
    engine = TorchEngine.load(tied, device="cpu")
    assert torch.equal(engine.model.lm_head.weight, engine.model.get_input_embeddings().weight)


def test_end_ids_come_from_the_files(folder: Path) -> None:
    for name in ("generation_config.json", "config.json"):
        config = json.loads((folder / name).read_text())
        config.pop("eos_token_id", None)
        (folder / name).write_text(json.dumps(config))
    assert TorchEngine.load(folder, device="cpu").end_ids == {2}, "the tokenizer's </s>"
    change_json(folder / "generation_config.json", eos_token_id=[2, 9])
    assert TorchEngine.load(folder, device="cpu").end_ids == {2, 9}


def test_context_length_and_devices(folder: Path) -> None:
    assert TorchEngine.load(folder, device="cpu", context_length=100).context_length == 100
    for options in ({"context_length": 513}, {"device": "abacus"}, {"dtype": "int8"}, {"dtype": "strange"}):
        with pytest.raises(UsageError):
            TorchEngine.load(folder, **{"device": "cpu", **options})  # type: ignore[arg-type]


def test_adapter_for_another_base(folder: Path, tmp_path: Path, language_writer, adapter_writer) -> None:  # type: ignore[no-untyped-def]
    wide = adapter_writer(language_writer(tmp_path / "wide", width=32), tmp_path / "wide_lora")
    assert "input width 64, the language model's has 128" in refusal(folder, adapter=wide)


def test_adapter_for_layers_that_do_not_exist(folder: Path, adapter: Path) -> None:
    extra = "base_model.model.model.layers.5.self_attn.q_proj.lora_A.weight"
    change_tensors(adapter / "adapter_model.safetensors", lambda t: t.update({extra: torch.ones(4, 64)}))
    assert "no layer model.layers.5.self_attn.q_proj" in refusal(folder, adapter=adapter)


def test_adapter_whose_tensors_land_nowhere(folder: Path, adapter: Path) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace("base_model.model.", "transformer.")] = tensors.pop(name)

    change_tensors(adapter / "adapter_model.safetensors", rename)
    assert "transformer." in refusal(folder, adapter=adapter)


def test_adapter_with_a_missing_half(folder: Path, adapter: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    change_tensors(adapter / "adapter_model.safetensors", lambda t: t.pop(name))
    assert f"{name} is missing" in refusal(folder, adapter=adapter)


def test_adapter_that_changes_nothing(folder: Path, tmp_path: Path, adapter_writer) -> None:  # type: ignore[no-untyped-def]
    idle = adapter_writer(folder, tmp_path / "idle", trained=False)
    assert "changes nothing" in refusal(folder, adapter=idle)


def test_adapter_files(folder: Path, adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "adapter_model.safetensors: not a readable" in refusal(folder, adapter=adapter)
    path.unlink()
    assert "no adapter_model.safetensors" in refusal(folder, adapter=adapter)
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "adapter_model.bin is a pickle" in refusal(folder, adapter=adapter)
    path.write_bytes(whole)
    change_json(adapter / "adapter_config.json", peft_type="PREFIX_TUNING")
    assert "only LoRA" in refusal(folder, adapter=adapter)
    (adapter / "adapter_config.json").unlink()
    assert "no adapter_config.json" in refusal(folder, adapter=adapter)


def test_language_part_of_a_random_model_folder_loads_with_its_adapter(tiny_model_folder: Path) -> None:
    plain, adapted = (
        TorchEngine.load(tiny_model_folder / "language", adapter=adapter, device="cpu").logits(SEGMENTS)
        for adapter in (None, tiny_model_folder / "adapter")
    )
    assert (plain - adapted).abs().max() > 0.1


def test_nothing_reaches_the_terminal(tiny_language_folder: Path, tiny_adapter_folder: Path) -> None:
    code = (
        "import sys; from gpt4video_cli.language.torch_engine import TorchEngine; "
        "TorchEngine.load(sys.argv[1], adapter=sys.argv[2], device='cpu')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tiny_language_folder), str(tiny_adapter_folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
