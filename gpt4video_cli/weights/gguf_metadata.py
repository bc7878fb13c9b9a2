"""What a GGUF file says of a LLaMA besides its weights: sizes, rotary embeddings, where it comes from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.llama_layout import llama_shapes

if TYPE_CHECKING:
    from gguf import GGUFWriter

    from gpt4video_cli.weights.card import Card

BASE = "gpt4video.base."
"""Before the keys that say for which language model a file is: ``architecture``, ``embedding_length``, ``layout``."""

SOURCE = "gpt4video.source"
_YARN = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "mscale": None, "mscale_all_dim": None}
"""What llama.cpp takes for YaRN (arXiv 2309.00071) whatever a file says: it reads these keys for other models only."""


def add_sizes(writer: GGUFWriter, config: Mapping[str, Any], file: Path) -> None:
    """Write the sizes in the Hugging Face ``config`` of a LLaMA; ``file`` is named where it cannot be said in GGUF."""
    if config.get("hidden_act", "silu") != "silu":
        raise WeightsError(f"{file}: hidden_act is {config['hidden_act']!r}, llama.cpp's LLaMA has only 'silu'")
    heads = config["num_attention_heads"]
    head = _head_width(config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config.get("max_position_embeddings", 2048))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    _add_rope(writer, _rope(config), file)


def rope_tensors(config: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """``rope_freqs.weight`` [head / 2]: by what LLaMA 3.1 divides each frequency; nothing for other models.

    The formula is ``_compute_llama3_parameters`` of transformers' modeling_rope_utils.py, which multiplies instead.
    """
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return {}
    head = _head_width(config)
    turns = _number(rope, "rope_theta", file) ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    waves = _number(rope, "original_max_position_embeddings", file) * turns / (2 * math.pi)
    low, high, factor = (_number(rope, key, file) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    smooth = ((waves - low) / (high - low)).clamp(0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / factor + smooth)).float()}


def add_base(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Write for which language model a file is, so that an adapter for another one can be refused by name."""
    writer.add_string(f"{BASE}architecture", "llama")
    writer.add_uint32(f"{BASE}embedding_length", config["hidden_size"])
    writer.add_string(f"{BASE}layout", layout_hash(config))


def add_source(writer: GGUFWriter, files: Sequence[Path]) -> None:
    """Write the SHA-256 of the files that it is made from: ``gpt4video.source``, a line ``hash  name`` for each."""
    writer.add_string(SOURCE, source_lines(files))


def source_lines(files: Sequence[Path]) -> str:
    """What ``add_source`` writes. Takes a second for each GB or two."""
    lines = []
    for path in files:
        with open(path, "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    return "\n".join(lines)


def add_card(writer: GGUFWriter, card: Card | None) -> None:
    """Write what the model's card says of it."""
    if card is None:
        return
    writer.add_name(card.name)
    writer.add_description(card.summary)
    writer.add_license(card.licence)
    writer.add_string("gpt4video.card", card.name)
    writer.add_string("gpt4video.made_from", card.made_from)
    writer.add_string("gpt4video.template", card.template)


def layout_hash(config: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the names and shapes of a LLaMA's tensors and of how its attention is cut into heads.

    The same for all number formats and numbers of shards; two models that were trained apart may share it.
    """
    heads = [config["num_attention_heads"], config.get("num_key_value_heads") or config["num_attention_heads"]]
    content = json.dumps([heads, sorted(llama_shapes(config).items())])
    return hashlib.sha256(content.encode()).hexdigest()


def _head_width(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 has one entry for what were ``rope_theta`` and ``rope_scaling`` before."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope.setdefault("original_max_position_embeddings", config.get("max_position_embeddings", 2048))
    return rope


def _number(rope: Mapping[str, Any], key: str, file: Path) -> float:
    value = rope.get(key)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise WeightsError(f"{file}: {key} of the rotary embeddings is {value!r}, it must be a number above 0")
    return float(value)


def _add_rope(writer: GGUFWriter, rope: Mapping[str, Any], file: Path) -> None:
    from gguf import RopeScalingType

    writer.add_rope_freq_base(_number(rope, "rope_theta", file))
    kind = rope["rope_type"]
    if kind in ("default", "llama3"):  # llama3: see rope_tensors
        return
    own = [key for key, value in _YARN.items() if rope.get(key) not in (None, value)] if kind == "yarn" else []
    if kind not in ("linear", "yarn") or own:
        what = f"with {own[0]} {rope[own[0]]!r}" if own else f"of type {kind!r}"
        raise WeightsError(f"{file}: llama.cpp has no rotary embeddings {what} for LLaMA")
    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(factor := _number(rope, "factor", file))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(_number(rope, "original_max_position_embeddings", file)))
        if rope.get("attention_factor") is not None:  # llama.cpp multiplies what the paper proposes, 0.1 ln s + 1
            proposed = 0.1 * math.log(factor) + 1
            writer.add_rope_scaling_attn_factors(_number(rope, "attention_factor", file) / proposed)
