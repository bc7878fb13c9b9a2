"""A public mPLUG-Owl-video checkpoint to a model folder of ours. Every tensor is accounted for by name.

The format is that of ``MAGAer13/mplug-owl-llama-7b-video``: ``config.json`` and ``pytorch_model.bin`` (or its shards),
a pickle, which is read once, here, with ``weights_only=True``. What the configuration does not say was read in
X-PLUG/mPLUG-Owl, ``mPLUG-Owl/mplug_owl_video/modeling_mplug_owl.py``.

    python -m gpt4video_cli.weights.convert_mplug_owl CHECKPOINT_FOLDER MODEL_FOLDER

Letters: D width, H heads, d width of a head.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, save_abstractor
from gpt4video_cli.model.strict_load import load_strict, read_json, write_safetensors
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig, save_visual_encoder
from gpt4video_cli.video.preprocess import PreprocessConfig
from gpt4video_cli.weights.card import FILE_NAME, Card, render_card
from gpt4video_cli.weights.llama_layout import llama_shapes
from gpt4video_cli.whole_file import write_whole

_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
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


def convert_mplug_owl(source: str | Path, target: str | Path, *, name: str = "mplug-owl-video") -> Path:
    """Read the checkpoint folder ``source``, write the model folder ``target`` and return it.

    Tensors keep their dtype. Raises ``WeightsError`` for a tensor that is missing, unexpected or mis-shaped.
    """
    source, target = Path(source), Path(target)
    config = read_json(source / "config.json")
    tensors = _read_pickles(source)
    vision_config, abstractor_config, language_config = _read_config(config, source / "config.json")
    vision, abstractor, language = _sort(tensors, vision_config.heads, source)

    with torch.device("meta"):
        encoder, condenser = VisualEncoder(vision_config), Abstractor(abstractor_config)
    load_strict(encoder, vision, f"{source} (vision_model)")
    load_strict(condenser, abstractor, f"{source} (abstractor)")
    _check_llama(language, language_config, f"{source} (language_model)")

    save_visual_encoder(encoder, target / "vision")
    preprocessing = PreprocessConfig.square(vision_config.image_size).as_dict()
    write_whole(target / "vision" / "preprocessor_config.json", json.dumps(preprocessing, indent=2) + "\n")
    save_abstractor(condenser, target / "abstractor.safetensors")
    write_safetensors(target / "language" / "model.safetensors", language, {"format": "pt"})
    write_whole(target / "language" / "config.json", json.dumps(language_config, indent=2) + "\n")
    for file in _TOKENIZER_FILES:
        if (source / file).is_file():
            shutil.copyfile(source / file, target / "language" / file)
    write_whole(target / FILE_NAME, render_card(_card(name)))  # last: a folder with a card is complete
    return target


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


def _read_pickles(folder: Path) -> dict[str, Tensor]:
    index = folder / "pytorch_model.bin.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["pytorch_model.bin"]
    tensors: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: file is missing", hint="the checkpoint folder is incomplete")
        try:
            part = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsError(f"{path}: cannot be read as plain weights ({reason})") from error
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            raise WeightsError(f"{path}: holds something other than named tensors")
        tensors.update(part)
    return tensors


def _read_config(config: Mapping[str, Any], file: Path) -> tuple[VisualEncoderConfig, AbstractorConfig, dict[str, Any]]:
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
    return vision_config, abstractor_config, {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **language}


def _mlp_width(intermediate_size: int) -> int:
    """The reference's rule: two thirds, rounded up to a multiple of 256; 2816 is taken as it is."""
    return intermediate_size if intermediate_size == 2816 else -(-(2 * intermediate_size // 3) // 256) * 256


def _sort(
    tensors: Mapping[str, Tensor], heads: int, source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of vision, abstractor and language model, under our names and in our layout."""
    vision: dict[str, Tensor] = {}
    abstractor: dict[str, Tensor] = {}
    language: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        try:
            if name.startswith("vision_model."):
                vision |= _vision_tensor(name.removeprefix("vision_model."), tensor, heads)
            elif name.startswith("abstractor.") or name in ("query_tokens", "temporal_query_tokens"):
                abstractor |= _abstractor_tensor(name.removeprefix("abstractor."), tensor)
            elif name.startswith("language_model."):
                if not name.endswith("rotary_emb.inv_freq"):  # computed from the configuration, not learned
                    language[name.removeprefix("language_model.")] = tensor
            else:
                raise KeyError(name)
        except KeyError as error:
            raise WeightsError(f"{source}: tensor {name} is unexpected") from error
        except (RuntimeError, IndexError) as error:  # a view that its shape does not allow
            raise WeightsError(f"{source}: tensor {name} has the unexpected shape {list(tensor.shape)}") from error
    return vision, abstractor, language


Change = Callable[[Tensor], Tensor]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _vector(tensor: Tensor) -> Tensor:
    return tensor.flatten()


def _matrix(tensor: Tensor) -> Tensor:
    """[1, n, D] -> [n, D], or a convolution of size one [out, in, 1, 1, 1] -> a linear map [out, in]."""
    return tensor[0] if tensor.ndim == 3 else tensor[:, :, 0, 0, 0]


def _taps(tensor: Tensor) -> Tensor:
    """A depthwise convolution over time [D, 1, 3, 1, 1] -> [3, D]."""
    return tensor[:, 0, :, 0, 0].T


_VISION: dict[str, tuple[str, Change]] = {
    "embeddings.cls_token": ("embeddings.class_embedding", _vector),
    "embeddings.position_embedding": ("embeddings.position_embedding.weight", _matrix),
    "embeddings.patch_embed.weight": ("embeddings.patch_embedding.weight", _same),
    "embeddings.pre_layernorm.weight": ("pre_layrnorm.weight", _same),
    "embeddings.pre_layernorm.bias": ("pre_layrnorm.bias", _same),
    "post_layernorm.weight": ("post_layernorm.weight", _same),
    "post_layernorm.bias": ("post_layernorm.bias", _same),
}
_VISION_LAYER: dict[str, tuple[str, Change]] = {
    "temporal.ln.weight": ("temporal.norm.weight", _same),
    "temporal.ln.bias": ("temporal.norm.bias", _same),
    "temporal.down_proj.weight": ("temporal.down_proj.weight", _matrix),
    "temporal.down_proj.bias": ("temporal.down_proj.bias", _same),
    "temporal.conv.weight": ("temporal.taps", _taps),
    "temporal.conv.bias": ("temporal.taps_bias", _same),
    "temporal.up_proj.weight": ("temporal.up_proj.weight", _matrix),
    "temporal.up_proj.bias": ("temporal.up_proj.bias", _same),
    "self_attn.dense.weight": ("self_attn.out_proj.weight", _same),
    "self_attn.dense.bias": ("self_attn.out_proj.bias", _same),
    "input_layernorm.weight": ("layer_norm1.weight", _same),
    "input_layernorm.bias": ("layer_norm1.bias", _same),
    "post_attention_layernorm.weight": ("layer_norm2.weight", _same),
    "post_attention_layernorm.bias": ("layer_norm2.bias", _same),
    **{f"mlp.{part}": (f"mlp.{part}", _same) for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")},
}
_ABSTRACTOR: dict[str, tuple[str, Change]] = {
    "query_tokens": ("spatial_queries", _matrix),
    "temporal_query_tokens": ("temporal_queries", _matrix),
    "vit_eos": ("end_token", _vector),
    "visual_fc.weight": ("spatial_projection.weight", _same),
    "visual_fc.bias": ("spatial_projection.bias", _same),
    "temporal_visual_fc.weight": ("temporal_projection.weight", _same),
    "temporal_visual_fc.bias": ("temporal_projection.bias", _same),
}
_ABSTRACTOR_LAYER = {
    "norm1": "norm_queries",
    "normk": "norm_features",
    "attention.query": "query",
    "attention.key": "key",
    "attention.value": "value",
    "output.out_proj": "out",
    "output.norm2": "norm_mlp",
    "output.mlp.w1": "gate",
    "output.mlp.w2": "down",
    "output.mlp.w3": "up",
    "output.mlp.ffn_ln": "inner_norm",
}


def _vision_tensor(name: str, tensor: Tensor, heads: int) -> dict[str, Tensor]:
    found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
    if not found:
        new, change = _VISION[name]
        return {new: change(tensor)}
    layer, part = found.groups()
    at = f"encoder.layers.{layer}."
    if part in ("self_attn.query_key_value.weight", "self_attn.query_key_value.bias"):
        kind = part.rpartition(".")[2]
        # Interleaved per head: [H, 3, d, ...] -> three of [H * d, ...]
        each = tensor.unflatten(0, (heads, 3, -1)).unbind(1)
        return {f"{at}self_attn.{q}_proj.{kind}": t.flatten(0, 1).clone() for q, t in zip("qkv", each, strict=True)}
    new, change = _VISION_LAYER[part]
    return {at + new: change(tensor)}


def _abstractor_tensor(name: str, tensor: Tensor) -> dict[str, Tensor]:
    found = re.fullmatch(r"encoder\.layers\.(\d+)\.crossattention\.(.+)\.(weight|bias)", name)
    if not found:
        new, change = _ABSTRACTOR[name]
        return {new: change(tensor)}
    layer, part, kind = found.groups()
    return {f"layers.{layer}.{_ABSTRACTOR_LAYER[part]}.{kind}": tensor}


def _check_llama(tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: str) -> None:
    shapes = llama_shapes(config)
    for name, shape in shapes.items():
        if name not in tensors:
            raise WeightsError(f"{file}: tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise WeightsError(f"{file}: tensor {name} has shape {list(tensors[name].shape)}, expected {list(shape)}")
    for name in tensors:
        if name not in shapes:
            raise WeightsError(f"{file}: tensor {name} is unexpected")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m gpt4video_cli.weights.convert_mplug_owl CHECKPOINT_FOLDER MODEL_FOLDER")
    convert_mplug_owl(sys.argv[1], sys.argv[2])
