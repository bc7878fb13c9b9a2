"""The measurement of filmed clips: its prompts, its verdicts, and the whole way through a real random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4video_cli.evaluation.film_judge import look
from gpt4video_cli.evaluation.films import GROUPS, contact_sheet, evaluate, judge, tasks, with_measured
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.shapeworld.prompts import held_out
from gpt4video_cli.shapeworld.render import render_clip
from gpt4video_cli.weights.generator_card import parse_generator_card
from gpt4video_cli.weights.locate import cards_folder


def test_half_of_the_prompts_are_combinations_that_training_never_saw() -> None:
    made = list(tasks(40, 5))
    assert [task.group for task in made[:4]] == ["seen", "unseen", "seen", "unseen"]
    assert [task.group for task in made[40:]] == ["two objects"] * 5
    assert len({task.prompt for task in made}) == 45
    for task in made:
        unseen = any(held_out(shape) for shape in task.scene.shapes)
        assert unseen == (task.group == "unseen")
        assert len(task.scene.shapes) == (2 if task.group == "two objects" else 1)
        for shape in task.scene.shapes:
            assert shape.colour in task.prompt.lower() and shape.shape in task.prompt.lower()
        assert task.scene.background in task.prompt.lower()


def test_drawn_clips_pass_and_other_clips_do_not() -> None:
    made = list(tasks(30, 10))
    clips = [look(render_clip(t.scene, side=64, frames=8), most=len(t.scene.shapes)) for t in made]
    right = sum(judge(seen, task.scene)["all"] for seen, task in zip(clips, made, strict=True))
    assert right >= 38
    others = sum(judge(seen, task.scene)["all"] for seen, task in zip(clips[1:], made[:-1], strict=True))
    assert others == 0


def test_a_random_model_is_measured_and_gets_nothing_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt4video_cli.gallery.random_generator import write_random_generator

    generator = DiffusersGenerator.open(write_random_generator(tmp_path / "random"))
    monkeypatch.setattr("gpt4video_cli.evaluation.films.SHEET", 2)
    result = evaluate(generator, 3, 1, sheet=tmp_path / "sheet.jpg")
    assert [result[group]["all"]["asked"] for group in GROUPS] == [2, 1, 1]
    assert sum(result[group]["all"]["right"] for group in GROUPS) == 0 and len(result["wrong"]) == 4
    assert (tmp_path / "sheet.jpg").stat().st_size > 1000

    card = (cards_folder() / "bundle-film.toml").read_text(encoding="utf-8")
    written = parse_generator_card(with_measured(with_measured(card, result), result))
    assert written.measured["prompts"] == 4 and written.measured["two_objects"]["all"] == 0.0


def test_the_contact_sheet_has_a_cell_for_each_clip() -> None:
    frames = render_clip(next(tasks(1, 0)).scene, side=64, frames=8)
    sheet = contact_sheet([("a", frames)] * 3)
    assert sheet.size == (8 + 2 * (8 * 65 + 8), 8 + 2 * (64 + 14 + 8))
