"""Questions, their truths and their judge."""

from __future__ import annotations

import random

import pytest

from gpt4video_cli.recipes.mixtures import instruction_dialogue, practice_dialogue, pretraining_dialogue
from gpt4video_cli.shapeworld.captions import describe, facts
from gpt4video_cli.shapeworld.dialogues import (
    CANNOT_TELL,
    HELD_OUT_NOUNS,
    unknown_question,
    watching,
)
from gpt4video_cli.shapeworld.question import KINDS, Question
from gpt4video_cli.shapeworld.questions import ask
from gpt4video_cli.shapeworld.scene import (
    CAMERAS,
    FADES,
    ORDERED_APART,
    Scene,
    Shape,
    reversed_scene,
    sample_any,
    sample_events,
    sample_monochrome,
    sample_picture,
    sample_scene,
)

SCENE = Scene(
    (Shape("circle", "red", "small", "left", x=0.5, y=0.2, travel=0.4), Shape("star", "blue", "big", "spinning")),
    "white",
)


def test_the_judge_accepts_every_true_answer_and_no_answer_about_another_value() -> None:
    rng = random.Random(0)
    asked = 0
    for _ in range(400):
        scene = sample_any(rng)
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
        ("order", "red star appears", "The red star appears first.", "The red star disappears first."),
        ("order", "red star appears", "The red star appears first.", "The red circle appears first."),
        ("dominant", "green", "The picture is mostly green.", "The picture is mostly gray."),
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


def test_what_happens_first_and_last() -> None:
    rng = random.Random(4)
    for _ in range(200):
        scene = sample_events(rng)
        events = scene.events()
        assert events is not None
        first, last = events
        assert last.change_at - first.change_at >= ORDERED_APART
        assert {f"The {s.colour} {s.shape} {s.presence} {w}." for s, w in ((first, "first"), (last, "last"))} <= set(
            facts(scene, rng)
        )
        question = ask(scene, "order", rng)
        assert question is not None
        asked_first = "first" in question.answer
        assert question.expected.startswith((first if asked_first else last).colour)
        assert ("first" in question.text or "beginning" in question.text) == asked_first
        backwards = reversed_scene(scene).events()
        assert backwards is not None
        names = [(s.colour, s.shape) for s in backwards]
        assert names == [(last.colour, last.shape), (first.colour, first.shape)]
    assert sample_scene(random.Random(1)).events() is None


def test_pictures_without_objects_are_asked_for_camera_fade_and_main_colour() -> None:
    rng = random.Random(5)
    seen = set()
    for index in range(400):
        scene = sample_monochrome(rng) if index % 4 == 0 else sample_picture(rng)
        seen |= {scene.camera, f"fade {scene.fade}", scene.dominant}
        question = ask(scene, "dominant", rng)
        assert (question is not None) == bool(scene.dominant)
        assert question is None or question.expected == scene.dominant
        camera, fade = ask(scene, "camera", rng), ask(scene, "fade", rng)
        assert camera is not None and fade is not None
        told = facts(scene, rng)
        assert (camera.answer in told) == (scene.camera != "still")
        assert (fade.answer in told) == (scene.fade != "none")
        other = ask(scene, "motion", rng)
        assert other is not None and other.kind == "absent"
    assert {*CAMERAS, *(f"fade {f}" for f in FADES), "", "red", "brown"} <= seen


def test_dialogues_show_every_clip_before_it_is_spoken_of() -> None:
    rng = random.Random(2)
    for make in (pretraining_dialogue, practice_dialogue, instruction_dialogue):
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
