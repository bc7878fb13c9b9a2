"""Questions, their truths and their judge."""

from __future__ import annotations

import random

import pytest

from gpt4video_cli.shapeworld.captions import describe
from gpt4video_cli.shapeworld.dialogues import (
    CANNOT_TELL,
    HELD_OUT_NOUNS,
    instruction_dialogue,
    pretraining_dialogue,
    unknown_question,
    watching,
)
from gpt4video_cli.shapeworld.questions import KINDS, Question, ask
from gpt4video_cli.shapeworld.scene import Scene, Shape, sample_scene

SCENE = Scene(
    (Shape("circle", "red", "small", "left", x=0.5, y=0.2, travel=0.4), Shape("star", "blue", "big", "spinning")),
    "white",
)


def test_the_judge_accepts_every_true_answer_and_no_answer_about_another_value() -> None:
    rng = random.Random(0)
    asked = 0
    for _ in range(400):
        scene = sample_scene(rng)
        for kind in KINDS:
            question = ask(scene, kind, rng)
            if question is None:
                continue
            asked += 1
            assert question.is_right(question.answer), question
            assert not question.is_right(CANNOT_TELL) or question.kind == "absent"
            assert not question.is_right("")
    assert asked > 3000


@pytest.mark.parametrize(
    ("kind", "expected", "right", "wrong"),
    [
        ("colour", "red", "The circle is red.", "The circle is red and blue."),
        ("motion", "left", "It moves left.", "It moves to the right."),
        ("count", "two", "There are two shapes.", "There are three shapes."),
        ("yesno", "no", "No, there is no circle.", "Yes, there is no circle."),
        ("shape", "star", "It is a red star.", "It is a red square."),
        ("background", "white", "The background is white.", "The background is gray."),
    ],
)
def test_the_judge(kind: str, expected: str, right: str, wrong: str) -> None:
    question = Question(kind, "?", "", expected)
    assert question.is_right(right)
    assert not question.is_right(wrong)


def test_truths_of_a_known_scene() -> None:
    found: dict[str, set[str]] = {}
    for seed in range(300):
        for kind in KINDS:
            question = ask(SCENE, kind, random.Random(seed))
            if question is not None:
                found.setdefault(kind, set()).add(question.answer)
    assert found["colour"] == {"The circle is red.", "The star is blue."}
    assert found["motion"] == {"The red circle moves to the left.", "The blue star spins."}
    assert found["background"] == {"The background is white."}
    assert "There are two shapes." in found["count"]
    assert "There are one shapes." not in found["count"]
    assert "Yes, there is a red circle." in found["yesno"]
    assert "Yes, there is a red star." not in found["yesno"]
    assert describe(SCENE) == "A big blue star spins and a small red circle moves to the left on a white background."


def test_every_description_tells_what_can_be_asked() -> None:
    rng = random.Random(1)
    for _ in range(300):
        scene = sample_scene(rng)
        text = describe(scene, rng).lower()
        for shape in scene.shapes:
            assert f"{shape.colour} {shape.shape}" in text
        assert scene.clutter or scene.background in text


def test_dialogues_show_every_clip_before_it_is_spoken_of() -> None:
    rng = random.Random(2)
    for make in (pretraining_dialogue, instruction_dialogue):
        for _ in range(500):
            dialogue = make(rng)
            shown = [c for turn in dialogue.turns for c in turn.clips]
            assert shown == list(range(len(dialogue.scenes)))
            if dialogue.scenes:
                assert dialogue.turns[0].clips
            assert all(turn.user.strip() and turn.answer.strip() for turn in dialogue.turns)


def test_training_never_uses_the_held_out_nouns() -> None:
    rng = random.Random(3)
    text = " ".join(t.user for _ in range(2000) for t in watching(rng).turns)
    assert not set(HELD_OUT_NOUNS) & set(text.lower().split())
    assert any(noun in unknown_question(rng, HELD_OUT_NOUNS) for noun in HELD_OUT_NOUNS for _ in range(20))
