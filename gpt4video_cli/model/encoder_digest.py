"""What a clip's embeddings depend on beside the clip: one name for the weights, settings and numbers that made them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gpt4video_cli import __version__
from gpt4video_cli.model.tensor_headers import INDEX, shards
from gpt4video_cli.video.preprocess import CONFIG_NAME
from gpt4video_cli.weights.content_hashes import remembered_sha256


def encoder_digest(folder: Path, *, final_norm: bool, device: str, dtype: str, vision_dtype: str) -> str:
    """SHA-256 over the content of a model folder's visual encoder, preprocessing and abstractor, as hex.

    ``device`` is its kind (``cpu``, ``cuda``, ``mps``): kinds round differently, and a kept answer must equal a fresh
    one bit for bit. ``vision_dtype`` is the visual encoder's, ``dtype`` the abstractor's. The program's version stands
    for the code on the way from a file to embeddings. Raises ``OSError`` where a file cannot be read, ``WeightsError``
    where an index of shards is damaged.
    """
    vision = folder / "vision"
    index = vision / INDEX.format(stem="model")
    whole = vision / "model.safetensors"
    weights = [whole] if whole.is_file() or not index.is_file() else [vision / name for name in shards(index)]
    files = [vision / "config.json", vision / CONFIG_NAME, *weights, folder / "abstractor.safetensors"]
    content = {
        "program": __version__,
        "final_norm": final_norm,
        "device": device,
        "dtype": dtype,
        "vision_dtype": vision_dtype,
        "files": [[path.name, remembered_sha256(path)] for path in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
