"""What a gate says about one thing that passes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["allowed", "refused", "not screened"]
Subject = Literal["user text", "user clip", "generation prompt", "negative prompt", "generated clip"]


@dataclass(frozen=True)
class Verdict:
    """``not screened`` means that no guard looked at it; it is never to be passed off as ``allowed``.

    ``guards`` are those that looked. ``guard`` decided: it refused, or came nearest to it, with ``score`` for
    ``category`` against ``threshold`` (0..1); empty where nothing scored above 0. ``policy`` and ``off``: under which
    policy, and what is turned off there. ``seconds``: the moment in the clip, where it is one. ``note``: what was not
    looked at as closely as the rest.
    """

    outcome: Outcome
    subject: Subject
    guard: str = ""
    category: str = ""
    score: float | None = None
    threshold: float | None = None
    guards: tuple[str, ...] = ()
    policy: str = ""
    off: tuple[str, ...] = ()
    seconds: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for side-cars and ``--json``: without what is empty, scores with four digits."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"guards": list(self.guards), "off": list(self.off)}
        for name in ("score", "threshold", "seconds"):
            values[name] = None if values[name] is None else round(values[name], 4)
        return {name: value for name, value in values.items() if value not in (None, "", [])}

    def line(self) -> str:
        """One line for a person; says nothing of what was screened."""
        said = f"{self.subject}: {self.outcome}"
        if self.guards:
            said += f" by {', '.join(self.guards)}"
        if self.score is not None and self.threshold is not None:
            said += f" ({self.category} {self.score:.2f}, refused from {self.threshold:g} on)"
        return said + (f"; turned off: {', '.join(self.off)}" if self.off else "")
