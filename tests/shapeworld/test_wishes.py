"""Dialogues in which clips are asked for, come, and are asked about."""

from __future__ import annotations

import random

from gpt4video_cli.shapeworld.scene import sample_any
from gpt4video_cli.shapeworld.wishes import clip_prompt, watching_what_was_filmed


def test_what_was_filmed_comes_right_after_it_was_asked_for() -> None:
    rng = random.Random(0)
    as_asked = 0
    for _ in range(300):
        dialogue = watching_what_was_filmed(rng)
        asked = [i for i, turn in enumerate(dialogue.turns) if "<video>" in turn.answer]
        assert len(asked) == 1 and dialogue.turns[asked[0]].answer.count("<video>") == 1
        shown = {i: turn.clips for i, turn in enumerate(dialogue.turns) if turn.clips}
        assert shown == {0: (0,), asked[0] + 1: (1,)}
        as_asked += clip_prompt(dialogue.scenes[1]) in dialogue.turns[asked[0]].answer
    # Were it always what was asked for, the request would give the answers away.
    assert 120 < as_asked < 220


def test_given_clips_are_the_ones_that_are_shown() -> None:
    rng = random.Random(1)
    for _ in range(100):
        pair = (sample_any(rng), sample_any(rng))
        assert watching_what_was_filmed(rng, scenes=pair).scenes == pair
