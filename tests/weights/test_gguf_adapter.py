"""LoRA adapters as GGUF: llama.cpp with the adapter computes what peft computes, merged or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.weights.gguf_adapter import export_adapter_gguf, is_current
from gpt4video_cli.weights.gguf_export import export_gguf
from gpt4video_cli.weights.llama_layout import llama_shapes
from tests.weights.gguf_reading import BUNDLE, SIZES, logits, write_llama

IDS = [1, 5, 17, 80, 33, 33, 9, 64, 2, 7, 90, 12] * 4
LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.down_proj")
PATTERNS = {"alpha_pattern": {"k_proj": 3, "model.layers.1.mlp.down_proj": 32}, "rank_pattern": {"o_proj": 2}}


def write_adapter(folder: Path, **config: Any) -> Path:
    """A PEFT folder of rank 4 for ``write_llama``'s model, with random A and B."""
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": [*LAYERS]}
    said |= {"base_model_name_or_path": "../language", **config}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    generator, shapes, tensors = torch.Generator().manual_seed(1), llama_shapes(SIZES), {}
    for layer in range(SIZES["num_hidden_layers"]):
        for name in LAYERS:
            module = f"model.layers.{layer}.{name}"
            rank = next((r for end, r in said.get("rank_pattern", {}).items() if module.endswith(end)), 4)
            out, into = shapes[f"{module}.weight"]
            for side, shape in (("A", (rank, into)), ("B", (out, rank))):
                numbers = torch.randn(shape, generator=generator) * 0.05
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = numbers
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("gguf") / "llama")


@pytest.fixture(scope="module")
def plain(llama: Path) -> Path:
    return export_gguf(llama, llama.with_name("plain.gguf"), "f32")


def peft_logits(folder: Path, adapter: Path, ids: list[int], scale: float = 1.0) -> np.ndarray:
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), str(adapter))
    for module in model.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(scale)
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "config",
    [{}, {"use_rslora": True}, PATTERNS, {"use_rslora": True, **PATTERNS}],
    ids=["plain", "rslora", "patterns", "both"],
)
def test_logits_are_peft_s(tmp_path: Path, llama: Path, plain: Path, config: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "adapter", **config)
    expected = peft_logits(llama, adapter, IDS)
    assert np.abs(expected - logits(plain, IDS)).max() > 0.3, "it changes something"
    made = export_adapter_gguf(adapter, llama, tmp_path / "adapter.gguf", "f32")
    assert np.abs(logits(plain, IDS, adapter=made) - expected).max() < 1e-3
    merged = export_gguf(llama, tmp_path / "merged.gguf", "f32", adapter=adapter)
    assert np.abs(logits(merged, IDS) - expected).max() < 1e-3
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == ["", ".gguf", ".gguf"]


def test_logits_at_half_the_scale(tmp_path: Path, llama: Path, plain: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    made = export_adapter_gguf(adapter, llama, tmp_path / "adapter.gguf", "f32")
    expected = peft_logits(llama, adapter, IDS, scale=0.5)
    assert np.abs(logits(plain, IDS, adapter=made, scale=0.5) - expected).max() < 1e-3


def test_the_bundle_s_adapter(tmp_path: Path) -> None:
    language, adapter, ids = BUNDLE / "language", BUNDLE / "adapter", [*range(1, 120)]
    expected = peft_logits(language, adapter, ids)
    model = export_gguf(language, tmp_path / "model.gguf", "f16")
    made = export_adapter_gguf(adapter, language, tmp_path / "adapter.gguf")
    assert np.abs(logits(model, ids, adapter=made) - expected).max() < 0.02
    merged = export_gguf(language, tmp_path / "merged.gguf", "f16", adapter=adapter)
    assert np.abs(logits(merged, ids) - expected).max() < 0.02


def test_an_adapter_says_for_which_model_it_is(tmp_path: Path, llama: Path, plain: Path) -> None:
    from gguf import GGUFReader

    made = export_adapter_gguf(write_adapter(tmp_path / "adapter"), llama, tmp_path / "adapter.gguf")
    said = {name: field.contents() for name, field in GGUFReader(made).fields.items()}
    base = {name: field.contents() for name, field in GGUFReader(plain).fields.items() if "gpt4video.base." in name}
    assert said["general.type"] == "adapter" and said["adapter.type"] == "lora" and said["adapter.lora.alpha"] == 8
    assert len(base) == 3 and base.items() <= said.items()
    other = write_llama(tmp_path / "other", num_key_value_heads=4)
    fields = GGUFReader(export_gguf(other, tmp_path / "other.gguf")).fields
    assert fields["gpt4video.base.layout"].contents() != base["gpt4video.base.layout"]


def test_a_file_is_current_until_its_adapter_changes(tmp_path: Path, llama: Path) -> None:
    adapter, target = write_adapter(tmp_path / "adapter"), tmp_path / "adapter.gguf"
    assert not is_current(target, adapter)
    export_adapter_gguf(adapter, llama, target)
    assert is_current(target, adapter)
    with pytest.raises(UsageError, match=r"adapter\.gguf: exists"):
        export_adapter_gguf(adapter, llama, target)
    path = adapter / "adapter_model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    assert not is_current(target, adapter)
    export_adapter_gguf(adapter, llama, target, force=True)
    assert is_current(target, adapter)


def test_adapters_that_have_no_counterpart(tmp_path: Path, llama: Path) -> None:
    other = write_llama(tmp_path / "other", hidden_size=32, num_attention_heads=2)
    adapter, target = write_adapter(tmp_path / "adapter"), tmp_path / "adapter.gguf"
    with pytest.raises(WeightsError, match="is for output width 64, the language model's has 32"):
        export_adapter_gguf(adapter, other, target)
    dora = write_adapter(tmp_path / "dora", use_dora=True)
    for export in (
        lambda: export_adapter_gguf(dora, llama, target),
        lambda: export_gguf(llama, target, adapter=dora),
    ):
        with pytest.raises(WeightsError, match="DoRA has no counterpart"):
            export()
    saved = shutil.copytree(adapter, tmp_path / "saved")
    tensors = load_file(saved / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.weight"] = torch.zeros(96, 64)
    save_file(tensors, saved / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match=r"tensor base_model\.model\.lm_head\.weight has no counterpart"):
        export_adapter_gguf(saved, llama, target)
    with pytest.raises(UsageError, match="an adapter is written as f16 or f32, not as 'q8_0'"):
        export_adapter_gguf(adapter, llama, target, "q8_0")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no adapter_model\.safetensors"):
        export_adapter_gguf(adapter, llama, target)
    assert not target.exists()
