"""What a GGUF file says about itself, read in milliseconds and without llama.cpp, so that a wrong file is told early.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpt4video_cli.errors import WeightsError

_NUMBERS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 24
"""Characters of a string, or members of an array: above that a damaged file is being read."""


@dataclass(frozen=True)
class GgufHeader:
    """``values``: the metadata; of an array only its length. ``types``: ggml's type number of each tensor.
    ``parameters``: numbers in all tensors."""

    path: Path
    values: dict[str, Any]
    types: dict[str, int]
    parameters: int

    @property
    def architecture(self) -> str:
        """``llama`` for every model that this program can use."""
        return str(self.values.get("general.architecture", ""))

    @property
    def width(self) -> int:
        """D_llm."""
        return int(self._of_model("embedding_length"))

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return int(self._of_model("block_count"))

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(self._of_model("attention.head_count"))

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's inside."""
        return int(self._of_model("feed_forward_length"))

    @property
    def context_length(self) -> int:
        """Positions that the model was trained for."""
        return int(self._of_model("context_length"))

    @property
    def vocabulary(self) -> int:
        """Token ids, by the list of tokens: that is what llama.cpp goes by."""
        return int(self.values.get("tokenizer.ggml.tokens", 0))

    @property
    def head_width(self) -> int:
        """Numbers of a head's key."""
        return int(self.values.get(f"{self.architecture}.attention.key_length", self.width // self.heads))

    @property
    def key_value_width(self) -> int:
        """Numbers that a layer keeps for the key of one position; its value has as many."""
        return int(self.values.get(f"{self.architecture}.attention.head_count_kv", self.heads)) * self.head_width

    def _of_model(self, name: str) -> Any:
        key = f"{self.architecture}.{name}"
        if key not in self.values:
            raise WeightsError(f"{self.path}: the GGUF file has no {key}", hint="it is no language model's")
        return self.values[key]


def read_gguf_header(path: Path) -> GgufHeader:
    """Metadata and tensor list of a file; ``WeightsError`` where there is no whole header."""
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path}: the GGUF file is damaged or incomplete: its header breaks off", hint="make it or fetch it again"
        ) from error


def changed_sources(header: GgufHeader, *folders: Path, largest: float = math.inf) -> list[str]:
    """Names of the files in ``folders`` that are no longer those which our export made a GGUF file of.

    It wrote ``gpt4video.source``, a line ``SHA-256  name`` for each. Files that are gone, or above ``largest`` bytes,
    are not looked at, and nothing is known of other programs' files.
    """
    changed = []
    for line in str(header.values.get("gpt4video.source", "")).splitlines():
        digest, _, name = line.partition("  ")
        for path in (folder / name for folder in folders):
            if path.is_file() and path.stat().st_size <= largest:
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        changed.append(name)
    return changed


def _read(path: Path, file: BinaryIO) -> GgufHeader:
    if file.read(4) != b"GGUF":
        raise WeightsError(f"{path}: not a GGUF file")
    version, tensors, entries = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise WeightsError(f"{path}: GGUF version {version}; versions 2 and 3 can be read")
    if max(tensors, entries) > _LONGEST:
        raise ValueError
    values = {}
    for _ in range(entries):
        key = _string(file)
        values[key] = _value(file, _number(file, 4))
    types, parameters = {}, 0
    for _ in range(tensors):
        name = _string(file)
        parameters += math.prod(_number(file, 10) for _ in range(_number(file, 4)))
        types[name] = _number(file, 4)
        _number(file, 10)
    return GgufHeader(path, values, types, parameters)


def _number(file: BinaryIO, kind: int) -> Any:
    form = _NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    return _bytes(file).decode("utf-8", "replace")


def _bytes(file: BinaryIO) -> bytes:
    length = _number(file, 10)
    content = file.read(length) if length <= _LONGEST else b""
    if len(content) != length:
        raise ValueError
    return content


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, kind)
    kind, length = _number(file, 4), _number(file, 10)
    if length > _LONGEST:
        raise ValueError
    if kind in (_STRING, _ARRAY):
        for _ in range(length):
            _bytes(file) if kind == _STRING else _value(file, kind)
    else:
        size = length * struct.calcsize(_NUMBERS[kind])
        if len(file.read(size)) != size:
            raise ValueError
    return length
