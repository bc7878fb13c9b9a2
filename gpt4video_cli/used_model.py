"""What answered, as a conversation notes it with each answer: enough to find the model again and to recognise it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.language.adapters import AdapterWish
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.weights.card import FILE_NAME
from gpt4video_cli.weights.find_adapter import OWN, known_adapters
from gpt4video_cli.weights.locate import find_model, known_models
from gpt4video_cli.weights.model_hashes import adapter_sha256

if TYPE_CHECKING:
    from gpt4video_cli.model.checkpoint import Model


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter that was in force: what ``--adapter`` calls it, its scale, the hash of its content."""

    name: str
    scale: float
    sha256: str


@dataclass(frozen=True)
class UsedModel:
    """The folder of the weights and their hash, the engine as ``--engine`` names it, the adapters in force."""

    folder: str
    engine: str
    sha256: str
    adapters: tuple[UsedAdapter, ...] = ()

    def is_same(self, other: UsedModel | None) -> bool:
        """Whether the content is the same, wherever it lies."""
        return other is not None and (self.engine, self.sha256, self._contents()) == (
            other.engine,
            other.sha256,
            other._contents(),
        )

    def _contents(self) -> list[tuple[str, float]]:
        return [(adapter.sha256, adapter.scale) for adapter in self.adapters]

    def engine_wish(self) -> EngineWish:
        """What to ask for to have this engine with these adapters."""
        adapters = tuple(AdapterWish(adapter.name, adapter.scale) for adapter in self.adapters)
        return EngineWish.parse(self.engine, adapters=None if adapters == (AdapterWish(OWN),) else adapters)


def used_model(model: Model) -> UsedModel | None:
    """What ``model`` is now; None where its files cannot be read any more. Loads its language engine."""
    folder, file = model.folder, model.choice.file
    known = known_adapters(folder)
    in_force = [(adapter.name, adapter.scale, adapter.path) for adapter in model.engine.adapters]
    if file is not None and file.merged:
        in_force = [(OWN, 1.0, folder / OWN)]
    try:
        return UsedModel(
            folder=os.path.abspath(folder),
            engine=model.choice.name if file is None else f"{model.choice.name}:{file.kind}",
            sha256=model.weights_sha256,
            adapters=tuple(
                UsedAdapter(name if name in known else os.path.abspath(name), scale, adapter_sha256(path))
                for name, scale, path in in_force
            ),
        )
    except OSError:
        return None


def place_of(name: str, folder: str) -> str:
    """What to open as a model: ``folder`` if it has a card of its own and is not that of the known model ``name``."""
    known = name in known_models() and find_model(name)[1] == Path(folder)
    return name if known or not (Path(folder) / FILE_NAME).is_file() else folder
