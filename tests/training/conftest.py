"""A tiny real model, and data for both stages: real clips with questions, and text."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.recipes.clips import film_scene
from gpt4video_cli.shapeworld.dialogues import watching
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.training.settings import Settings

Make = Callable[..., Settings]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not change it: all tests share it."""
    return write_random_model(tmp_path_factory.mktemp("base") / "random", context_length=512)


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dialogues about twelve clips of 80 x 80 pixels."""
    folder = tmp_path_factory.mktemp("watched")
    lines = []
    for number in range(12):
        rng = random.Random(number)
        scene = sample_scene(rng)
        film_scene(folder / f"{number}.mp4", scene, rng, side=80)
        turns: list[dict[str, Any]] = [
            {"user": turn.user, "assistant": turn.answer} for turn in watching(rng, scene=scene, turns=2).turns
        ]
        turns[0]["clips"] = [0]
        lines.append(
            {"schema": 1, "id": str(number), "source": "drawn", "clips": [{"path": f"{number}.mp4"}], "turns": turns}
        )
    return write(folder / "watched.jsonl", lines)


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty dialogues of 1 to 4 turns about described clips, some of which are to be filmed."""
    rng = random.Random(0)
    lines = []
    for number in range(40):
        what = f"{rng.choice(('red', 'blue', 'green'))} {rng.choice(('star', 'circle', 'square'))}"
        turns: list[dict[str, Any]] = [{"user": "What moves?", "assistant": f"A {what}.", "clips": [0]}]
        for _ in range(rng.randint(0, 3)):
            turns.append({"user": "Film it.", "assistant": f"Here: <video>a {what} moving</video>"})
        lines.append({"schema": 1, "id": f"t{number}", "clips": [{"description": f"A {what} moves."}], "turns": turns})
    return write(tmp_path_factory.mktemp("told") / "told.jsonl", lines)


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def settings(base: Path, watched: Path, told: Path, tmp_path: Path) -> Make:
    """Settings of a short run of a stage, into a new folder."""

    def make(stage: int, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "stage": stage,
            "data": (str(watched if stage == 1 else told),),
            "output": str(tmp_path / "run"),
            "model": str(base),
            "max_steps": 4,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "log_every": 1,
            "device": "cpu",
            "prompts": 0,
        }
        return Settings(**{**values, **changes})

    return make
