"""A gate's verdict as the events of a reply: the verdict itself, then a refusal, or what nobody looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from gpt4video_cli.events import Notice, Refusal, Screened
from gpt4video_cli.safety.refusal import not_screened, refusal
from gpt4video_cli.safety.verdict import Subject, Verdict

Gate = Generator[Screened | Refusal | Notice, None, Verdict]


def screening(
    judge: Callable[[], Verdict],
    said: set[Subject],
    seconds: dict[str, float],
    *,
    turn: int | None = None,
    path: str = "",
    prompt: str = "",
) -> Gate:
    """Yields what is to be said about ``judge()`` and returns it. What nobody looked at is said once, see ``said``.

    Adds its time to ``seconds["safety"]``. ``turn``, ``path``, ``prompt``: see ``refusal`` and ``events.Refusal``.
    """
    began = time.perf_counter()
    verdict = judge()
    seconds["safety"] = seconds.get("safety", 0.0) + time.perf_counter() - began
    yield Screened(verdict)
    if verdict.note:
        yield Notice(verdict.note)
    if verdict.outcome == "refused":
        message = refusal(verdict, turn=turn)
        yield Refusal(verdict.guard, verdict.category, message, verdict.subject, path, prompt)
    if verdict.outcome == "not screened" and verdict.subject not in said:
        said.add(verdict.subject)
        yield Notice(not_screened(verdict))
    return verdict
