"""Where a card's weights come from: repositories of the hub, and which of their files are needed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.find_generator import PIPELINE
from gpt4video_cli.weights.find_guard import WHOLE
from gpt4video_cli.weights.generator_card import GeneratorCard
from gpt4video_cli.weights.guard_card import GuardCard
from gpt4video_cli.weights.hub import HubFile

AnyCard = Card | GeneratorCard | GuardCard

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".gguf")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHARDS = re.compile(r"(?P<weights>.+\.[a-z0-9]+)\.index(?:\.(?P<variant>[a-z0-9_]+))?\.json")
"""The name of the index of a set of shards; diffusers and transformers write a variant behind ``index``."""


@dataclass(frozen=True)
class Source:
    """A part of a model and the repository that it comes from."""

    part: str
    repository: str
    revision: str | None = None
    """A branch, tag or commit; None: main."""
    files: tuple[str, ...] = ()
    """Patterns of the files that are needed; none: what ``needed`` chooses."""
    variant: str | None = None
    """Of the weights, such as ``fp16``, where the repository has several."""
    format: str | None = None
    """What ``models import`` has to turn it into parts of a model folder with; None: it is used as it is."""


def sources(card: AnyCard) -> tuple[Source, ...]:
    """The repositories that ``card`` names; none where its weights are in a folder or a package."""
    if isinstance(card, GuardCard):
        return () if card.repository is None else (Source(WHOLE, card.repository, card.revision, card.files),)
    if isinstance(card, GeneratorCard):
        if card.repository is None:
            return ()
        main = Source(PIPELINE, card.repository, card.revision, card.files, card.variant)
        return (main, *(Source(name, p.repository, p.revision, (), card.variant) for name, p in card.parts.items()))
    return tuple(
        Source(name, part.repository, part.revision, part.files, None, part.format) for name, part in card.parts.items()
    )


def needed(source: Source, files: Iterable[HubFile], components: Iterable[str] | None = None) -> list[HubFile]:
    """The files of a repository that ``source`` needs, in the repository's order.

    Patterns decide where the source has some. Else configurations, tokenizers and one set of weights for each folder:
    safetensors before pickles, the source's variant before none. ``components``: the folders that a diffusers folder's
    ``model_index.json`` names; others are left out. Raises ``WeightsError`` where nothing is left.
    """
    every = list(files)
    if source.files:
        chosen = [file for file in every if any(fnmatch.fnmatchcase(file.path, pattern) for pattern in source.files)]
    else:
        allowed = None if components is None else {"", *components}
        inside = [f for f in every if allowed is None or _folder(f) in allowed]
        weights = {f for folder in {_folder(f) for f in inside} for f in _one_set(inside, folder, source.variant)}
        chosen = [file for file in inside if file in weights or _is_small_text(file)]
    if not any(file.path.endswith(WEIGHTS) for file in chosen):
        raise WeightsError(f"{source.repository}: holds no weights that this program reads")
    return chosen


def _folder(file: HubFile) -> str:
    parent = str(PurePosixPath(file.path).parent)
    return "" if parent == "." else parent


def _is_small_text(file: HubFile) -> bool:
    """Configurations, vocabularies and licences; not pictures, scripts or indices of weights that are not taken."""
    name = PurePosixPath(file.path).name
    if SHARDS.fullmatch(name):
        return False
    return name.endswith((".json", ".txt", ".model", ".spm", ".jinja")) or name.upper().startswith(
        ("LICENSE", "LICENCE")
    )


def _variant(file: HubFile) -> str | None:
    """``fp16`` of ``model.fp16.safetensors``, ``model.fp16-00001-of-00002.safetensors`` and their index, else None."""
    index = SHARDS.fullmatch(_name(file))
    if index and index["variant"]:
        return index["variant"]
    found = re.fullmatch(r"[^.]+\.([a-z0-9_]+?)(-\d+-of-\d+)?\.[a-z]+", _weights_of(file))
    return found.group(1) if found else None


def _name(file: HubFile) -> str:
    return PurePosixPath(file.path).name


def _weights_of(file: HubFile) -> str:
    """``model.safetensors`` of itself and of its index, the name of any other file."""
    index = SHARDS.fullmatch(_name(file))
    return index["weights"] if index else _name(file)


def _one_set(files: list[HubFile], folder: str, variant: str | None) -> list[HubFile]:
    """One set of weights of ``folder``, with its index."""
    here = [f for f in files if _folder(f) == folder]
    for suffix in (".safetensors", ".bin"):
        found = [f for f in here if _weights_of(f).endswith(suffix)]
        if not folder:  # beside a pipeline's folders lie the same weights as one file, for other programs
            found = [
                f for f in found if _name(f).startswith(("model", "pytorch_model", "diffusion_pytorch", "adapter"))
            ]
        for wanted in (variant, None):
            chosen = [f for f in found if _variant(f) == wanted]
            if any(f.path.endswith(suffix) for f in chosen):
                return chosen
    return []
