"""PyTorch or llama.cpp for a model folder, and with which file: decided before anything is loaded, and said.

Without a GPU a quantised file in llama.cpp is faster and smaller, and starts without importing transformers; on a GPU
PyTorch is the surer choice, as llama-cpp-python is mostly installed without GPU support.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.gguf_header import GgufHeader, changed_sources, read_gguf_header
from gpt4video_cli.language.llama_library import is_installed
from gpt4video_cli.language.llama_options import DEFAULTS, LlamaOptions
from gpt4video_cli.weights.gguf_place import cached_folder

if TYPE_CHECKING:
    from gpt4video_cli.model.placement import LoadWish

_LARGEST_HASHED = 64_000_000
"""Bytes of a source file that is compared with its GGUF file by content: 0.05 s."""


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file of a model. ``merged``: the model's adapter is part of its weights."""

    path: Path
    kind: str
    size: int
    merged: bool
    header: GgufHeader


@dataclass(frozen=True)
class EngineChoice:
    """``name``: torch or llama, with its ``file`` and ``options`` then. ``reason``: why, in a few words."""

    name: str
    reason: str
    file: GgufFile | None = None
    options: LlamaOptions = DEFAULTS

    def __str__(self) -> str:
        """``llama.cpp q8_0`` or ``PyTorch``."""
        return "PyTorch" if self.file is None else f"llama.cpp {self.file.kind}"

    def line(self) -> str:
        """With the reason: ``PyTorch (no GGUF file)``."""
        return f"{self} ({self.reason})"

    def as_dict(self) -> dict[str, str | None]:
        """Ready for JSON."""
        file = self.file
        return {
            "name": self.name,
            "kind": None if file is None else file.kind,
            "file": None if file is None else str(file.path),
            "reason": self.reason,
        }


def find_gguf_files(folder: Path) -> list[GgufFile]:
    """The GGUF files of the language model in the model folder ``folder``, the most exact (the largest) first.

    Raises ``WeightsError`` for one that is damaged.
    """
    places = [folder / "language", *([cached_folder(folder)] if (folder / "language").is_dir() else [])]
    found: dict[tuple[str, bool], GgufFile] = {}
    for place in places:
        for name, merged in (("model", False), ("merged", True)):
            for path in sorted(place.glob(f"{name}-*.gguf")):
                kind, size = path.stem.partition("-")[2].lower(), path.stat().st_size
                found.setdefault((kind, merged), GgufFile(path, kind, size, merged, read_gguf_header(path)))
    return sorted(found.values(), key=lambda file: (-file.size, file.merged, file.kind))


def choose_engine(folder: Path, name: str, wish: LoadWish) -> EngineChoice:
    """The engine for the model ``name`` in ``folder``. Raises ``WeightsError`` and ``UsageError`` for what cannot be.

    ``auto``: llama.cpp where there is no GPU and a GGUF file lies there, PyTorch otherwise. Of several files the most
    exact that fits into the memory that is free.
    """
    asked = wish.engine
    if asked.name == "torch":
        return EngineChoice("torch", "asked for")
    files = _usable(folder, wish)
    against = None if asked.name == "llama" else _against_llama(folder, wish, files)
    if against is not None:
        if options := asked.llama.changed():
            raise UsageError(f"{options[0]} is an option of the llama.cpp engine, but PyTorch was chosen: {against}")
        return EngineChoice("torch", against)
    if not is_installed():
        raise UsageError(
            "the llama.cpp engine needs llama-cpp-python, which is not installed",
            hint="pip install llama-cpp-python, or use --engine torch",
        )
    file = _choose_file(folder, name, wish, files)
    reason = "asked for" if asked.name == "llama" else "no GPU, and a GGUF file is there"
    layers = 0 if wish.device == "cpu" else asked.llama.gpu_layers
    return EngineChoice("llama", reason, file, replace(asked.llama, gpu_layers=layers))


def _against_llama(folder: Path, wish: LoadWish, files: list[GgufFile]) -> str | None:
    """Why ``auto`` means PyTorch; None where it means llama.cpp."""
    from gpt4video_cli.model.free_memory import find_devices

    if not files:
        return "no GGUF file"
    if wish.dtype != "auto":
        return f"--dtype {wish.dtype}"
    if wish.offload:
        return "--offload"
    if not is_installed():
        return "llama-cpp-python is not installed"
    if find_devices(wish.device)[0].kind != "cpu":
        return "there is a GPU"
    if not any(is_current(file, folder) for file in files):
        return "the GGUF file was made of other weights"
    return None


def _usable(folder: Path, wish: LoadWish) -> list[GgufFile]:
    """The GGUF files that can have the adapters that are wished for."""
    own = wish.engine.adapters is None and (folder / "adapter").is_dir()
    return [file for file in find_gguf_files(folder) if own or not file.merged]


def _choose_file(folder: Path, name: str, wish: LoadWish, files: list[GgufFile]) -> GgufFile:
    from gpt4video_cli.model.llama_placement import fits, place_llama
    from gpt4video_cli.model.placement import gigabytes

    kind = wish.engine.kind
    command = f"gpt4video models export {name} --gguf {kind or 'q8_0'}"
    if not files:
        raise WeightsError(f"model {name} has no GGUF file for the llama.cpp engine", hint=f"make one: {command}")
    wanted = [file for file in files if kind in (None, file.kind)]
    if not wanted:
        kinds = ", ".join(dict.fromkeys(file.kind for file in files))
        raise WeightsError(f"model {name} has no GGUF file of kind {kind}, but {kinds}", hint=f"make one: {command}")
    current = [file for file in wanted if is_current(file, folder)]
    if not current:
        raise WeightsError(
            f"{wanted[0].path}: was made of other weights than those that are there now", hint=f"{command} --force"
        )
    if wish.engine.llama.gpu_layers > 0:
        return current[0]
    for file in current:
        placement = place_llama(name, folder, file, wish)
        if fits(placement):
            return file
    needed = sum(row.bytes for row in placement.rows)
    free = ", ".join(f"{device.name} has {gigabytes(device.free)} GB free" for device in placement.devices)
    raise WeightsError(
        f"model {name} does not fit: it needs {gigabytes(needed)} GB with {current[-1].path.name} and the keys and "
        f"values of {placement.sizes.context} positions; {free}",
        hint="--context-length makes it smaller, and so does a GGUF file of fewer bits: gpt4video models export",
    )


def is_current(file: GgufFile, folder: Path) -> bool:
    """Whether a GGUF file was made of the weights that are in the model folder ``folder`` now.

    By the hashes that it holds of its sources; large ones (above 64 MB) and those that are gone are not looked at.
    """
    sources = folder / "language", folder / "adapter"
    return not changed_sources(file.header, *(sources if file.merged else sources[:1]), largest=_LARGEST_HASHED)
