"""Ask a model for clips, and for things that are no clips: does it write a prompt where one is wanted, and a true one?

    python -m gpt4video_cli.evaluation.requests --output requests.json

100 requests that want a clip, a third of them changes to a clip that was watched first, and 100 messages that do not:
questions about a clip, with and without one, small talk, harm. All are drawn from a seed that training never used.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.evaluation.shapeworld import HELD_OUT, Tally, film
from gpt4video_cli.events import GenerationPrompt
from gpt4video_cli.shapeworld.dialogues import Dialogue, no_clip, watching
from gpt4video_cli.shapeworld.prompts import MOTION_NOUNS
from gpt4video_cli.shapeworld.scene import SIZELESS, Scene
from gpt4video_cli.shapeworld.wishes import filming, refusing
from gpt4video_cli.whole_file import write_whole


@dataclass(frozen=True)
class Request:
    """A conversation whose last message is the one to be judged; ``wanted``: the clip it asks for, if it asks for one.

    Earlier messages are asked too, and answered by the model itself.
    """

    kind: str
    dialogue: Dialogue
    wanted: Scene | None


def requests(count: int) -> Iterator[Request]:
    """``count`` that want a clip, then ``count`` that do not."""
    for index in range(count):
        rng = random.Random(f"{HELD_OUT}/requests/{index}")
        watched = index % 3 == 2
        while True:
            dialogue = filming(rng)
            if bool(dialogue.scenes) == watched and dialogue.wanted:
                break
        last = max(dialogue.wanted)
        turns = dialogue.turns[: last + 1]
        kind = "change of a watched clip" if watched else "request" if last == 0 else "change of a filmed clip"
        yield Request(kind, Dialogue(dialogue.scenes, turns), dialogue.wanted[last])
    for index in range(count):
        rng = random.Random(f"{HELD_OUT}/no request/{index}")
        kind = ("watching", "no clip", "harm")[index % 3]
        dialogue = (
            watching(rng, turns=1) if kind == "watching" else no_clip(rng) if kind == "no clip" else refusing(rng)
        )
        yield Request(kind, Dialogue(dialogue.scenes, dialogue.turns[:1]), None)


def keeps(prompt: str, wanted: Scene) -> bool:
    """Whether ``prompt`` says the background and size, colour, shape and motion of every wanted object, no other.

    What is "" in ``wanted`` was not asked for and may be anything.
    """
    head, _, backdrop = prompt.lower().rpartition(" on ")
    parts = head.replace(", ", " and ").split(" and ")
    if len(parts) != len(wanted.shapes) or wanted.background not in backdrop:
        return False
    for shape in wanted.shapes:
        sized = shape.size and shape.motion not in SIZELESS
        words = {shape.colour, shape.shape} | ({shape.size} if sized else set())
        motions = MOTION_NOUNS.get(shape.motion, ("",))
        fits = [p for p in parts if words <= set(p.split()) and any(m in p for m in motions)]
        if not fits:
            return False
        parts.remove(fits[0])
    return True


def prompts_for(assistant: Assistant, request: Request, folder: Path) -> list[str]:
    """What the model asks to be filmed after the last message."""
    session = assistant.new_session()
    prompts: list[str] = []
    for turn in request.dialogue.turns:
        clips = []
        for index in turn.clips:
            path = folder / f"{index}.mp4"
            film(path, request.dialogue.scenes[index])
            clips.append(ClipRequest(str(path)))
        events = assistant.reply(session, Message(turn.user, tuple(clips)))
        prompts = [event.prompt for event in events if isinstance(event, GenerationPrompt)]
    return prompts


def evaluate(assistant: Assistant, count: int) -> dict[str, Any]:
    """All figures, as a JSON-ready dictionary."""
    tallies: dict[str, Tally] = {}
    wrong: list[dict[str, Any]] = []
    started = time.monotonic()
    for request in requests(count):
        with tempfile.TemporaryDirectory() as folder:
            prompts = prompts_for(assistant, request, Path(folder))
        if request.wanted is None:
            right = not prompts
        else:
            right = len(prompts) == 1 and keeps(prompts[0], request.wanted)
        group = "no clip wanted" if request.wanted is None else "clip wanted"
        for name in (group, f"{group}: {request.kind}"):
            tallies.setdefault(name, Tally()).add(right)
        if not right:
            wrong.append({"kind": request.kind, "said": [t.user for t in request.dialogue.turns], "prompts": prompts})
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, **{name: tally.as_dict() for name, tally in tallies.items()}, "wrong": wrong}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundle", help="name or folder of a model")
    parser.add_argument("--count", type=int, default=100, help="requests of each of the two groups")
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    options = parser.parse_args()
    with Assistant.open(options.model) as assistant:
        result = evaluate(assistant, options.count)
    if options.output:
        write_whole(options.output, json.dumps(result, indent=1) + "\n")
    for name, tally in result.items():
        if isinstance(tally, dict):
            print(f"{name:42} {tally['right']:4} of {tally['asked']:4}  {tally['accuracy']:.3f}")


if __name__ == "__main__":
    main()
