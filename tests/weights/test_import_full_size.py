"""The public 7B checkpoint, by names and shapes alone: every tensor has its place, and the parts have their sizes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.weights.convert_huggingface import plan_clip, plan_llama
from gpt4video_cli.weights.convert_mplug_owl import plan_mplug_owl, read_config
from gpt4video_cli.weights.convert_plan import Planned
from gpt4video_cli.weights.convert_source import Checkpoint, Entry, open_checkpoint
from gpt4video_cli.weights.llama_layout import llama_shapes
from gpt4video_cli.weights.mplug_owl_layout import mplug_owl_shapes

SMALL = Path(__file__).resolve().parents[1] / "data" / "mplug-owl-video-small"

LLAMA_7B = 6_738_415_616  # Touvron et al. 2023 (arXiv 2302.13971), "6.7B"; Hugging Face's count for LLaMA-7B
CLIP_VIT_L_14 = 303_179_776  # transformers' CLIPVisionModel of openai/clip-vit-large-patch14
TEMPORAL = 24 * 1_054_208  # norm, two maps 1024 <-> 512, three taps: in each of the 24 layers
ABSTRACTOR = 85_737_472  # 6 layers of 12,867,584; queries 131,072; end token 4,096; two maps to 4096: 8,396,800


def config_7b() -> dict[str, Any]:
    """The small checkpoint's configuration with the sizes of ``MAGAer13/mplug-owl-llama-7b-video``."""
    config = json.loads((SMALL / "config.json").read_text())
    config["num_query_tokens"] = 64
    vision = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config["vision_config"] |= {**vision, "patch_size": 14, "image_size": 224}
    abstractor = {"hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16, "intermediate_size": 4096}
    config["visual_abstractor_config"] |= {**abstractor, "encoder_hidden_size": 1024}
    llama = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    config["text_config"] |= {**llama, "num_attention_heads": 32, "max_position_embeddings": 2048}
    return copy.deepcopy(config)


def checkpoint_of(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    """A checkpoint in float16 whose file has a configuration but no weights."""
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(folder, [])
    checkpoint.entries = {name: Entry(shape, torch.float16, folder / "x.bin") for name, shape in shapes.items()}
    return checkpoint


def count(tensors: Any) -> int:
    return sum(torch.Size(tensor.shape).numel() for tensor in tensors)


def test_the_layout_is_that_of_the_reference() -> None:
    """The small checkpoint was saved by the reference implementation."""
    config = json.loads((SMALL / "config.json").read_text())
    found = {name: entry.shape for name, entry in open_checkpoint(SMALL).entries.items() if "inv_freq" not in name}
    assert mplug_owl_shapes(*read_config(config, SMALL / "config.json")) == found


def test_every_tensor_of_the_public_7b_checkpoint_has_its_place(tmp_path: Path) -> None:
    config = config_7b()
    shapes = mplug_owl_shapes(*read_config(config, Path("config.json")))
    rotary = {f"language_model.model.layers.{n}.self_attn.rotary_emb.inv_freq": (64,) for n in range(32)}
    checkpoint = checkpoint_of(tmp_path, config, shapes | rotary)
    plan = plan_mplug_owl(checkpoint, name="owl-7b")
    parts: dict[str, list[Planned]] = {file.stem: list(file.tensors) for file in plan.weights}
    assert count(parts["language/model"]) == LLAMA_7B
    assert count(parts["abstractor"]) == ABSTRACTOR
    assert count(parts["vision/model"]) == CLIP_VIT_L_14 + TEMPORAL
    clip = [tensor for tensor in parts["vision/model"] if ".temporal." not in tensor.name]
    assert count(clip) == CLIP_VIT_L_14
    # Nothing is lost and nothing counted twice: what comes out is what went in, tensor by tensor.
    used = {tensor.source for tensors in parts.values() for tensor in tensors}
    assert used == set(shapes) and not used & set(rotary)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert total == sum(map(count, parts.values())) == LLAMA_7B + CLIP_VIT_L_14 + TEMPORAL + ABSTRACTOR
    assert plan.size == 2 * total


def test_the_assembly_of_clip_and_llama_at_full_size(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    large = VisualEncoderConfig().as_clip_vision_config()
    with torch.device("meta"):
        theirs = CLIPVisionModel(CLIPVisionConfig(**large))
        llama = LlamaForCausalLM(LlamaConfig())  # transformers' defaults are LLaMA-7B
        ours = VisualEncoder(VisualEncoderConfig())
    assert count(theirs.parameters()) == count(ours.parameters()) == CLIP_VIT_L_14
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.named_parameters()}
    (tmp_path / "clip").mkdir()
    checkpoint = checkpoint_of(tmp_path / "clip", large, shapes)
    assert count(plan_clip(checkpoint).weights[0].tensors) == CLIP_VIT_L_14
    shapes = {name: tuple(tensor.shape) for name, tensor in llama.named_parameters()}
    config = LlamaConfig().to_dict()
    assert shapes == llama_shapes(config)
    (tmp_path / "llama").mkdir()
    checkpoint = checkpoint_of(tmp_path / "llama", config, shapes)
    assert count(plan_llama(checkpoint).weights[0].tensors) == LLAMA_7B


@pytest.mark.parametrize("name", ["temporal_query_tokens", "abstractor.encoder.layers.5.crossattention.normk.bias"])
def test_a_tensor_without_a_place_is_seen_before_anything_is_read(tmp_path: Path, name: str) -> None:
    from gpt4video_cli.errors import WeightsError

    config = config_7b()
    shapes = mplug_owl_shapes(*read_config(config, Path("config.json")))
    shapes[f"{name}_2"] = shapes.pop(name)
    with pytest.raises(WeightsError, match=rf"tensor {name} is missing \(and 1 more such problems\)"):
        plan_mplug_owl(checkpoint_of(tmp_path, config, shapes), name="owl-7b")
