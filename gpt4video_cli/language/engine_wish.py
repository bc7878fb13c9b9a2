"""Which language engine a person asks for, and how it shall run. Nothing heavy is imported here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.adapters import AdapterWish
from gpt4video_cli.language.llama_options import DEFAULTS, LlamaOptions

ENGINES = ("auto", "torch", "llama")
_KIND = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class EngineWish:
    """``name``: auto, torch or llama. ``kind``: which GGUF file of the model (``q8_0``), None: the most exact that
    fits. ``adapters``: None for the model's own; an empty tuple for none."""

    name: str = "auto"
    kind: str | None = None
    llama: LlamaOptions = DEFAULTS
    adapters: tuple[AdapterWish, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES or (self.kind is not None and not _KIND.fullmatch(self.kind)):
            given = self.name if self.kind is None else f"{self.name}:{self.kind}"
            raise UsageError(f"--engine is {given!r}; it must be auto, torch, llama or llama:KIND such as llama:q8_0")
        if self.kind is not None and self.name != "llama":
            raise UsageError(f"--engine {self.name}:{self.kind}: only llama has kinds, such as llama:q8_0")
        if self.name == "torch" and (options := self.llama.changed()):
            raise UsageError(f"{options[0]} is an option of the llama.cpp engine, but --engine is torch")

    @classmethod
    def parse(
        cls,
        text: str,
        llama: LlamaOptions = DEFAULTS,
        adapters: tuple[AdapterWish, ...] | None = None,
    ) -> EngineWish:
        """``auto``, ``torch``, ``llama`` or ``llama:q8_0``."""
        name, found, kind = text.strip().lower().partition(":")
        return cls(name, kind if found else None, llama, adapters)
