"""How much memory a model folder takes, part by part: from its configurations and file headers, before anything loads.

Bytes of a part are exact for 32 and 16 bits: parameters times bytes of a number. In 8 and 4 bits only the linear layers
inside the language model's layers are narrow (bitsandbytes leaves embeddings, norms and head as they are), each with
its scales:
    8bit  LLM.int8 (arXiv 2208.07339): 1 byte a weight, a float32 for each output row
    4bit  NF4 with double quantisation (QLoRA, arXiv 2305.14314): half a byte a weight, a byte for each block of 64, a
          float32 for each 256 blocks, and two tables of 16 and 256 float32 with one offset for each layer

Beside the weights stand the key/value cache, 2 (keys, values) * layers * key/value heads * head width * positions, and
the working memory of a pass (``working_bytes``).

Letters: C positions evaluated at once, L positions of the context, D and F widths of the language model and its MLP, H
heads, h key/value heads, d width of a head, V vocabulary, T frames, P patches of a frame, b bytes of a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.model.tensor_headers import StoredTensor, name_in_encoder, read_header, read_headers, read_json
from gpt4video_cli.weights.card import Card

NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
VISION_INT8 = "int8"
"""Of the visual encoder: int8 in its layers' linear maps, float32 elsewhere, see ``int8_linear.py``."""
QUANTISED = ("8bit", "4bit")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_VISION_LINEAR = re.compile(r"encoder\.layers\.\d+\.(self_attn|mlp|temporal)\.(\w+_proj|fc[12])\.weight$")
_LINEAR = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight$")
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")  # as in language/llama_folder.py
EYES_AT_ONCE = 16
"""Frames encoded together; ``checkpoint.FRAMES_AT_ONCE``."""
POSITIONS_AT_ONCE = 512
"""C; ``torch_engine.CHUNK``."""


@dataclass(frozen=True)
class Precision:
    """``compute`` is float32, bfloat16 or float16; ``weights`` is that, or 8bit or 4bit for the linear layers.
    ``vision``: of the visual encoder, float32, bfloat16, float16 or int8; None: as ``compute``."""

    compute: str
    weights: str
    vision: str | None = None

    @property
    def quantised(self) -> bool:
        """Whether weights are narrower than what is computed with."""
        return self.weights in QUANTISED


@dataclass(frozen=True)
class Part:
    """One part of the model. ``dtype`` as it is held."""

    name: str
    parameters: int
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Block:
    """What of the language model stays together on one device; ``name`` is its module, a key of a device map.

    ``adapter``: bytes of the adapter's weights inside it. ``cache``: bytes of its keys and values at full context.
    """

    name: str
    parameters: int
    bytes: int
    adapter: int = 0
    cache: int = 0

    @property
    def is_layer(self) -> bool:
        """Whether it is one of the layers, not embeddings, norm or head."""
        return _LAYER.match(self.name + ".") is not None


@dataclass(frozen=True)
class ModelSizes:
    """``blocks`` in the order in which a token passes them; their sum is the part ``language`` (and ``adapter``)."""

    name: str
    precision: Precision
    parts: tuple[Part, ...]
    blocks: tuple[Block, ...]
    context: int
    working: int
    adapter_apart: bool
    tied: bool

    @property
    def eyes(self) -> int:
        """Bytes of the visual encoder and the abstractor, which stay together."""
        return sum(part.bytes for part in self.parts if part.name in ("vision", "abstractor"))

    @property
    def weights(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def cache(self) -> int:
        """Bytes of the keys and values of a full context."""
        return sum(block.cache for block in self.blocks)

    @property
    def total(self) -> int:
        """Bytes that the model needs on a single device."""
        return self.weights + self.cache + self.working


def measure_model(card: Card, folder: Path, precision: Precision, context_length: int | None = None) -> ModelSizes:
    """The sizes of the model in ``folder``. ``WeightsError`` for what is missing, damaged or cut short."""
    language = folder / "language"
    config = read_json(language / "config.json")
    try:
        layers, width, heads = (int(config[key]) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
        longest = int(config["max_position_embeddings"])
        head_width = int(config.get("head_dim") or width // heads)
        key_heads = int(config.get("num_key_value_heads") or heads)
        mlp_width, vocabulary = int(config["intermediate_size"]), int(config["vocab_size"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{language / 'config.json'}: a size is missing or no number ({error})") from error
    if context_length is not None and not 1 < context_length <= longest:
        raise UsageError(f"context length must be between 2 and the model's {longest}, got {context_length}")
    context = context_length or longest
    number = NUMBER_BYTES[precision.compute]
    vision = [t for t in read_headers(folder / "vision") if name_in_encoder(t.name) is not None]
    abstractor = read_header(folder / "abstractor.safetensors")
    tied = bool(config.get("tie_word_embeddings", False))
    words = [
        t for t in read_headers(language) if not _COMPUTED.search(t.name) and not (tied and t.name == "lm_head.weight")
    ]
    adapter = folder / "adapter" / "adapter_model.safetensors"
    added = read_header(adapter) if adapter.parent.is_dir() else []
    cache = 2 * key_heads * head_width * context * number
    blocks = _blocks(words, added, precision, cache)
    parts = [
        vision_part(vision, precision),
        _plain("abstractor", abstractor, precision.compute),
        Part("language", sum(t.numbers for t in words), precision.weights, sum(block.bytes for block in blocks)),
    ]
    if added:
        parts.append(_plain("adapter", added, "float32"))  # peft widens what it trains: autocast_adapter_dtype
    if len([block for block in blocks if block.is_layer]) != layers:
        raise WeightsError(f"{language}: config.json says {layers} layers, the weights have another number")
    frames = card.frames
    work = max(
        NUMBER_BYTES.get(precision.vision or precision.compute, 4) * _vision_numbers(vision, frames),
        number * _abstractor_numbers(abstractor, vision, frames),
        number * _language_numbers(context, width, mlp_width, heads, key_heads, head_width) + 8 * vocabulary,
    )
    if precision.quantised:  # each matrix arrives whole and is narrowed on the device
        work = max(work, max(t.numbers for t in words) * number)
    apart = bool(added) and (precision.compute != "float32" or precision.quantised)
    return ModelSizes(card.name, precision, tuple(parts), blocks, context, work, apart, tied)


def vision_part(tensors: list[StoredTensor], precision: Precision) -> Part:
    """The visual encoder as it is held."""
    if precision.vision != VISION_INT8:
        return _plain("vision", tensors, precision.vision or precision.compute)
    narrow = sum(3 * t.numbers - 4 * t.shape[0] for t in tensors if _VISION_LINEAR.search(t.name))
    wide = _plain("vision", tensors, "float32")
    return Part(wide.name, wide.parameters, VISION_INT8, wide.bytes - narrow)


def _plain(name: str, tensors: list[StoredTensor], dtype: str) -> Part:
    numbers = sum(tensor.numbers for tensor in tensors)
    return Part(name, numbers, dtype, numbers * NUMBER_BYTES[dtype])


def _blocks(
    words: list[StoredTensor], added: list[StoredTensor], precision: Precision, cache: int
) -> tuple[Block, ...]:
    """The language model cut where it may be cut: embeddings, each layer, norm, head."""
    numbers: dict[str, int] = {}
    sizes: dict[str, int] = {}
    extra: dict[str, int] = {}
    for tensor in words:
        name = _module(tensor.name)
        numbers[name] = numbers.get(name, 0) + tensor.numbers
        sizes[name] = sizes.get(name, 0) + held_bytes(tensor, precision)
    for tensor in added:
        name = _module(tensor.name.removeprefix("base_model.model."))
        if name not in sizes:  # an adapter for another model is told where it is attached
            name = next(iter(sizes))
        extra[name] = extra.get(name, 0) + tensor.numbers * NUMBER_BYTES["float32"]
    order = sorted(sizes, key=_place_on_the_way)
    return tuple(
        Block(name, numbers[name], sizes[name], extra.get(name, 0), cache if _LAYER.match(name + ".") else 0)
        for name in order
    )


def held_bytes(tensor: StoredTensor, precision: Precision) -> int:
    """What a tensor of the language model takes on its device."""
    numbers = tensor.numbers
    if not (precision.quantised and _LINEAR.match(tensor.name)):
        return numbers * NUMBER_BYTES[precision.compute]
    if precision.weights == "8bit":
        return numbers + 4 * tensor.shape[0]
    blocks = -(-numbers // 64)
    return -(-numbers // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)


def _module(tensor: str) -> str:
    """``model.layers.3`` for a tensor inside layer 3, else the module that has it."""
    inside = _LAYER.match(tensor)
    return f"model.layers.{inside[1]}" if inside else tensor.rsplit(".", 1)[0]


def _place_on_the_way(name: str) -> tuple[int, int]:
    inside = _LAYER.match(name + ".")
    if inside:
        return 1, int(inside[1])
    return {"model.embed_tokens": 0, "model.norm": 2}.get(name, 3), 0


def _sizes(tensors: list[StoredTensor]) -> dict[str, tuple[int, ...]]:
    return {name_in_encoder(tensor.name) or tensor.name: tensor.shape for tensor in tensors}


def _vision_numbers(vision: list[StoredTensor], frames: int) -> int:
    """T (1+P) (8 D + 3 F) for the frames encoded together: residual, norm, queries, keys, values, attention and their
    copies, then the MLP's inside, its sigmoid and their product (ViT-L/14 in float32: 21 MB a frame)."""
    shapes = _sizes(vision)
    tokens, width = shapes.get("embeddings.position_embedding.weight", (0, 0))
    mlp = shapes.get("encoder.layers.0.mlp.fc1.weight", (0, 0))[0]
    whole_clip = any(".temporal." in name for name in shapes)
    at_once = frames if whole_clip else min(frames, EYES_AT_ONCE)
    return at_once * tokens * (8 * width + 3 * mlp) + frames * tokens * width


def _abstractor_numbers(abstractor: list[StoredTensor], vision: list[StoredTensor], frames: int) -> int:
    """M D (2 layers + 6) with M = T (1+P): the features' keys and values of all layers are held for both queries, and
    one layer more is joined with the queries' own."""
    tokens, width = _sizes(vision).get("embeddings.position_embedding.weight", (0, 0))
    layers = sum(tensor.name.endswith(".key.weight") for tensor in abstractor)
    return frames * tokens * width * (2 * layers + 6)


def _language_numbers(context: int, width: int, mlp: int, heads: int, key_heads: int, head: int) -> int:
    """C (8 D + 3 F) as for vision, the old keys of a layer while it gets longer ones (h d L), keys and values repeated
    for all heads where there are fewer of them (2 H d L), and the mask (C L)."""
    at_once = min(context, POSITIONS_AT_ONCE)
    repeated = 2 * heads * head * context if key_heads < heads else 0
    return at_once * (8 * width + 3 * mlp) + key_heads * head * context + repeated + at_once * context


def describe(sizes: ModelSizes) -> dict[str, Any]:
    """Parameters and bytes by part, ready for JSON."""
    return {
        part.name: {"parameters": part.parameters, "dtype": part.dtype, "bytes": part.bytes} for part in sizes.parts
    }
