"""A PEFT LoRA folder as the ``adapter/`` part of a model folder, checked against the language model beside it.

r: rank of an adapter. A is [r, in], B is [out, r]; the layer that they change is [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.weights.convert_huggingface import as_json
from gpt4video_cli.weights.convert_plan import Plan, Wanted, WeightsFile, plan_tensors
from gpt4video_cli.weights.convert_source import Checkpoint, folder_of

CONFIG = "adapter_config.json"
STEM = "adapter_model"
Shapes = Mapping[str, tuple[int, ...]]

_TENSOR = re.compile(
    r"base_model\.model\.(?P<layer>.+?)\."
    r"(?P<kind>lora_[AB]\.weight|lora_B\.bias|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|weight|bias)"
)
_OTHER_BASE = "the adapter was trained for another language model"


def plan_peft(checkpoint: Checkpoint, *, base: Shapes | None = None, dtype: torch.dtype | None = None) -> Plan:
    """``adapter/`` of a PEFT folder. ``base``: tensors of the language model that it must fit, if there is one."""
    file = folder_of(checkpoint.place) / CONFIG
    config = read_json(file)
    check_adapter(checkpoint, config, base)
    wanted = [Wanted(name, entry.shape, name) for name, entry in checkpoint.entries.items()]
    tensors = plan_tensors(checkpoint, {STEM: wanted}, dtype=dtype)[STEM]
    moved = {**config, "base_model_name_or_path": "../language"}  # peft notes where the base lay in training
    notes = () if base else ("no language model is in the folder yet: whether the adapter fits it is seen later",)
    return Plan([WeightsFile(STEM, tensors, sharded=False)], {CONFIG: as_json(moved)}, notes=notes)


def check_adapter(checkpoint: Checkpoint, config: Mapping[str, Any], base: Shapes | None) -> None:
    """Raise ``WeightsError`` unless tensors and configuration belong together and, given one, to ``base``."""
    place = checkpoint.place
    if str(config.get("peft_type")).upper() != "LORA":
        raise WeightsError(f"{place}: adapter type is {config.get('peft_type')!r}, only LoRA is supported")
    if not checkpoint.entries:
        raise WeightsError(f"{place}: the adapter has no tensors")
    shapes = {name: entry.shape for name, entry in checkpoint.entries.items()}
    adapted: set[str] = set()
    for name in shapes:
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise WeightsError(f"{place}: tensor {name} is unexpected", hint="an adapter has PEFT's LoRA tensors")
        if base is not None:
            _check_layer(place, found["layer"], found["kind"], shapes[name], base)
        if found["kind"] in ("lora_A.weight", "lora_B.weight"):
            adapted.add(found["layer"])
    for layer in sorted(adapted):
        _check_rank(place, layer, shapes, config)
    for layer in sorted(_targets(config, base or {})):
        if layer not in adapted and f"base_model.model.{layer}.lora_embedding_A" not in shapes:
            raise WeightsError(f"{place}: tensor base_model.model.{layer}.lora_A.weight is missing", hint=_OTHER_BASE)


def _check_layer(place: Path, layer: str, kind: str, shape: tuple[int, ...], base: Shapes) -> None:
    weight = base.get(f"{layer}.weight")
    if weight is None:
        raise WeightsError(f"{place}: the language model has no layer {layer}", hint=_OTHER_BASE)
    side, axis = {"lora_A.weight": ("input", 1), "lora_B.weight": ("output", 0)}.get(kind, ("", 0))
    if side and (len(shape) != 2 or shape[axis] != weight[axis]):
        raise WeightsError(
            f"{place}: the adapter's {layer} is for {side} width {shape[axis] if len(shape) == 2 else list(shape)}, "
            f"the language model's has {weight[axis]}",
            hint=_OTHER_BASE,
        )
    if kind == "weight" and shape != weight:
        raise WeightsError(
            f"{place}: the adapter's {layer} has shape {list(shape)}, the language model's {list(weight)}",
            hint=_OTHER_BASE,
        )


def _check_rank(place: Path, layer: str, shapes: Shapes, config: Mapping[str, Any]) -> None:
    a, b = (f"base_model.model.{layer}.lora_{side}.weight" for side in "AB")
    for name in (a, b):
        if name not in shapes:
            raise WeightsError(f"{place}: tensor {name} is missing", hint="fetch or save the adapter again")
    rank = shapes[a][0] if config.get("rank_pattern") else config.get("r")  # a pattern gives layers other ranks
    if len(shapes[a]) != 2 or len(shapes[b]) != 2 or shapes[a][0] != rank or shapes[b][1] != rank:
        raise WeightsError(
            f"{place}: {layer} has A {list(shapes[a])} and B {list(shapes[b])}, {CONFIG} says rank {config.get('r')}",
            hint="configuration and weights must belong together",
        )


def _targets(config: Mapping[str, Any], base: Shapes) -> set[str]:
    """The layers of ``base`` that the configuration names; none where it names them in a way that only peft knows."""
    names = config.get("target_modules")
    if not isinstance(names, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
        return set()
    layers = {name.removesuffix(".weight") for name in base}
    return {layer for layer in layers for name in names if layer == name or layer.endswith(f".{name}")}
