"""What a guard is: it scores, and decides nothing. ``policy.py`` holds the thresholds, ``gates.py`` compares.

T frames, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class TextGuard(Protocol):
    """Judges text: what a person writes, and what a text-to-video model would film. May be called from any thread."""

    @property
    def name(self) -> str:
        """How verdicts, policies and side-cars call it."""
        ...

    def score(self, text: str) -> dict[str, float]:
        """Category (``categories.CATEGORIES``) -> how likely ``text`` is of it, 0..1; a category left out is 0.

        Any text, the empty one too, of any length; never raises for what a text says.
        """
        ...


class FrameGuard(Protocol):
    """Judges single pictures."""

    @property
    def name(self) -> str:
        """How verdicts, policies and side-cars call it."""
        ...

    def score(self, frames: np.ndarray) -> list[dict[str, float]]:
        """``frames`` uint8 [T, H, W, 3], RGB 0-255 -> for each frame what ``TextGuard.score`` gives for a text."""
        ...
