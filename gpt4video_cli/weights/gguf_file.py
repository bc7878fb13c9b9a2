"""GGUF files written tensor by tensor, in the layout that llama.cpp wants of LLaMA's weights.

The `gguf` package writes what stands before the numbers; its own way of writing tensors wants each of them whole and
converted in memory, so the numbers are written here, in pieces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.gallery.new_file import put_in_place, taken
from gpt4video_cli.weights.convert_plan import Change, Planned, same
from gpt4video_cli.weights.convert_shards import pieces
from gpt4video_cli.weights.convert_source import Checkpoint

if TYPE_CHECKING:
    from gguf import GGUFWriter

WRITTEN = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
"""Kinds that need no quantisation: what a matrix is stored as. Vectors are always float32."""

_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_IN_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def refuse_file(output: Path, *, force: bool) -> None:
    """Raise ``UsageError`` where ``output`` is there and may not be replaced, or is a folder."""
    if output.is_dir():
        raise UsageError(f"{output}: is a folder, not a file")
    if not force and os.path.lexists(output):
        raise taken(output)


def put_whole(temporary: Path, output: Path, *, force: bool) -> None:
    """Flush the finished file ``temporary`` and give it its name. Raises as ``put_in_place`` does."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    put_in_place(temporary, output, force=force)


def gguf_name(module: str) -> str:
    """``blk.0.attn_q`` for ``model.layers.0.self_attn.q_proj``; a module that LLaMA does not have is a
    ``WeightsError``."""
    found = _LAYER.fullmatch(module)
    name = f"blk.{found[1]}.{_IN_LAYER[found[2]]}" if found and found[2] in _IN_LAYER else _OUTSIDE.get(module)
    if name is None:
        raise WeightsError(f"LLaMA has no layer {module}")
    return name


def row_order(module: str, config: Mapping[str, Any]) -> Change:
    """The order of a module's output rows in GGUF: another one for queries and keys.

    Rotary embeddings turn pairs of numbers. In Hugging Face's files a pair lies half a head apart, in llama.cpp side by
    side; ``permute`` of llama.cpp's convert_hf_to_gguf.py (MIT) is the same reshaping.
    """
    heads = int(config["num_attention_heads"])
    if module.endswith(".k_proj"):
        return partial(_pairs_together, heads=int(config.get("num_key_value_heads") or heads))
    return partial(_pairs_together, heads=heads) if module.endswith(".q_proj") else same


def _pairs_together(rows: Tensor, heads: int) -> Tensor:
    """[heads * 2 * h, n] -> the same rows, within each head 0, h, 1, h + 1, ..."""
    halves = rows.view(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.transpose(1, 2).reshape(rows.shape)


def write_gguf(
    path: Path,
    writer: GGUFWriter,
    tensors: Sequence[Planned],
    checkpoint: Checkpoint,
    *,
    computed: Mapping[str, Tensor] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write ``writer``'s metadata, the ``computed`` tensors (float32) and ``tensors`` from ``checkpoint`` to ``path``.

    A tensor costs the memory of its numbers once where they change their order, else that of a piece of it.
    ``progress`` hears how many bytes have just been written. Raises ``OSError``, and ``WeightsError`` for a number that
    does not fit.
    """
    import numpy as np
    from gguf import GGMLQuantizationType

    types = {dtype: GGMLQuantizationType[kind.upper()] for kind, dtype in WRITTEN.items()}
    extra = computed or {}
    for name, tensor in extra.items():
        writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), tensor.nbytes)
    for planned in tensors:
        # With raw_dtype the third argument only says that the shape counts numbers and not bytes.
        dtype = types[planned.dtype]
        writer.add_tensor_info(planned.name, planned.shape, np.dtype(np.float32), planned.size, raw_dtype=dtype)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    with open(path, "ab") as file:

        def align() -> None:
            file.write(bytes(-file.tell() % writer.data_alignment))

        align()
        for tensor in extra.values():
            file.write(tensor.to(torch.float32).contiguous().view(torch.uint8).numpy().data)
            align()
        for planned in tensors:
            for piece in pieces(planned, checkpoint, "write bf16 or f32 instead"):
                content = piece.view(torch.uint8).numpy()
                file.write(content.data)
                progress(content.nbytes)
            align()
