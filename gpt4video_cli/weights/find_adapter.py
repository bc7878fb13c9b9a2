"""Where LoRA adapters are: DIR/adapter, DIR/adapters/NAME, or any path; and as what each engine reads them.

PyTorch reads PEFT folders. llama.cpp reads GGUF files: one that lies in the folder, else one that is made of it once
and kept in ``home()``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.gguf_header import changed_sources, read_gguf_header
from gpt4video_cli.weights.gguf_place import cached_folder
from gpt4video_cli.weights.locate import home

OWN = "adapter"
"""The adapter that belongs to a model, in force unless others are asked for."""


def known_adapters(folder: Path) -> dict[str, Path]:
    """Name -> folder or GGUF file of the adapters in the model folder ``folder``, its own first."""
    found = {OWN: folder / OWN} if (folder / OWN).is_dir() else {}
    for path in sorted((folder / "adapters").glob("*")):
        if path.is_dir() or path.suffix == ".gguf":
            found.setdefault(path.name.removesuffix(".gguf"), path)
    return found


def find_adapter(name: str, folder: Path) -> Path:
    """The adapter of the model in ``folder`` with this name, or at this path. ``WeightsError`` with the known names."""
    known = known_adapters(folder)
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    names = ", ".join(known) or "none"
    raise WeightsError(f"no adapter {name!r}: neither of this model nor a path", hint=f"its adapters: {names}")


def peft_folder(path: Path) -> Path:
    """What PyTorch reads; ``UsageError`` for a GGUF file."""
    if path.is_file():
        raise UsageError(
            f"adapter {path}: PyTorch reads PEFT folders, this is a file", hint="--engine llama reads GGUF adapters"
        )
    return path


def adapter_gguf(path: Path, folder: Path, kind: str) -> Path:
    """What llama.cpp reads: a GGUF file. Made of a PEFT folder, for the model in ``folder``, where there is none.

    ``kind``, f16 or f32, goes for what is made. Raises ``WeightsError`` for what is no adapter of that model.
    """
    if path.is_file():
        if path.suffix != ".gguf":
            raise WeightsError(f"{path}: an adapter is a PEFT folder or a .gguf file")
        return path
    kept = _kept(path, folder)
    for place, names in ((path, "*.gguf"), (kept, "adapter*.gguf")):
        for file in sorted(place.glob(names), key=lambda file: (kind not in file.stem, file.name)):
            if not changed_sources(read_gguf_header(file), path):
                return file
    if not (path / "adapter_config.json").is_file():
        raise WeightsError(f"{path}: neither a PEFT folder nor one with an adapter's GGUF file")
    from gpt4video_cli.weights.gguf_export import export_adapter_gguf

    return export_adapter_gguf(path, folder / "language", kept / f"adapter-{kind}.gguf", kind, force=True)


def _kept(path: Path, folder: Path) -> Path:
    """The folder for what is made of the adapter at ``path``; for a model's own where `models export` puts it too."""
    if path.resolve() == (folder / OWN).resolve():
        return cached_folder(folder)
    return home() / "gguf" / "adapters" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
