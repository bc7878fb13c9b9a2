"""What a model takes whose language model runs in llama.cpp: the counterpart of ``placement.plan_model``.

Weights, keys and values lie in the main memory; those of layers on a GPU are llama.cpp's own affair and are not
planned.

Letters: C positions evaluated at once, L positions of the context, D and F widths of the language model and its MLP, H
heads, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError
from gpt4video_cli.model.free_memory import find_devices, main_memory
from gpt4video_cli.model.model_sizes import POSITIONS_AT_ONCE, ModelSizes, Part, Precision, vision_part
from gpt4video_cli.model.placement import LoadWish, Placement, Row
from gpt4video_cli.model.tensor_headers import StoredTensor, name_in_encoder, read_header, read_headers

if TYPE_CHECKING:
    from gpt4video_cli.language.choose_engine import GgufFile


def place_llama(name: str, folder: Path, file: GgufFile, wish: LoadWish) -> Placement:
    """The plan for the model ``name`` in ``folder`` with this GGUF file; ``fits`` says whether there is room."""
    header, options = file.header, wish.engine.llama
    length = wish.context_length or header.context_length
    if not 1 < length <= header.context_length:
        raise UsageError(f"context length must be between 2 and the model's {header.context_length}, got {length}")
    eyes = max(find_devices(wish.device), key=lambda device: device.usable)
    host = main_memory()
    wish.check_device(eyes.kind)
    asked = wish.precision(eyes.kind)
    compute = asked.compute
    number = 4 if compute == "float32" else 2
    vision = [t for t in read_headers(folder / "vision") if name_in_encoder(t.name) is not None]
    parts = (
        vision_part(vision, asked),
        _part("abstractor", read_header(folder / "abstractor.safetensors"), compute, number),
        Part("language", header.parameters, file.kind, file.size),
    )
    cells, cache = options.cache(header, file.kind, length)
    working = _working_bytes(file, length, flash=options.flash(file.kind) != "off")
    rows = (
        *(Row(part.name, part.parameters, part.dtype, eyes.name, part.bytes) for part in parts[:2]),
        Row("language, llama.cpp", header.parameters, file.kind, host.name, file.size),
        Row(f"keys and values, {cells} positions", 0, options.cache_type(file.kind), host.name, cache),
        Row("working memory", 0, "float32", host.name, working),
    )
    sizes = ModelSizes(name, Precision(compute, file.kind), parts, (), length, working, False, False)
    devices = (host,) if eyes.name == host.name else (eyes, host)
    return Placement(sizes, eyes.name, rows, devices, {})


def fits(placement: Placement) -> bool:
    """Whether every device has room for what is planned on it."""
    return all(placement.used(device.name) <= device.usable for device in placement.devices)


def _part(name: str, tensors: list[StoredTensor], dtype: str, number: int) -> Part:
    numbers = sum(tensor.numbers for tensor in tensors)
    return Part(name, numbers, dtype, numbers * number)


def _working_bytes(file: GgufFile, length: int, *, flash: bool) -> int:
    """4 C (8 D + 3 F + V) for a batch and its logits, and the scores H C L twice where flash attention does not make
    them piece by piece."""
    header = file.header
    at_once = min(length, POSITIONS_AT_ONCE)
    scores = 0 if flash else 2 * header.heads * at_once * length
    return 4 * (at_once * (8 * header.width + 3 * header.mlp_width + header.vocabulary) + scores)
