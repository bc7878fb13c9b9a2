"""A PEFT LoRA folder for llama.cpp: as a GGUF adapter, which it adds at run time, or added to the weights it is for.

r: rank. A is [r, in], B is [out, r]; the layer that they change is [out, in] and becomes W + s B A (LoRA, arXiv
2106.09685). llama.cpp takes s = alpha / r with one alpha for the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.gallery.new_file import temporary_for
from gpt4video_cli.language.adapter import LORA_TENSOR
from gpt4video_cli.language.gguf_header import read_gguf_header
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.weights.convert_huggingface import shapes_of
from gpt4video_cli.weights.convert_peft import CONFIG, STEM, check_adapter
from gpt4video_cli.weights.convert_plan import Change, Planned, same
from gpt4video_cli.weights.convert_source import Checkpoint, open_checkpoint
from gpt4video_cli.weights.convert_staging import refuse_full_disk
from gpt4video_cli.weights.gguf_file import WRITTEN, gguf_name, put_whole, refuse_file, row_order, write_gguf
from gpt4video_cli.weights.gguf_metadata import SOURCE, add_base, add_source, source_lines

ADAPTER_KINDS = ("f16", "f32")


def export_adapter_gguf(
    adapter_folder: Path, language_folder: Path, output: Path, kind: str = "f16", *, force: bool = False
) -> Path:
    """Write the PEFT adapter in ``adapter_folder`` to the GGUF file ``output``, whole, and return it.

    ``language_folder`` holds the LLaMA that it is for, and ``kind`` is ``f16`` or ``f32``. Scales that differ between
    layers become part of B. Raises ``UsageError`` (kind, taken output), ``WeightsError`` (no plain LoRA, another base),
    ``Gpt4VideoError`` (disk).
    """
    from gguf import GGUFWriter

    if kind not in ADAPTER_KINDS:
        raise UsageError(f"an adapter is written as {' or '.join(ADAPTER_KINDS)}, not as {kind!r}")
    adapter_folder, language_folder, output = Path(adapter_folder), Path(language_folder), Path(output)
    refuse_file(output, force=force)
    checkpoint, lora = open_adapter(adapter_folder, language_folder)
    config = read_json(language_folder / "config.json")
    alpha = float(lora.get("lora_alpha", 8)) or 1.0
    tensors = []
    for name, entry in sorted(checkpoint.entries.items()):
        module, side = _parts(name)
        change: Change = same
        if side == "B":
            rank = entry.shape[1]
            change = _times(_scale(module, rank, lora) / (alpha / rank), row_order(module, config))
        target = f"{gguf_name(module)}.weight.lora_{side.lower()}"
        tensors.append(Planned(target, entry.shape, WRITTEN[kind], name, change))
    refuse_full_disk(output, sum(tensor.size for tensor in tensors))
    with temporary_for(output) as temporary:
        output.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(None, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        add_base(writer, config)
        add_source(writer, _files(adapter_folder))
        write_gguf(temporary, writer, tensors, checkpoint)
        put_whole(temporary, output, force=force)
    return output


def is_current(path: Path, adapter_folder: Path) -> bool:
    """Whether ``path`` is a GGUF file that was made of the adapter in ``adapter_folder`` as it is now."""
    try:
        said = read_gguf_header(path).values.get(SOURCE)
    except WeightsError:
        return False
    return bool(said == source_lines(_files(adapter_folder)))


def merge_into(tensors: list[Planned], adapter_folder: Path, language_folder: Path) -> list[Planned]:
    """``tensors`` of the LLaMA in ``language_folder``, under their own names, with the adapter added in float32.

    Raises ``WeightsError`` as ``export_adapter_gguf`` does.
    """
    checkpoint, lora = open_adapter(adapter_folder, language_folder)
    changed = {_parts(name)[0] for name in checkpoint.entries}
    return [
        replace(planned, change=_plus(module, checkpoint, lora)) if module in changed else planned
        for planned in tensors
        for module in [planned.name.removesuffix(".weight")]
    ]


def open_adapter(folder: Path, language_folder: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """The tensors and the configuration of a plain LoRA adapter that fits the LLaMA in ``language_folder``.

    Raises ``WeightsError`` where it does not, or has more than A and B of linear layers.
    """
    if not all(path.is_file() for path in _files(folder)):
        raise WeightsError(f"{folder}: no {CONFIG} or no {STEM}.safetensors", hint="an adapter is a PEFT folder")
    lora = read_json(folder / CONFIG)
    checkpoint = open_checkpoint(folder, stems=(STEM,))
    file = language_folder / "config.json"
    check_adapter(checkpoint, lora, shapes_of(read_json(file), file))
    other = next((f"tensor {name}" for name in checkpoint.entries if LORA_TENSOR.fullmatch(name) is None), None)
    if lora.get("use_dora"):  # its magnitudes are such tensors too
        other = "DoRA"
    if other is not None:
        raise WeightsError(
            f"{folder}: {other} has no counterpart in llama.cpp",
            hint="gpt4video models merge makes a model without adapter, which can be exported",
        )
    return checkpoint, lora


def _files(folder: Path) -> list[Path]:
    return [folder / CONFIG, folder / f"{STEM}.safetensors"]


def _parts(name: str) -> tuple[str, str]:
    """The layer of a tensor's name, and A or B."""
    found = LORA_TENSOR.fullmatch(name)
    assert found is not None  # open_adapter has refused all others
    return found["module"], found["side"]


def _scale(module: str, rank: int, lora: Mapping[str, Any]) -> float:
    """s of a layer, as peft computes it."""
    alpha = float(lora.get("lora_alpha", 8))
    for pattern, own in (lora.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if lora.get("use_rslora") else rank)


def _times(factor: float, change: Change) -> Change:
    if factor == 1:
        return change
    return lambda tensor: change(tensor).to(torch.float32) * factor


def _plus(module: str, checkpoint: Checkpoint, lora: Mapping[str, Any]) -> Change:
    def plus(weight: Tensor) -> Tensor:
        a, b = (checkpoint.read(f"base_model.model.{module}.lora_{side}.weight") for side in "AB")
        total = (b.to(torch.float32) @ a.to(torch.float32)).mul_(_scale(module, a.shape[0], lora))
        return total.add_(weight)

    return plus
