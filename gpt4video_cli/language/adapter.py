"""A PEFT LoRA folder put onto a loaded LLaMA, with proof that it does something.

peft only warns, or says nothing, where an adapter's tensors find no place in the model. Here each tensor of the file
must land in the model, and the sum of what they add must not be zero. r: rank of an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.adapters import Adapter
from gpt4video_cli.language.llama_folder import PICKLES, first_line, quiet
from gpt4video_cli.language.tokenizer import read_json

if TYPE_CHECKING:
    import torch
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")


def attach_adapter(model: LlamaForCausalLM, folder: str | Path, *, merge: bool) -> LlamaForCausalLM:
    """``model`` with the adapter in ``folder`` inside its layers; ``merge`` adds it to the weights (faster, final)."""
    wrapped = _attach(model, Path(folder), "adapter")
    with quiet():
        base: LlamaForCausalLM = wrapped.merge_and_unload() if merge else wrapped.get_base_model()
    return base.eval()


class PeftAdapters:
    """Adapters beside the weights of ``model``: each is read once, then in force, scaled or off."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self._model = model
        self._wrapped: Any = None
        self._names: dict[Path, str] = {}
        self._count = 0

    def put_in_force(self, adapters: Sequence[Adapter]) -> None:
        """Have exactly ``adapters`` in force, those of scale 0 left out. ``WeightsError`` for one that does not fit."""
        chosen = {adapter.path: adapter.scale for adapter in adapters if adapter.scale != 0}
        for path in chosen:
            if path not in self._names:
                self._count += 1  # one that was refused may have left its name behind
                name = f"adapter{self._count}"
                self._wrapped = _attach(self._model, path, name, self._wrapped)
                self._names[path] = name
        if self._wrapped is None:
            return
        lora = self._wrapped.base_model
        if not chosen:
            lora.disable_adapter_layers()
            return
        lora.enable_adapter_layers()
        lora.set_adapter([self._names[path] for path in chosen])
        for layer in _lora_layers(self._model):
            for path, scale in chosen.items():
                if self._names[path] in layer.scaling:
                    layer.set_scale(self._names[path], scale)
        self._wrapped.requires_grad_(False)


def _attach(model: LlamaForCausalLM, folder: Path, name: str, wrapped: Any = None) -> Any:
    """peft's wrapper around ``model``, with the adapter in ``folder`` inside its layers under ``name``; in evaluation.

    ``wrapped``: where others are inside already.
    """
    tensors = read_adapter(folder)
    # 0.25 s on top of transformers (2 cores, warm); `peft.peft_model` and `import peft` cost the same.
    from peft import PeftModel, get_peft_model_state_dict

    base = model if wrapped is None else wrapped.get_base_model()
    check_fits(folder, tensors, base)
    try:
        with quiet():
            if wrapped is None:
                wrapped = PeftModel.from_pretrained(
                    model, str(folder), adapter_name=name, torch_device=str(model.device)
                )
            else:
                wrapped.load_adapter(str(folder), name, torch_device=str(model.device))
            landed = set(get_peft_model_state_dict(wrapped, adapter_name=name, save_embedding_layers=False))
    except Exception as error:  # peft raises ValueError, RuntimeError, KeyError, TypeError for a bad adapter
        raise WeightsError(f"{folder}: the adapter cannot be loaded: {first_line(error)}") from error
    if homeless := set(tensors) - landed:
        raise WeightsError(f"{folder}: adapter tensor {min(homeless)} found no place in the model")
    if lacking := landed - set(tensors):
        raise WeightsError(f"{folder}: adapter tensor {min(lacking)} is missing")
    if not _changes_something(model, name):
        raise WeightsError(
            f"{folder}: the adapter changes nothing (all of B times A is zero)", hint="it was saved before training"
        )
    wrapped.requires_grad_(False)
    return wrapped.eval()


def read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the adapter's safetensors file; ``WeightsError`` where there is none or it is not LoRA."""
    from gpt4video_cli.model.strict_load import read_safetensors

    config = read_json(folder / "adapter_config.json")
    if not config:
        raise WeightsError(f"{folder}: no adapter_config.json", hint="an adapter is a PEFT folder")
    if str(config.get("peft_type")).upper() != "LORA":
        raise WeightsError(f"{folder}: adapter type is {config.get('peft_type')!r}, only LoRA is supported")
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        pickles = [found.name for pattern in PICKLES for found in sorted(folder.glob(pattern))]
        if pickles:
            raise WeightsError(
                f"{folder}: {pickles[0]} is a pickle, which can run code and is never opened here",
                hint="convert the adapter to safetensors first",
            )
        raise WeightsError(f"{folder}: no adapter_model.safetensors", hint="the folder is incomplete")
    return read_safetensors(path)[0]


def check_fits(folder: Path, tensors: dict[str, torch.Tensor], model: LlamaForCausalLM) -> None:
    """Raise ``WeightsError`` unless each A [r, in] and B [out, r] has its linear layer [out, in] in ``model``."""
    for name, tensor in sorted(tensors.items()):
        match = LORA_TENSOR.match(name)
        if match is None:
            continue
        try:
            widths = _widths(model.get_submodule(match["module"]))
        except AttributeError:
            raise WeightsError(
                f"{folder}: the language model has no layer {match['module']}",
                hint="the adapter was trained for another language model",
            ) from None
        axis, side = (1, "input") if match["side"] == "A" else (0, "output")
        if tensor.shape[axis] != widths[axis]:
            raise WeightsError(
                f"{folder}: the adapter's {match['module']} has {side} width {tensor.shape[axis]}, "
                f"the language model's has {widths[axis]}",
                hint="the adapter was trained for another language model",
            )


def _widths(layer: Any) -> tuple[int, int]:
    """Output and input width of a layer; not from its weight where it is linear, for in 4 bits that is one column."""
    if hasattr(layer, "out_features"):
        return int(layer.out_features), int(layer.in_features)
    return int(layer.weight.shape[0]), int(layer.weight.shape[1])


def _lora_layers(model: torch.nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]


def _changes_something(model: torch.nn.Module, name: str) -> bool:
    """Whether the scaled B [out, r] times A [r, in] of any layer is not zero."""
    for layer in _lora_layers(model):
        if name in layer.lora_A:
            delta = layer.lora_B[name].weight @ layer.lora_A[name].weight
            if layer.scaling[name] != 0 and bool(delta.any()):
                return True
        if name in layer.lora_embedding_A:  # adapters of the embedding table: trained is all that can be asked
            return True
    return False
