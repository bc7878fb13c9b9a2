"""safetensors files written tensor by tensor, in shards of a size that a person chooses.

The format (github.com/huggingface/safetensors): eight bytes with the header's length, little-endian; the header, JSON
that gives each tensor's dtype, shape and place; the tensors' bytes without gaps. All of the header is known from the
plan, so nothing needs to be held but the tensor that is being written: ``safetensors.torch.save_file`` takes a whole
shard in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.convert_plan import Planned, WeightsFile
from gpt4video_cli.weights.convert_source import DTYPE_NAMES, INDEX, SAFETENSORS, Checkpoint

SHARD_BYTES = 2_000_000_000
"""Of a shard, unless told otherwise. A single tensor that is larger gets a shard to itself."""

_PIECE = 2**23
"""Numbers that are converted and written at once: 32 MB of float32."""

Progress = Callable[[int], None]
"""Hears how many bytes have just been written."""


def write_weights(
    folder: Path, file: WeightsFile, checkpoint: Checkpoint, *, limit: int = SHARD_BYTES, progress: Progress
) -> list[Path]:
    """Write ``file`` into ``folder`` and return the files, which are not flushed to the disk yet.

    One shard is called ``stem.safetensors``; several are ``stem-00001-of-0000N.safetensors``, with an index, as
    transformers has it. Raises ``OSError`` where the disk refuses, ``WeightsError`` for a number that does not fit.
    """
    shards = list(_cut(file.tensors, limit)) if file.sharded else [list(file.tensors)]
    names = [f"{file.stem}{SAFETENSORS}"]
    if len(shards) > 1:
        names = [f"{file.stem}-{n:05}-of-{len(shards):05}{SAFETENSORS}" for n in range(1, len(shards) + 1)]
    for name, tensors in zip(names, shards):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _write_shard(folder / name, tensors, file.metadata, checkpoint, progress)
    if len(shards) > 1:
        where = {t.name: Path(name).name for name, tensors in zip(names, shards) for t in tensors}
        index = {"metadata": {"total_size": file.size}, "weight_map": dict(sorted(where.items()))}
        names.append(f"{file.stem}{SAFETENSORS}{INDEX}")
        (folder / names[-1]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def _cut(tensors: Sequence[Planned], limit: int) -> Iterator[list[Planned]]:
    shard: list[Planned] = []
    for tensor in tensors:
        if shard and sum(t.size for t in shard) + tensor.size > limit:
            yield shard
            shard = []
        shard.append(tensor)
    yield shard


def _write_shard(
    path: Path, tensors: Sequence[Planned], metadata: Mapping[str, str], checkpoint: Checkpoint, progress: Progress
) -> None:
    # Wide numbers first, so that each tensor starts at a multiple of its own numbers' size (readers map the file).
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    with open(path, "xb") as file:
        file.write(_header(ordered, metadata))
        for planned in ordered:
            for piece in pieces(planned, checkpoint, "use --dtype bfloat16, or leave --dtype away"):
                content = piece.view(torch.uint8).numpy()
                file.write(content.data)
                progress(content.nbytes)


def _header(tensors: Sequence[Planned], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for tensor in tensors:
        place = [at, at := at + tensor.size]
        header[tensor.name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def pieces(planned: Planned, checkpoint: Checkpoint, hint: str) -> Iterator[Tensor]:
    """The numbers of a tensor in a row, [n] each, in the dtype of the file.

    ``hint``: what to do where a number is too large for float16, which is a ``WeightsError``.
    """
    tensor = planned.change(checkpoint.read(planned.source))
    if tuple(tensor.shape) != planned.shape:
        raise WeightsError(f"{checkpoint.place}: changed while it was read (tensor {planned.source})")
    for piece in tensor.contiguous().view(-1).split(_PIECE):
        converted = piece.to(planned.dtype)
        narrowed = converted.dtype is torch.float16 and piece.dtype is not torch.float16
        if narrowed and bool(converted.isinf().any() & piece.isfinite().all()):
            raise WeightsError(
                f"{checkpoint.place}: tensor {planned.source} has numbers too large for float16",
                hint=hint,
            )
        yield converted
