"""What is left out of a prompt that has become too long."""

from __future__ import annotations

from itertools import pairwise

import torch

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.history import count, fit
from gpt4video_cli.model.prompt import PromptClip, PromptTurn

CLIP_TOKENS = 4  # video tokens of the random model


def test_texts_go_several_at_a_time(assistant: Assistant) -> None:
    """Else each turn of a full conversation would begin differently from the last, and the kept cache be of no use."""
    engine, template = assistant.model.engine, assistant.model.template
    turns = [PromptTurn(f"{turn} word word word", reply="yes " * 8) for turn in range(60)]
    left_out = [fit(engine, template, [*turns[:n], PromptTurn("and?")], 16).left_out for n in range(60)]
    assert left_out == sorted(left_out) and left_out[0] == 0 and left_out[-1] > 20
    changes = sum(before != after for before, after in pairwise(left_out))
    assert changes <= left_out[-1] / 3


def test_the_order_of_clips_survives_leaving_texts_out(small: Assistant) -> None:
    engine, template = small.model.engine, small.model.template

    def clip(number: int) -> PromptClip:
        return PromptClip(str(number), torch.zeros(CLIP_TOKENS, engine.width), number)

    turns = [PromptTurn("word " * 20, (clip(1),), "yes"), PromptTurn("word " * 20, (clip(2),), "no")]
    fitted = fit(engine, template, [*turns, PromptTurn("and?", (clip(3),))], 16)
    assert fitted.left_out > 0
    assert [c.number for turn in fitted.turns for c in turn.clips] == [1, 2, 3]
    segments = template.render(fitted.turns)
    assert count(engine, segments) == fitted.prompt_tokens == 160 - fitted.room
