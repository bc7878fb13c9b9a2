"""A refusal in words: short, polite, says what kind of content it looked like, and never quotes it."""

from __future__ import annotations

from gpt4video_cli.safety.categories import CATEGORIES, SELF_HARM
from gpt4video_cli.safety.policy import FRAMES, TEXT
from gpt4video_cli.safety.verdict import Subject, Verdict

_SAID: dict[Subject, str] = {
    "user text": "Sorry, I cannot help with that: it looks like {what}. Please ask for something else.",
    "user clip": "Sorry, I cannot talk about this clip: it seems to show {what}{when}. Please choose another one.",
    "generation prompt": "Sorry, this cannot be filmed: it looks like {what}. Please describe another clip.",
    "negative prompt": "Sorry, this cannot be filmed: the negative prompt looks like {what}. Please change it.",
    "generated clip": "Sorry, the clip is not kept: it seems to show {what}{when}. Please describe another one.",
}
_OF_OLD = "Sorry, this conversation cannot go on: {who} looks like {what}. Please start a new one."
_CARE = " If this is about you: please talk to someone you trust, or call an emergency number."


def refusal(verdict: Verdict, *, turn: int | None = None) -> str:
    """What to say to a refused ``verdict``. ``turn``: of a conversation that was stored, counted from 1."""
    when = "" if verdict.seconds is None else f" at {verdict.seconds:.1f} s"
    said = _SAID[verdict.subject] if turn is None else _OF_OLD
    who = f"what was {'shown' if verdict.subject == 'user clip' else 'written'} in turn {turn}"
    text = said.format(what=CATEGORIES[verdict.category], when=when, who=who)
    return text + _CARE if verdict.category == SELF_HARM and verdict.subject == "user text" else text


def not_screened(verdict: Verdict) -> str:
    """What to say where no guard looked, or only for what is never allowed."""
    kind = FRAMES if verdict.subject in ("user clip", "generated clip") else TEXT
    if verdict.guards:
        why = "text guards are turned off; only what involves minors is refused"
    elif kind in verdict.off:
        why = f"guards for {kind} are turned off"
    else:
        why = f"no guard for {kind} is {'on' if verdict.off else 'installed'}"
    return f"not screened: {verdict.subject} ({why})"
