"""What a gate says about one thing that passes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["allowed", "refused", "not screened"]
Subject = Literal["user text", "user clip", "generation prompt", "generated clip"]


@dataclass(frozen=True)
class Verdict:
    """``not screened`` means that no guard looked at it; it is never to be passed off as ``allowed``.

    ``guard`` names who decided; ``score`` and ``threshold`` lie in 0..1. All are empty when nobody looked.
    """

    outcome: Outcome
    subject: Subject
    guard: str = ""
    category: str = ""
    score: float | None = None
    threshold: float | None = None


def screen(subject: Subject) -> Verdict:
    """The verdict of the guards installed for ``subject``. There are none yet, so nothing is screened."""
    return Verdict("not screened", subject)
