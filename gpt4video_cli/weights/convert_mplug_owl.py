"""The public mPLUG-Owl-video format: which of its tensors becomes which of ours. Every one is accounted for by name.

The format is that of ``MAGAer13/mplug-owl-llama-7b-video``: ``config.json`` and ``pytorch_model.bin`` or its shards.
What the configuration does not say was read in X-PLUG/mPLUG-Owl, ``mPLUG-Owl/mplug_owl_video/modeling_mplug_owl.py``.

Letters: D width, H heads, d width of a head, n queries or positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.llama_folder import COMPUTED
from gpt4video_cli.model.abstractor import FORMAT, FORMAT_VERSION, Abstractor, AbstractorConfig
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.video.preprocess import CONFIG_NAME, PreprocessConfig
from gpt4video_cli.weights.card import FILE_NAME, Card, render_card
from gpt4video_cli.weights.convert_huggingface import as_json, copied_files, shapes_of, tokenizer_notes, with_dtype
from gpt4video_cli.weights.convert_plan import Change, Plan, Wanted, WeightsFile, common_dtype, plan_tensors, same
from gpt4video_cli.weights.convert_source import Checkpoint, folder_of
from gpt4video_cli.weights.mplug_owl_layout import mplug_owl_shapes

_LLAMA_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "initializer_range",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def plan_mplug_owl(checkpoint: Checkpoint, *, name: str, dtype: torch.dtype | None = None) -> Plan:
    """A whole model folder; ``name`` stands in its card. ``dtype`` None keeps that of each tensor.

    Raises ``WeightsError`` for a tensor that is missing, unexpected or mis-shaped, and for another kind of model.
    """
    folder = folder_of(checkpoint.place)
    file = folder / "config.json"
    vision_config, abstractor_config, language_config = read_config(read_json(file), file)
    llama = shapes_of(language_config, file)
    stored = mplug_owl_shapes(vision_config, abstractor_config, language_config)
    wanted = {
        "vision/model": _vision(vision_config),
        "abstractor": _abstractor(abstractor_config),
        "language/model": [Wanted(name, shape, f"language_model.{name}") for name, shape in llama.items()],
    }
    planned = plan_tensors(checkpoint, wanted, stored=stored, left_out=COMPUTED.pattern, dtype=dtype)
    header = {"format_version": FORMAT_VERSION, "config": asdict(abstractor_config)}
    weights = (
        WeightsFile("vision/model", planned["vision/model"]),
        WeightsFile("abstractor", planned["abstractor"], {FORMAT: json.dumps(header, sort_keys=True)}, sharded=False),
        WeightsFile("language/model", planned["language/model"]),
    )
    language_config = with_dtype(language_config, common_dtype(planned["language/model"]))
    preprocessing = PreprocessConfig.square(vision_config.image_size).as_dict()
    texts = {
        "vision/config.json": as_json(vision_config.as_clip_vision_config()),
        f"vision/{CONFIG_NAME}": as_json(preprocessing),
        "language/config.json": as_json(language_config),
        FILE_NAME: render_card(_card(name)),
    }
    copies = copied_files(folder)
    notes = tokenizer_notes(folder, copies)
    return Plan(weights, texts, {f"language/{name}": path for name, path in copies.items()}, notes)


def _card(name: str) -> Card:
    return Card(
        name=name,
        summary="mPLUG-Owl-video, converted; a LLaMA that answers questions about clips",
        licence="LLaMA community licence (non-commercial), mPLUG-Owl Apache-2.0",
        template="mplug-owl",
        frames=4,
        final_norm=True,
        made_from="MAGAer13/mplug-owl-llama-7b-video",
        citation="Ye et al., mPLUG-Owl: Modularization Empowers Large Language Models with Multimodality, "
        "arXiv 2304.14178",
        limits=(
            "It was not trained to ask for clips, so it films nothing.",
            "The reference squeezes frames into a square; here the middle square is cut out.",
        ),
    )


def read_config(config: Mapping[str, Any], file: Path) -> tuple[VisualEncoderConfig, AbstractorConfig, dict[str, Any]]:
    """Vision, abstractor and LLaMA's part of a public ``config.json``; ``file`` names it in ``WeightsError``."""
    try:
        vision, abstractor, text = (
            config["vision_config"],
            config["visual_abstractor_config"],
            config["text_config"],
        )
        if text["model_type"] != "llama":
            raise WeightsError(f"{file}: language model is {text['model_type']!r}, only llama is supported")
        if abstractor["encoder_hidden_size"] != abstractor["hidden_size"]:
            raise WeightsError(f"{file}: abstractor and visual features of different width are not supported")
        vision_config = VisualEncoderConfig(
            width=vision["hidden_size"],
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            mlp_width=vision["intermediate_size"],
            patch_size=vision["patch_size"],
            image_size=vision["image_size"],
            activation="quick_gelu",  # fixed in the reference, whatever hidden_act says
            norm_eps=vision["layer_norm_eps"],
            final_norm=True,
            local_temporal=True,
        )
        abstractor_config = AbstractorConfig.mplug_owl_video(
            width=abstractor["hidden_size"],
            output_width=text["hidden_size"],
            queries=config["num_query_tokens"],
            layers=abstractor["num_hidden_layers"],
            heads=abstractor["num_attention_heads"],
            mlp_width=_mlp_width(abstractor["intermediate_size"]),
            inner_norm_eps=abstractor["layer_norm_eps"],
        )
        language = {key: text[key] for key in _LLAMA_KEYS if text.get(key) is not None}
    except KeyError as error:
        raise WeightsError(f"{file}: {error.args[0]} is missing") from error
    except (TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{file}: is not an mPLUG-Owl-video configuration ({error})") from error
    return vision_config, abstractor_config, {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **language}


def _mlp_width(intermediate_size: int) -> int:
    """The reference's rule: two thirds, rounded up to a multiple of 256; 2816 is taken as it is."""
    return intermediate_size if intermediate_size == 2816 else -(-(2 * intermediate_size // 3) // 256) * 256


def _vision(config: VisualEncoderConfig) -> Iterator[Wanted]:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in VisualEncoder(config).state_dict().items()}
    for name, shape in shapes.items():
        found = re.fullmatch(r"(encoder\.layers\.\d+\.)(.+)", name)
        at, part = found.groups() if found else ("", name)
        theirs, change = (_VISION_LAYER if found else _VISION).get(part) or _from_joint(part, config.heads)
        yield Wanted(f"vision_model.{name}", shape, f"vision_model.{at}{theirs}", change)


def _from_joint(part: str, heads: int) -> tuple[str, Change]:
    """``self_attn.{q,k,v}_proj``: one tensor of the reference, interleaved for each head."""
    which, kind = re.fullmatch(r"self_attn\.([qkv])_proj\.(\w+)", part).groups()  # type: ignore[union-attr]
    return f"self_attn.query_key_value.{kind}", partial(_third, heads=heads, number="qkv".index(which))


def _abstractor(config: AbstractorConfig) -> Iterator[Wanted]:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in Abstractor(config).state_dict().items()}
    for name, shape in shapes.items():
        found = re.fullmatch(r"layers\.(\d+)\.(\w+)\.(weight|bias)", name)
        if found:
            layer, part, kind = found.groups()
            theirs = f"abstractor.encoder.layers.{layer}.crossattention.{_ABSTRACTOR_LAYER[part]}.{kind}"
            yield Wanted(name, shape, theirs)
        else:
            theirs, change = _ABSTRACTOR[name]
            yield Wanted(name, shape, theirs, change)


def _vector(tensor: Tensor) -> Tensor:
    """[1, 1, D] -> [D]"""
    return tensor.flatten()


def _rows(tensor: Tensor) -> Tensor:
    """[1, n, D] -> [n, D]"""
    return tensor.squeeze(0)


def _matrix(tensor: Tensor) -> Tensor:
    """A convolution of size one [out, in, 1, 1, 1] -> a linear map [out, in]."""
    return tensor.flatten(1)


def _taps(tensor: Tensor) -> Tensor:
    """A depthwise convolution over time [D, 1, 3, 1, 1] -> [3, D]."""
    return tensor.flatten(1).T


def _third(tensor: Tensor, heads: int, number: int) -> Tensor:
    """Query, key or value of [H * 3 * d, ...]: [H * d, ...]"""
    return tensor.unflatten(0, (heads, 3, -1))[:, number].flatten(0, 1)


# Our name: the reference's, and the change.
_VISION: dict[str, tuple[str, Change]] = {
    "embeddings.class_embedding": ("embeddings.cls_token", _vector),
    "embeddings.position_embedding.weight": ("embeddings.position_embedding", _rows),
    "embeddings.patch_embedding.weight": ("embeddings.patch_embed.weight", same),
    "pre_layrnorm.weight": ("embeddings.pre_layernorm.weight", same),
    "pre_layrnorm.bias": ("embeddings.pre_layernorm.bias", same),
    "post_layernorm.weight": ("post_layernorm.weight", same),
    "post_layernorm.bias": ("post_layernorm.bias", same),
}
_VISION_LAYER: dict[str, tuple[str, Change]] = {
    "temporal.norm.weight": ("temporal.ln.weight", same),
    "temporal.norm.bias": ("temporal.ln.bias", same),
    "temporal.down_proj.weight": ("temporal.down_proj.weight", _matrix),
    "temporal.down_proj.bias": ("temporal.down_proj.bias", same),
    "temporal.taps": ("temporal.conv.weight", _taps),
    "temporal.taps_bias": ("temporal.conv.bias", same),
    "temporal.up_proj.weight": ("temporal.up_proj.weight", _matrix),
    "temporal.up_proj.bias": ("temporal.up_proj.bias", same),
    "self_attn.out_proj.weight": ("self_attn.dense.weight", same),
    "self_attn.out_proj.bias": ("self_attn.dense.bias", same),
    "layer_norm1.weight": ("input_layernorm.weight", same),
    "layer_norm1.bias": ("input_layernorm.bias", same),
    "layer_norm2.weight": ("post_attention_layernorm.weight", same),
    "layer_norm2.bias": ("post_attention_layernorm.bias", same),
    **{f"mlp.{part}": (f"mlp.{part}", same) for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")},
}
_ABSTRACTOR: dict[str, tuple[str, Change]] = {
    "spatial_queries": ("query_tokens", _rows),
    "temporal_queries": ("temporal_query_tokens", _rows),
    "end_token": ("abstractor.vit_eos", _vector),
    "spatial_projection.weight": ("abstractor.visual_fc.weight", same),
    "spatial_projection.bias": ("abstractor.visual_fc.bias", same),
    "temporal_projection.weight": ("abstractor.temporal_visual_fc.weight", same),
    "temporal_projection.bias": ("abstractor.temporal_visual_fc.bias", same),
}
_ABSTRACTOR_LAYER = {
    "norm_queries": "norm1",
    "norm_features": "normk",
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "out": "output.out_proj",
    "norm_mlp": "output.norm2",
    "gate": "output.mlp.w1",
    "down": "output.mlp.w2",
    "up": "output.mlp.w3",
    "inner_norm": "output.mlp.ffn_ln",
}
