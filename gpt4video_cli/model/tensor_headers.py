"""What a safetensors file holds, from its header alone: names, types and shapes. No weight is read, torch stays out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError

INDEX = "{stem}.safetensors.index.json"
STORED_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
}
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
_REPAIR = "fetch or make the file again"
_OTHER_HALF_OF_CLIP = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
VISION_PREFIX = "vision_model."


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file holds it; ``stored`` is safetensors' name of its type (F32, BF16, ...)."""

    name: str
    stored: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.numbers * STORED_BITS[self.stored] // 8


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file. A file that is missing, damaged or cut short is a ``WeightsError``."""
    return _read(path)[0]


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; {} where it has none. Errors as of ``read_header``."""
    return _read(path)[1]


def _read(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
                raise WeightsError(f"{path}: not a safetensors file", hint=_REPAIR)
            header = json.loads(file.read(length))
        metadata = {str(name): str(text) for name, text in header.pop("__metadata__", {}).items()}
        tensors = [StoredTensor(name, at["dtype"], tuple(map(int, at["shape"]))) for name, at in header.items()]
        end = 8 + length + max((int(at["data_offsets"][1]) for at in header.values()), default=0)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: file is missing", hint="the model folder is incomplete") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_REPAIR) from error
    for tensor in tensors:
        if tensor.stored not in STORED_BITS:
            raise WeightsError(f"{path}: tensor {tensor.name} is of the unknown type {tensor.stored}")
    if size < end:
        raise WeightsError(f"{path}: is cut short: {size} bytes of {end}", hint=_REPAIR)
    return tensors, metadata


def read_headers(folder: Path, stem: str = "model") -> list[StoredTensor]:
    """The tensors of ``stem.safetensors``, or of all shards that ``stem.safetensors.index.json`` lists."""
    index = folder / INDEX.format(stem=stem)
    if (folder / f"{stem}.safetensors").is_file() or not index.is_file():
        return read_header(folder / f"{stem}.safetensors")
    return [tensor for shard in shards(index) for tensor in read_header(folder / shard)]


def shards(index: Path) -> list[str]:
    """Names of the files that an index lists, in order."""
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsError(f"{index}: no weight_map", hint=_REPAIR)
    return sorted(set(weight_map.values()))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; anything else is a ``WeightsError`` that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: file is missing", hint="the model folder is incomplete") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def name_in_encoder(name: str) -> str | None:
    """A tensor's name in ``VisualEncoder`` for its name in a CLIP folder; None for what the encoder does not use: the
    text tower and its kin, and the index buffers of old files."""
    if name.startswith(_OTHER_HALF_OF_CLIP) or name.endswith("embeddings.position_ids"):
        return None
    return name.removeprefix(VISION_PREFIX)
