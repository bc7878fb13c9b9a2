"""LoRA adapters as a person names them: ``NAME``, ``NAME:SCALE``, ``off``. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpt4video_cli.errors import UsageError

OFF = "off"


@dataclass(frozen=True)
class AdapterWish:
    """An adapter by its name or path, times ``scale``; 0 counts as off."""

    name: str
    scale: float = 1.0

    def __str__(self) -> str:
        return self.name if self.scale == 1 else f"{self.name}:{self.scale:g}"


@dataclass(frozen=True)
class Adapter:
    """An adapter that was found. ``path``: what its engine reads, a PEFT folder or a GGUF file."""

    name: str
    path: Path
    scale: float = 1.0

    def __str__(self) -> str:
        return str(AdapterWish(self.name, self.scale))


def parse_adapters(texts: Iterable[str], option: str = "--adapter") -> tuple[AdapterWish, ...]:
    """``["a:0.5,b", "c"]`` as three wishes; ``off`` alone as none. ``UsageError`` names ``option``."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    if parts == [OFF]:
        return ()
    wishes: list[AdapterWish] = []
    for part in parts:
        name, found, number = part.rpartition(":")
        try:
            wish = AdapterWish(name, float(number)) if found else AdapterWish(part)
        except ValueError:  # a path with a colon
            wish = AdapterWish(part)
        if not wish.name or wish.name == OFF or not math.isfinite(wish.scale):
            raise UsageError(f"{option} is {part!r}; it must be NAME, NAME:SCALE such as adapter:0.5, or off alone")
        if any(wish.name == other.name for other in wishes):
            raise UsageError(f"{option} names {wish.name} twice")
        wishes.append(wish)
    return tuple(wishes)
