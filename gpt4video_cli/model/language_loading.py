"""The language engine of a model folder, loaded as it was chosen, and its adapters by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.language.adapters import Adapter, AdapterWish
from gpt4video_cli.language.choose_engine import EngineChoice
from gpt4video_cli.weights.find_adapter import OWN, adapter_gguf, find_adapter, peft_folder

if TYPE_CHECKING:
    import torch

    from gpt4video_cli.language.engine import Engine
    from gpt4video_cli.model.placement import LoadWish, Placement


def load_language(
    folder: Path,
    choice: EngineChoice,
    wish: LoadWish,
    *,
    device: str,
    dtype: torch.dtype | str,
    placement: Placement | None,
) -> Engine:
    """The language model in the model folder ``folder``, with the adapters of ``wish`` or else its own.

    ``device``, ``dtype`` and ``placement`` are for PyTorch.
    """
    adapters = wish.engine.adapters
    engine = _load_llama(folder, choice, wish) if choice.file else _load_torch(folder, wish, device, dtype, placement)
    if adapters is not None:
        use_adapters(engine, folder, adapters)
    elif choice.file is not None and not choice.file.merged and (folder / OWN).is_dir():
        use_adapters(engine, folder, [AdapterWish(OWN)])
    return engine


def use_adapters(engine: Engine, folder: Path, wishes: Sequence[AdapterWish]) -> None:
    """Have exactly these adapters of the model in ``folder`` in force. See ``Engine.use_adapters`` and
    ``weights.find_adapter`` for what is raised."""
    found = []
    for wish in wishes:
        path = find_adapter(wish.name, folder)
        if engine.name == "llama":
            kind = "f32" if getattr(engine, "kind", "") == "f32" else "f16"
            path = adapter_gguf(path, folder, kind)
        else:
            path = peft_folder(path)
        found.append(Adapter(wish.name, path, wish.scale))
    engine.use_adapters(found)


def _load_llama(folder: Path, choice: EngineChoice, wish: LoadWish) -> Engine:
    from gpt4video_cli.language.llama_engine import LlamaEngine

    assert choice.file is not None
    return LlamaEngine.load(
        choice.file.path, folder / "language", options=choice.options, context_length=wish.context_length
    )


def _load_torch(
    folder: Path, wish: LoadWish, device: str, dtype: torch.dtype | str, placement: Placement | None
) -> Engine:
    from gpt4video_cli.language.torch_engine import TorchEngine

    own = folder / OWN
    return TorchEngine.load(
        folder / "language",
        adapter=own if own.is_dir() and wish.engine.adapters is None else None,
        device=device,
        dtype=dtype,
        context_length=None if placement is None else placement.sizes.context,
        weights=None if placement is None else placement.sizes.precision.weights,
        device_map=None if placement is None else placement.device_map,
    )
