"""Where the GGUF files of a model lie: beside its safetensors, or in our own folder where those are not ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from gpt4video_cli.weights.locate import home


def exported_place(folder: Path, kind: str, *, merged: bool = False) -> Path:
    """Where the language model of the model folder ``folder`` is exported to, if nobody says where.

    ``merged-KIND.gguf`` is one that holds the folder's adapter already, so that it is never added twice.
    """
    place = cached_folder(folder) if _not_ours(folder) else folder / "language"
    return place / f"{'merged' if merged else 'model'}-{kind.lower()}.gguf"


def adapter_place(folder: Path, kind: str) -> Path:
    """Where the adapter of the model folder ``folder`` is exported to."""
    place = cached_folder(folder) if _not_ours(folder) else folder / "adapter"
    return place / f"adapter-{kind.lower()}.gguf"


def cached_folder(folder: Path) -> Path:
    """The folder in ``home()`` for what is made of a model folder that is not ours to write into.

    Its name changes with the files in ``folder/language`` and ``folder/adapter``: what was made of others is not found.
    """
    files = [path for part in ("language", "adapter") for path in sorted((folder / part).glob("*.safetensors"))]
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    mark = hashlib.sha256(repr((str(folder.resolve()), state)).encode()).hexdigest()[:12]
    return home() / "gguf" / f"{folder.resolve().name}-{mark}"


def _not_ours(folder: Path) -> bool:
    """Inside the installed package or the hub's cache (models--OWNER--NAME/snapshots/COMMIT), or not writable."""
    package = Path(__file__).resolve().parents[1]
    places = {(folder / part).resolve() for part in ("", "language", "adapter") if (folder / part).exists()}
    return any(
        place.is_relative_to(package)
        or any(part.startswith("models--") for part in place.parts)
        or not os.access(place, os.W_OK)
        for place in places
    )
