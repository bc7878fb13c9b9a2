"""Model folders that give way to new ones: the old one stays until the new one is whole, and no killed run loses it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpt4video_cli.errors import Gpt4VideoError, WeightsError
from gpt4video_cli.weights import after_pull, convert_staging
from gpt4video_cli.weights.after_pull import make_folder
from gpt4video_cli.weights.card import Card, render_card
from gpt4video_cli.weights.convert_staging import staged
from gpt4video_cli.weights.generator_card import read_generator_card
from gpt4video_cli.weights.hub import HubFile
from gpt4video_cli.weights.locate import known_cards, models_home
from gpt4video_cli.weights.sources import Source

ROOT = Path(__file__).resolve().parents[2]
OWL = ROOT / "tests" / "data" / "mplug-owl-video-small"
PICKLE = "unet/pytorch_model.fp16-00001-of-00001.bin"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A model folder that is there already."""
    folder = tmp_path / "models" / "film"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_old_folder_stays_until_the_new_one_is_whole(old: Path) -> None:
    with staged(old, replace=True) as folder:
        (folder / "new").write_text("new")
        assert contents(old) == {"old": "old"}
    assert contents(old.parent) == {"film/new": "new"}
    assert os.listdir(old.parent) == ["film"]


def test_a_failure_leaves_the_old_folder(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), staged(old, replace=True) as folder:
        (folder / "new").write_text("new")
        raise KeyboardInterrupt
    assert contents(old.parent) == {"film/old": "old"}

    def fails(*_: object, **__: object) -> None:
        assert not old.exists(), "the name must be free for the new folder"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(convert_staging, "put_in_place", fails)
    with pytest.raises(Gpt4VideoError, match="cannot be written"), staged(old, replace=True) as folder:
        (folder / "new").write_text("new")
    assert contents(old.parent) == {"film/old": "old"} and os.listdir(old.parent) == ["film"]


KILLED = """
import os, sys
from pathlib import Path
from gpt4video_cli.weights import convert_staging
if sys.argv[2] == "renaming":
    convert_staging.put_in_place = lambda *_, **__: os.kill(os.getpid(), 9)
with convert_staging.staged(Path(sys.argv[1]), replace=True) as folder:
    (folder / "card.toml").write_text("half")
    if sys.argv[2] == "making":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moment", ["making", "renaming"])
def test_what_a_killed_run_left_is_no_model_and_the_next_run_clears_it(own_home: Path, moment: str) -> None:
    folder = models_home() / "film"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text("old")
    command = [sys.executable, "-c", KILLED, str(folder), moment]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    left = [path for path in folder.parent.iterdir() if path != folder]
    assert left and all(path.name.startswith(".") for path in left)
    assert folder.exists() == (moment == "making"), "between two renamings only may the name be free"
    assert not {path.name for path in left} & set(known_cards())
    with staged(folder, replace=True) as new:
        (new / "card.toml").write_text("new")
    assert contents(folder.parent) == {"film/card.toml": "new"} and os.listdir(folder.parent) == ["film"]


def pulled(tmp_path: Path, content: bytes) -> after_pull.Part:
    """A repository's snapshot with one pickled file, its variant's index and a configuration."""
    snapshot = tmp_path / "snapshot"
    index = '{"metadata": {}, "weight_map": {"weight": "pytorch_model.fp16-00001-of-00001.bin"}}'
    texts = {"unet/pytorch_model.bin.index.fp16.json": index, "unet/config.json": "{}"}
    for name, written in {PICKLE: content, **{name: text.encode() for name, text in texts.items()}}.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(written)
    files = [HubFile(name, 1, "0" * 40) for name in (PICKLE, *texts)]
    return Source("pipeline", "team/film", variant="fp16"), snapshot, files


@pytest.fixture
def card_file(tmp_path: Path, card: str) -> Path:
    path = tmp_path / "film.toml"
    path.write_text(card)
    return path


def test_a_converted_folder_takes_the_old_ones_place(tmp_path: Path, old: Path, card_file: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights")
    part = pulled(tmp_path, (tmp_path / "weights").read_bytes())
    make_folder(read_generator_card(card_file), card_file, [part], old)
    made = sorted(str(path.relative_to(old)) for path in old.rglob("*") if path.is_file())
    assert made == [
        "card.toml",
        "unet/config.json",
        "unet/model.fp16-00001-of-00001.safetensors",
        "unet/model.safetensors.index.fp16.json",
    ]
    assert '"weight": "model.fp16-00001-of-00001.safetensors"' in (old / made[3]).read_text()
    assert os.listdir(old.parent) == ["film"]


def test_a_conversion_that_fails_leaves_the_old_folder(tmp_path: Path, old: Path, card_file: Path) -> None:
    with pytest.raises(WeightsError):
        make_folder(read_generator_card(card_file), card_file, [pulled(tmp_path, b"no pickle")], old)
    assert contents(old.parent) == {"film/old": "old"}


def test_another_run_beside_it_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model is converted inside of the staged folder, which stays locked until it has its name."""
    home = tmp_path / "models"
    copyfile, others = shutil.copyfile, []

    def while_another_runs(source: Path, target: Path) -> None:
        with staged(home / f"other-{len(others)}") as other:
            others.append(other)
        copyfile(source, target)

    monkeypatch.setattr(after_pull.shutil, "copyfile", while_another_runs)
    card_file = tmp_path / "owl.toml"
    card = Card(name="owl", summary="for a test", licence="CC0-1.0")
    card_file.write_text(render_card(card))
    source = Source("model", "team/owl", format="mplug-owl-video")
    make_folder(card, card_file, [(source, OWL, [])], home / "owl")
    assert others and not any(path.name.startswith(".") for path in home.iterdir())
    assert {path.name for path in (home / "owl").iterdir()} == {
        "abstractor.safetensors",
        "card.toml",
        "language",
        "vision",
    }
