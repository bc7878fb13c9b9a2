"""The whole recipe of the bundled model, with a step or two of each part: that the parts fit, and that it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.evaluation import stages
from gpt4video_cli.events import Done
from gpt4video_cli.recipes import bundle
from gpt4video_cli.recipes.bundle import Recipe
from gpt4video_cli.recipes.ship import ship
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.weights.card import read_card

DEMO = Path(bundle.__file__).parents[1] / "bundle" / "clips" / "demo.mp4"


def test_from_nothing_to_a_model_that_chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = LoopOptions(steps=2, learning_rate=1e-3, warm_up=1)
    small = Recipe(
        contrastive=two,
        contrastive_batch=10,
        contrastive_pool=20,
        patches=two,
        patches_batch=10,
        patches_pool=20,
        language=two,
        language_batch=2,
        practice=two,
        practice_batch=2,
        conversation=two,
        conversation_batch=2,
        details=two,
        details_batch=2,
        motion=two,
        camera=two,
        together=two,
        motion_batch=3,
        clips=6,
        events=2,
        pictures=2,
        monochrome=2,
        warm_up=two,
        warm_up_batch=2,
        align=two,
        align_events=two,
        align_batch=2,
        instruct=two,
        instruct_batch=2,
    )
    monkeypatch.setattr(bundle, "Recipe", lambda: small)
    work, output = tmp_path / "work", tmp_path / "model"
    bundle.make(output, work)
    names = [
        "contrastive",
        "patch_phrases",
        "patch_motion",
        "patch_camera",
        "language_model",
        "practice",
        "conversation",
        "details",
    ]
    names += ["warm_up", "align", "align_events", "instruct"]
    assert all((work / "checkpoints" / name / "step-00000002").is_dir() for name in names)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with Assistant.open(str(output)) as assistant:
        *_, done = assistant.reply(assistant.new_session(), Message("What moves?", (ClipRequest(str(DEMO)),)))
        assert isinstance(done, Done)

    (work / "adapter" / "adapter_config.json").unlink()  # as if stopped before its last part was kept
    (work / "adapter" / "adapter_model.safetensors").unlink()
    (work / "adapter" / "README.md").unlink()
    (work / "adapter").rmdir()
    bundle.make(output, work)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    compared = stages.evaluate(output, work, 1, 1)
    assert len(compared) == 4 and all(found["questions"]["asked"] for found in compared.values())
    made = stages.variants(output, work, tmp_path / "variants")
    weights = [(folder / "abstractor.safetensors").read_bytes() for folder in made.values()]
    assert weights[0] == weights[1] and len(set(weights)) == 3
    assert [(folder / "adapter").exists() for folder in made.values()] == [True, False, True, True]

    ship(output, tmp_path / "card.toml")
    card = read_card(tmp_path / "card.toml")
    assert card.folder is not None and card.folder.endswith("/model") and not (output / "card.toml").exists()
