"""One question with its true answer, and the judge that says whether another answer is right."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpt4video_cli.shapeworld.captions import NUMBERS
from gpt4video_cli.shapeworld.pictures import PICTURE_COLOURS
from gpt4video_cli.shapeworld.scene import BACKGROUNDS, COLOURS, PRESENCES, SHAPES, SIZES

KINDS = (
    "colour",
    "shape",
    "size",
    "motion",
    "count",
    "background",
    "yesno",
    "absent",
    "camera",
    "fade",
    "presence",
    "dominant",
    "order",
)
"""Kinds of question with one short true answer."""

MOTION_WORDS = {
    "left": "left",
    "right": "right",
    "up": "up",
    "down": "down",
    "still": "still",
    "growing": "grows",
    "shrinking": "shrinks",
    "spinning": "spins",
}
_ANSWER_WORDS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "motion": tuple(MOTION_WORDS.values()),
    "count": NUMBERS,
    "background": BACKGROUNDS,
    "yesno": ("yes", "no"),
    "camera": ("left", "right", "up", "down", "in", "out", "not"),
    "fade": ("in", "out", "not"),
    "presence": ("appears", "disappears", "nothing"),
    "absent": ("no",),
    "dominant": PICTURE_COLOURS,
    "order": (*COLOURS, *SHAPES, *PRESENCES[1:]),
}


@dataclass(frozen=True)
class Question:
    """One question, its full true answer, and the word or words that decide (``expected``).

    ``named`` holds words that the question itself brings into the answer ("The red circle ..."): they neither count
    for nor against it.
    """

    kind: str
    text: str
    answer: str
    expected: str
    named: frozenset[str] = frozenset()

    def is_right(self, answer: str) -> bool:
        """Whether ``answer`` says what is expected of this kind and no other word of the kind."""
        words = re.findall(r"[a-z]+", answer.lower())
        if self.kind == "yesno":
            return bool(words) and words[0] == self.expected
        expected = set(self.expected.split())
        rivals = set(_ANSWER_WORDS.get(self.kind, ())) - expected - self.named
        return expected.issubset(words) and not rivals.intersection(words)
