"""``gpt4video models export``: which files appear where, and what is said of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gpt4video_cli.cli.models import models
from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.gguf_header import read_gguf_header
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.weights.gguf_place import adapter_place, cached_folder, exported_place
from tests.weights.gguf_reading import BUNDLE


def export(*arguments: str | Path) -> Result:
    """Run the command in this process; an error is raised as it is."""
    return CliRunner().invoke(models, ["export", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("random") / "model", adapter=True)


@pytest.fixture
def model(tmp_path: Path, random_model: Path) -> Path:
    return shutil.copytree(random_model, tmp_path / "model")


def test_model_and_adapter_lie_beside_their_safetensors(model: Path) -> None:
    result = export(model, "--gguf", "F16")
    files = [model / "language" / "model-f16.gguf", model / "adapter" / "adapter-f16.gguf"]
    assert result.stdout.splitlines() == [str(file) for file in files]
    assert result.stderr == ""
    values = read_gguf_header(files[0]).values
    assert (values["general.name"], values["gpt4video.adapter_merged"]) == ("random", False)
    before = files[1].stat().st_mtime_ns
    result = export(model, "--gguf", "q8_0")
    assert result.stdout.splitlines() == [str(model / "language" / "model-q8_0.gguf"), str(files[1])]
    assert files[1].stat().st_mtime_ns == before, "the same adapter serves every kind"
    with pytest.raises(UsageError, match=r"model-f16\.gguf: exists"):
        export(model, "--gguf", "f16")
    assert export(model, "--gguf", "f16", "--force").exit_code == 0


def test_an_adapter_file_of_another_adapter_is_not_taken_for_this_one(model: Path) -> None:
    (model / "adapter" / "adapter-f16.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"adapter-f16\.gguf: exists"):
        export(model, "--gguf", "f16")
    assert not (model / "language" / "model-f16.gguf").exists()


def test_a_merged_file_has_a_name_of_its_own(model: Path) -> None:
    result = export(model, "--gguf", "f32", "--merge-adapter")
    assert result.stdout.splitlines() == [str(model / "language" / "merged-f32.gguf")]
    assert read_gguf_header(model / "language" / "merged-f32.gguf").values["gpt4video.adapter_merged"] is True
    shutil.rmtree(model / "adapter")
    with pytest.raises(WeightsError, match="has no adapter"):
        export(model, "--gguf", "f16", "--merge-adapter")


def test_a_chosen_file_has_its_adapter_beside_it(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "any name.gguf"
    result = export(model, "--gguf", "bf16", "-o", target)
    assert result.stdout.splitlines() == [str(target), str(target.with_name("adapter-f16.gguf"))]
    assert not [*model.rglob("*.gguf")]


def test_notes_go_to_stderr_unless_quiet(model: Path, tmp_path: Path) -> None:
    result = export(model, "--gguf", "q4_k_m")
    assert "q4_k_m needs rows of a multiple of 256 numbers" in result.stderr
    assert export(model, "--gguf", "q4_k_s", "--quiet").stderr == ""
    with pytest.raises(UsageError, match="no GGUF kind 'q4_k_n'"):
        export(model, "--gguf", "q4_k_n")


def test_what_is_not_ours_to_write_into_is_kept_at_home(
    model: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exported_place(model, "q8_0") == model / "language" / "model-q8_0.gguf"
    assert exported_place(BUNDLE, "f16").is_relative_to(own_home), "the installed program"
    snapshot = shutil.copytree(model, tmp_path / "hub" / "models--owner--name" / "snapshots" / "0" / "model")
    assert exported_place(snapshot, "f16").is_relative_to(own_home)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "language").symlink_to(snapshot / "language")
    assert exported_place(linked, "f16").is_relative_to(own_home)
    monkeypatch.setattr(os, "access", lambda path, mode: "model/adapter" not in str(path))
    found = {exported_place(model, "f16").parent, adapter_place(model, "f16").parent, cached_folder(model)}
    assert len(found) == 1 and found.pop().is_relative_to(own_home), "all in one folder"


def test_the_folder_at_home_is_another_one_when_the_weights_change(model: Path) -> None:
    before = cached_folder(model)
    assert cached_folder(model) == before
    (model / "language" / "model-f16.gguf").write_text("made of the weights, not one of them")
    assert cached_folder(model) == before
    os.utime(model / "language" / "model.safetensors", ns=(0, 12345))
    assert cached_folder(model) != before
