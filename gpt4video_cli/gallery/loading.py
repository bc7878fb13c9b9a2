"""A model's folder -> a diffusers pipeline on a device, ready to film. Strict: no tensor may be missing."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.gallery.folded_convolutions import fold_convolutions
from gpt4video_cli.gallery.guidance import denoisers
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.model.strict_load import choose_device, choose_dtype
from gpt4video_cli.weights.find_generator import GeneratorFolder, left_out, read_index
from gpt4video_cli.weights.generator_card import GeneratorCard

_LIBRARIES = ("diffusers", "transformers")
_DECODING = ("vae", "scheduler")
"""All that is needed to turn latents into frames."""


@dataclass
class LoadedPipeline:
    """A pipeline and where it runs. ``saved_scheduler`` is the one that it was loaded with."""

    pipe: Any
    device: torch.device
    dtype: torch.dtype
    saved_scheduler: Any
    whole: bool


def pipeline_class(name: str) -> Any:
    """The diffusers pipeline ``name``; importing it loads no other pipeline (1.3 s of 5 s on 2 cores)."""
    quieten()
    import diffusers

    found = getattr(diffusers, name, None)
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        raise WeightsError(f"diffusers {diffusers.__version__} has no pipeline {name!r}", hint="is the card right?")
    return found


def load_pipeline(
    card: GeneratorCard, folder: GeneratorFolder, options: LoadOptions, *, only_decoder: bool = False
) -> LoadedPipeline:
    """Load every part (``only_decoder``: the VAE alone) and place it as ``options`` say. Reads local files only."""
    device = choose_device(options.device)
    options.check_device(device.type)
    dtype = choose_dtype(card.dtype if options.dtype == "auto" and device.type != "cpu" else options.dtype, device)
    kind = pipeline_class(card.pipeline)
    takes = set(inspect.signature(kind.__init__).parameters)
    parts: dict[str, Any] = {name: None for name in left_out(folder.path) if name in takes and name not in folder.parts}
    index = {name: place for name, place in read_index(folder.path).items() if name in takes}
    index |= {name: ("diffusers", card.parts[name].class_name) for name in folder.parts}
    for name, (library, class_name) in index.items():
        if only_decoder and name not in _DECODING:
            parts[name] = None
        elif library in _LIBRARIES:
            part_dtype = dtype
            if options.dtype == "auto" and device.type != "cpu" and name in card.dtypes:
                part_dtype = choose_dtype(card.dtypes[name], device)
            place = folder.parts.get(name, folder.path / name)
            part = _load_part(library, class_name, place, part_dtype, card.variant)
            if part is not None:
                parts[name] = part
    try:
        pipe = kind.from_pretrained(folder.path, dtype=dtype, local_files_only=True, use_safetensors=True, **parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder.path}: cannot be loaded as {card.pipeline}: {_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    _place(pipe, device, options)
    return LoadedPipeline(pipe, device, dtype, pipe.scheduler, whole=not only_decoder)


def _load_part(library: str, class_name: str, folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    """A module with all its weights, or None for what has none (tokenizers and schedulers: the pipeline loads them)."""
    import importlib

    kind: Any = getattr(importlib.import_module(library), class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.nn.Module)):
        return None
    names = {path.name for path in folder.glob("*")}
    if not any(name.endswith(".safetensors") for name in names) and any(n.endswith((".bin", ".ckpt")) for n in names):
        raise WeightsError(
            f"{folder}: has pickled weights only, which can run code when they are read",
            hint="gpt4video models pull converts them where it fetches a model",
        )
    variant = variant if variant and any(f".{variant}." in name for name in names) else None
    options = {"variant": variant, "local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        read: Any = kind.from_pretrained  # type: ignore[attr-defined]  # both libraries' modules have it
        module, info = read(folder, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{folder}: cannot be loaded as {class_name}: {_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys"):
        if found := sorted(map(str, info.get(what, ()))):
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise WeightsError(
                f"{folder}: tensor {found[0]} is {what.split('_')[0]}{more}", hint="fetch the model again"
            )
    return module.eval()


def _place(pipe: Any, device: torch.device, options: LoadOptions) -> None:
    vae: Any = getattr(pipe, "vae", None)
    # The mixin has both methods for every VAE; they raise where the class does not implement them.
    if options.vae_slicing and hasattr(vae, "use_slicing"):
        vae.enable_slicing()
    if options.vae_tiling and hasattr(vae, "use_tiling"):
        vae.enable_tiling()
    if options.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)
    if device.type == "cpu" and type(vae).__name__ == "AutoencoderKLWan":
        fold_convolutions(vae)
    if options.compile:
        _compile(pipe)


def _compile(pipe: Any) -> None:
    """Block by block, which takes minutes less than a whole denoiser; each kind of block is compiled once."""
    for denoiser in denoisers(pipe):
        repeated = getattr(denoiser, "_repeated_blocks", None) or ()
        levels = [*getattr(denoiser, "down_blocks", ()), getattr(denoiser, "mid_block", None)]
        levels += [*getattr(denoiser, "up_blocks", ()), *getattr(denoiser, "transformer_blocks", ())]
        blocks = [block for block in denoiser.modules() if type(block).__name__ in repeated]
        for block in blocks or levels:
            if block is not None:
                block.compile()


def quieten() -> None:
    """No progress bars and no warnings of the libraries, unless the person set their verbosity: cli/ alone prints."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
