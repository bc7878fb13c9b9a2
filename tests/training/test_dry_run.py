"""What a dry run says before any weight is read, and that encoders whose frames see each other are counted too."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpt4video_cli.model.strict_load import read_safetensors
from gpt4video_cli.model.visual_encoder import load_visual_encoder, save_visual_encoder
from gpt4video_cli.recipes.patch_motion import with_neighbours
from gpt4video_cli.training.dry_run import dry_run
from gpt4video_cli.training.stage_run import train_stage
from tests.training.conftest import Make


@pytest.fixture
def of_clips(base: Path, tmp_path: Path) -> Path:
    """The tiny model with temporal convolutions in its visual encoder."""
    folder = tmp_path / "of-clips"
    shutil.copytree(base, folder)
    encoder = load_visual_encoder(base / "vision", device="cpu")
    save_visual_encoder(with_neighbours(encoder), folder / "vision")
    return folder


def counted(*files: Path) -> int:
    return sum(tensor.numel() for file in files for tensor in read_safetensors(file)[0].values())


def test_parameters_are_those_of_the_files(settings: Make, base: Path, of_clips: Path) -> None:
    for model in (base, of_clips):
        said = dry_run(settings(1, model=str(model)))
        parts = {part.name: (part.trained, part.frozen) for part in said.parts}
        assert parts["visual encoder"] == (0, counted(model / "vision" / "model.safetensors"))
        assert parts["abstractor"] == (counted(model / "abstractor.safetensors"), 0)
        assert parts["language model"] == (0, counted(model / "language" / "model.safetensors"))
        assert said.steps == 4 and said.clips > 0 and said.memory > said.tensors > 0
    assert counted(of_clips / "vision" / "model.safetensors") > counted(base / "vision" / "model.safetensors")


def test_stage_2_trains_the_adapter_and_sees_no_clips(settings: Make) -> None:
    parts = {part.name: (part.trained, part.frozen) for part in dry_run(settings(2)).parts}
    assert set(parts) == {"language model", "adapter"}
    assert parts["adapter"][0] > 0 == parts["adapter"][1] and parts["language model"][0] == 0


def test_stage_1_runs_on_such_an_encoder(settings: Make, of_clips: Path) -> None:
    asked = settings(1, model=str(of_clips), max_steps=2)
    train_stage(asked)
    assert (Path(asked.output) / "abstractor.safetensors").is_file()
