"""What names the content of a model: one hash for its own parts and settings, one for each adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from gpt4video_cli.video.fingerprint import WHOLE_UP_TO, fingerprint
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.content_hashes import remembered_sha256


def weights_sha256(card: Card, folder: Path, gguf: Path | None = None) -> str:
    """SHA-256, as hex, over what answers depend on: vision, abstractor, language model, and the card's template.

    ``gguf``: the file that llama.cpp runs instead of the weights in ``language/``. Measured figures and texts of the
    card do not count. Raises ``OSError`` where a file cannot be read.
    """
    language = [path for path in _files(folder / "language") if path.suffix not in (".gguf", ".safetensors")]
    weights = [gguf] if gguf is not None else sorted((folder / "language").glob("*.safetensors"))
    files = [folder / "abstractor.safetensors", *_files(folder / "vision"), *language, *weights]
    return _digest([f"template {card.template}", f"final norm {card.final_norm}", *_lines(files)])


def adapter_sha256(path: Path) -> str:
    """SHA-256, as hex, over an adapter: the files of a PEFT folder, or a GGUF file. Raises ``OSError``."""
    return _digest(_lines(_files(path) if path.is_dir() else [path]))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _lines(files: Iterable[Path]) -> list[str]:
    return [f"{path.name} {_hash(path)}" for path in files]


def _hash(path: Path) -> str:
    # Of large shards only pieces: hashing 13 GB would keep a person waiting for 9 s after the first answer.
    return fingerprint(path) if path.stat().st_size > WHOLE_UP_TO else remembered_sha256(path)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
