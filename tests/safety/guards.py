"""Guards that tests need: they find what they are told to find, and count how often they were asked."""

from __future__ import annotations

import numpy as np


class Finds:
    """Finds ``words`` in texts: word -> (category, score)."""

    def __init__(self, name: str = "finds", **words: tuple[str, float]) -> None:
        self.name, self.words = name, words
        self.asked: list[str] = []

    def score(self, text: str) -> dict[str, float]:
        self.asked.append(text)
        return dict(found for word, found in self.words.items() if word in text)


class Red:
    """Takes pictures for violence that are red all over."""

    name = "red"

    def __init__(self) -> None:
        self.seen = 0

    def score(self, frames: np.ndarray) -> list[dict[str, float]]:
        self.seen += len(frames)
        red = (frames[..., 0] > 180) & (frames[..., 1:].max(axis=-1) < 90)
        return [{"violence": float(share)} for share in red.mean(axis=(1, 2))]
