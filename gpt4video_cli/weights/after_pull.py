"""What is done with pulled files that cannot be used as they are: pickles and other layouts become a model folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gpt4video_cli.weights.card import FILE_NAME, Card
from gpt4video_cli.weights.convert_staging import staged
from gpt4video_cli.weights.find_generator import PIPELINE
from gpt4video_cli.weights.find_guard import WHOLE
from gpt4video_cli.weights.hub import HubFile
from gpt4video_cli.weights.sources import PICKLES, SHARDS, AnyCard, Source

Part = tuple[Source, Path, Sequence[HubFile]]
"""A source, its snapshot in the hub's cache, and the files of it that were pulled."""


def needs_folder(source: Source, files: Sequence[HubFile]) -> bool:
    """Whether the files of ``source`` are used from a folder of our own instead of the hub's cache."""
    return source.format is not None or any(file.path.endswith(PICKLES) for file in files)


def make_folder(card: AnyCard, card_file: Path, parts: Sequence[Part], folder: Path) -> None:
    """Make the model folder ``folder`` of pulled files; it appears when it is whole, an old one gives way to it.

    Raises ``WeightsError`` for files that cannot be converted, ``Gpt4VideoError`` where the folder cannot be written.
    """
    with staged(folder, replace=True) as making:
        if isinstance(card, Card):
            for source, snapshot, _ in parts:
                _import(source, snapshot, making)
            if not (making / "abstractor.safetensors").exists():
                _new_abstractor(making)
        else:
            for source, snapshot, files in parts:
                _pipeline_part(making if source.part in (PIPELINE, WHOLE) else making / source.part, snapshot, files)
        shutil.copyfile(card_file, making / FILE_NAME)


def _import(source: Source, snapshot: Path, folder: Path) -> None:
    from gpt4video_cli.weights.convert import PARTS, import_weights

    assert source.format is not None  # every part of an assistant's card has one
    if PARTS.get(source.format) != "":
        import_weights(snapshot, source.format, folder)
        return
    # A whole model takes the place of the folder that it is made in, and the staged one's lock would go with it.
    made = import_weights(snapshot, source.format, folder / "made")
    for path in made.iterdir():
        path.rename(folder / path.name)
    made.rmdir()


def _new_abstractor(folder: Path) -> None:
    """An abstractor that nobody trained yet, of the widths that the folder's parts have: what stage 1 begins with."""
    import torch

    from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, save_abstractor
    from gpt4video_cli.model.strict_load import read_json

    vision, language = (read_json(folder / part / "config.json") for part in ("vision", "language"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AbstractorConfig.trained_here(width=vision["hidden_size"], output_width=language["hidden_size"])
        save_abstractor(Abstractor(config), folder / "abstractor.safetensors")


def _pipeline_part(folder: Path, snapshot: Path, files: Sequence[HubFile]) -> None:
    """A diffusers folder with safetensors in the place of pickles; other files are linked, or copied."""
    from gpt4video_cli.weights.convert import pickle_to_safetensors

    for file in files:
        here, there = snapshot / file.path, folder / file.path
        there.parent.mkdir(parents=True, exist_ok=True)
        name = PurePosixPath(file.path).name
        if name.endswith(PICKLES):
            pickle_to_safetensors(here, there.with_name(_new_name(name)))
        elif (found := SHARDS.fullmatch(name)) and found["weights"].endswith(PICKLES):
            index = json.loads(here.read_text(encoding="utf-8"))
            index["weight_map"] = {key: _new_name(value) for key, value in index["weight_map"].items()}
            new = _new_name(found["weights"]) + name.removeprefix(found["weights"])
            there.with_name(new).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        else:
            _link(here.resolve(), there)


def _link(here: Path, there: Path) -> None:
    """A second name of the same file where the disk allows it: weights are never changed in place."""
    try:
        os.link(here, there)
    except OSError:
        shutil.copyfile(here, there)


def _new_name(name: str) -> str:
    """``model.safetensors`` for ``pytorch_model.bin``, and so on, as diffusers and transformers look for them."""
    stem = re.sub(r"^pytorch_model", "model", name)
    return re.sub(r"\.(bin|pt|pth|ckpt)$", ".safetensors", stem)
