"""The measurement of requests for clips: what it asks, what it takes for right, and a whole run with a random model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.evaluation.requests import evaluate, keeps, requests
from gpt4video_cli.shapeworld.scene import SHAPES
from gpt4video_cli.shapeworld.wishes import clip_prompt, filled


def test_the_true_prompt_is_right_and_a_changed_one_is_not() -> None:
    asked = [request for request in requests(60) if request.wanted is not None]
    assert len(asked) == 60
    assert {request.kind for request in asked} == {"request", "change of a filmed clip", "change of a watched clip"}
    for request in asked:
        found = re.search("<video>(.*)</video>", request.dialogue.turns[-1].answer)
        assert found is not None and request.wanted is not None
        prompt = found[1]
        assert keeps(prompt, request.wanted), prompt
        shape = request.wanted.shapes[0]
        other = next(name for name in SHAPES if name not in prompt)
        assert not keeps(prompt.replace(shape.shape, other), request.wanted)
        assert not keeps(prompt.replace(shape.colour, "golden"), request.wanted)
        if background := request.wanted.background:
            assert not keeps(prompt.replace(background, "golden"), request.wanted)
        assert not keeps(f"a big red circle and {prompt}", request.wanted)


def test_what_was_not_asked_for_may_be_anything() -> None:
    asked = [request.wanted for request in requests(60) if request.wanted is not None]
    without = [wanted for wanted in asked if not wanted.background or not wanted.shapes[0].motion]
    assert 3 < len(without) < 30
    for wanted in without:
        assert keeps(clip_prompt(filled(wanted)), wanted)
        other = replace(filled(wanted), background=wanted.background or "brown")
        assert keeps(clip_prompt(other), wanted)


def test_what_wants_no_clip_is_of_three_kinds() -> None:
    others = [request for request in requests(9) if request.wanted is None]
    assert [request.kind for request in others] == ["watching", "no clip", "harm"] * 3
    assert not any("<video>" in request.dialogue.turns[-1].answer for request in others)


def test_a_random_model_is_measured(tiny_model_folder: Path) -> None:
    with Assistant.open(str(tiny_model_folder)) as assistant:
        result = evaluate(assistant, 3)
    assert result["clip wanted"]["right"] == 0 and result["clip wanted"]["asked"] == 3
    assert result["no clip wanted"]["right"] == 3
    assert len(result["wrong"]) == 3
