"""What is wrong with a dialogue, as far as the dialogue alone can tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpt4video_cli.data.dialogue_file import DataClip, DataDialogue
from gpt4video_cli.events import Notice
from gpt4video_cli.reply import ReplyParser

TAG = re.compile(r"</?\s*video\d*\s*>", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """``kind`` is one of ``KINDS`` (``check``); ``text`` says which turn or clip and why."""

    kind: str
    text: str


def faults(dialogue: DataDialogue) -> Iterator[Fault]:
    """Everything that makes ``dialogue`` unfit to train on."""
    if not dialogue.id.strip():
        yield Fault("no id", "the id is empty")
    if not dialogue.turns:
        yield Fault("empty turn", "there are no turns")
    for number, turn in enumerate(dialogue.turns, start=1):
        for who, text in (("user", turn.user), ("assistant", turn.assistant)):
            if not text.strip():
                yield Fault("empty turn", f"turn {number}: the {who} says nothing")
        if TAG.search(turn.user):
            yield Fault("tag mistake", f'turn {number}: a video tag in what the user says; clips stand in "clips"')
        parser = ReplyParser()
        for event in [*parser.feed(turn.assistant), *parser.finish()]:
            if isinstance(event, Notice):
                yield Fault("tag mistake", f"turn {number}: {event.text}")
    yield from _clip_faults(dialogue)


def _clip_faults(dialogue: DataDialogue) -> Iterator[Fault]:
    used: dict[int, int] = {}
    for number, turn in enumerate(dialogue.turns, start=1):
        for place in turn.clips:
            if not 0 <= place < len(dialogue.clips):
                yield Fault("clip reference", f"turn {number}: there is no clip {place}, only {len(dialogue.clips)}")
            elif place in used:
                yield Fault("clip reference", f"turn {number}: clip {place} came with turn {used[place]} already")
            else:
                used[place] = number
    order = list(used)
    if order != sorted(order):
        yield Fault("clip reference", "the clips do not come in the order of their places")
    for place, clip in enumerate(dialogue.clips):
        if place not in used:
            yield Fault("clip reference", f"clip {place} comes with no turn")
        if reason := _bad_clip(clip):
            yield Fault("clip reference", f"clip {place}: {reason}")


def _bad_clip(clip: DataClip) -> str:
    if not (clip.path or "").strip() and not (clip.description or "").strip():
        return "neither a path nor a description"
    times = [time for time in (clip.start, clip.end) if time is not None]
    if any(not math.isfinite(time) or time < 0 for time in times):
        return "a time is negative"
    if len(times) == 2 and times[0] >= times[1]:
        return "its end is not after its start"
    return ""
