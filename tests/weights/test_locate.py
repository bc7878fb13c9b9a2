"""Finding models: by folder, by name, in the program's own cards, and not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpt4video_cli.errors import ExitCode, WeightsError
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.card import Card, render_card
from gpt4video_cli.weights.locate import cards_folder, find_model, home, known_models, models_home

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cards of our own instead of those that ship, and an empty home."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(locate, "cards_folder", lambda: folder)
    monkeypatch.setenv("GPT4VIDEO_HOME", str(tmp_path / "home"))
    return folder


def write_card(path: Path, name: str, folder: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_card(Card(name=name, summary="", licence="", folder=folder)))


def test_a_folder_with_a_card(tmp_path: Path) -> None:
    write_card(tmp_path / "mine" / "card.toml", "any-name")
    card, folder = find_model(tmp_path / "mine")
    assert (card.name, folder) == ("any-name", tmp_path / "mine")


def test_a_shipped_card_in_a_package(cards: Path) -> None:
    write_card(cards / "demo.toml", "demo", "package:gpt4video_cli.video/")
    assert find_model("demo")[1].samefile(ROOT / "gpt4video_cli" / "video")
    write_card(cards / "demo.toml", "demo", "package:no_such_package/model")
    with pytest.raises(WeightsError, match="no_such_package"):
        find_model("demo")


def test_a_shipped_card_whose_weights_lie_at_home(cards: Path) -> None:
    write_card(cards / "big.toml", "big")
    with pytest.raises(WeightsError, match="'big'") as error:
        find_model("big")
    assert str(models_home() / "big") in str(error.value)
    (models_home() / "big").mkdir(parents=True)
    assert find_model("big")[1] == models_home() / "big"


def test_a_trained_model_is_known_by_its_name() -> None:
    write_card(models_home() / "mine" / "card.toml", "mine")
    assert find_model("mine")[1] == models_home() / "mine"
    assert set(known_models()) == {"mine"}


def test_a_folder_in_the_way_does_not_take_a_known_name(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card(cards / "demo.toml", "demo", "package:gpt4video_cli.video/")
    write_card(tmp_path / "demo" / "card.toml", "stranger")
    monkeypatch.chdir(tmp_path)
    assert find_model("demo")[0].name == "demo"
    assert find_model("./demo")[0].name == "stranger"


def test_unknown_names_get_near_ones(cards: Path, tmp_path: Path) -> None:
    write_card(cards / "bundle.toml", "bundle")
    with pytest.raises(WeightsError) as error:
        find_model("bundel")
    assert "bundel" in error.value.line() and "did you mean bundle?" in error.value.line()
    assert error.value.exit_code == ExitCode.WEIGHTS
    with pytest.raises(WeightsError) as error:
        find_model("xyz")
    assert "known models: bundle" in error.value.line()
    with pytest.raises(WeightsError, match=r"no card\.toml"):
        find_model(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="this is a file"):
        find_model(tmp_path / "file")


def test_home_moves_with_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home() == tmp_path / "home"
    monkeypatch.delenv("GPT4VIDEO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home().name == "gpt4video"


def test_shipped_cards_are_found_from_anywhere(tmp_path: Path) -> None:
    """Also where ``model_cards`` is not importable, as in a checkout that another folder's Python runs."""
    assert cards_folder().samefile(ROOT / "model_cards")
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['model_cards'] = None\n"
    program += "from gpt4video_cli.weights.locate import cards_folder; print(cards_folder())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).samefile(ROOT / "model_cards")
