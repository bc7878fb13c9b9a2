"""Cards of text-to-video models: those that ship, strict reading, finding them and their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpt4video_cli.errors import ExitCode, UsageError, WeightsError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.limits import VIDEO_TO_VIDEO, complete
from gpt4video_cli.gallery.schedulers import SCHEDULERS
from gpt4video_cli.weights import locate
from gpt4video_cli.weights.find_generator import (
    DEFAULT_GENERATOR,
    find_generator,
    generator_folder,
    known_generators,
)
from gpt4video_cli.weights.generator_card import parse_generator_card, read_generator_card
from gpt4video_cli.weights.locate import cards_folder, known_models

SHIPPED = sorted(path.stem for path in cards_folder().glob("*.toml") if path.stem in known_generators())
TEXT = """\
schema = 1
kind = "generator"
name = "tiny"
summary = "A tiny model"
licence = "CC0-1.0"
repository = "some-one/tiny.model"
[pipeline]
class = "WanPipeline"
dtype = "bfloat16"
memory_gb = 8
[pipeline.dtypes]
vae = "float32"
[parts.motion_adapter]
class = "MotionAdapter"
repository = "some-one/motion"
[defaults]
width = 64
height = 48
frames = 9
fps = 8
steps = 4
guidance = 3
[rules]
frames_multiple = 4
frames_offset = 1
sizes = ["64x48"]
[call]
max_sequence_length = 16
"""


def test_the_models_of_the_field_have_cards() -> None:
    wanted = {"zeroscope-v2-576w", "zeroscope-v2-xl", "modelscope-1.7b", "text2video-zero", "animatediff"}
    wanted |= {"cogvideox-2b", "cogvideox-5b", "ltx-video", "wan2.1-1.3b", "hunyuan-video", DEFAULT_GENERATOR}
    assert wanted <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_is_read_and_its_defaults_obey_its_rules(name: str) -> None:
    """The class is one of diffusers' (``_import_structure`` knows them without importing any)."""
    import diffusers

    card = read_generator_card(known_generators()[name])
    assert card.name == name and card.summary and card.licence and card.limits
    request = complete(FilmRequest("x", video="a.mp4" if card.pipeline in VIDEO_TO_VIDEO else None), card)
    assert request.frames == card.defaults.frames and request.scheduler == card.defaults.scheduler
    assert card.pipeline in dir(diffusers)
    assert set(card.rules.schedulers) <= set(SCHEDULERS)
    assert (card.repository is None) == (name == DEFAULT_GENERATOR)


def test_assistants_do_not_see_generators() -> None:
    assert not set(known_models()) & set(SHIPPED)


def test_every_field_is_read() -> None:
    card = parse_generator_card(TEXT)
    assert (card.name, card.pipeline, card.dtype, card.memory_gb) == ("tiny", "WanPipeline", "bfloat16", 8.0)
    assert isinstance(card.memory_gb, float) and isinstance(card.defaults.guidance, float)
    assert card.dtypes == {"vae": "float32"} and card.call == {"max_sequence_length": 16}
    assert card.parts["motion_adapter"].repository == "some-one/motion"
    assert (card.rules.frames_multiple, card.rules.frames_offset, card.rules.sizes) == (4, 1, ("64x48",))
    assert card.defaults.scheduler == "default"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1\n", "", "schema is missing"),
        ("schema = 1", "schema = 9", "schema is 9"),
        ('kind = "generator"\n', "", 'kind is not "generator"'),
        ('name = "tiny"', 'name = "../tiny"', "name '../tiny'"),
        ('licence = "CC0-1.0"\n', "", "licence is missing"),
        ('class = "WanPipeline"\n', "", "pipeline.class is missing"),
        ('class = "WanPipeline"', 'class = "os.system"', "must be the name of a class"),
        ('dtype = "bfloat16"', 'dtype = "int3"', "pipeline.dtype is 'int3'"),
        ('vae = "float32"', 'vae = "x"', "pipeline.dtypes is 'x'"),
        ("memory_gb = 8", "memory = 8", "unknown key pipeline.memory"),
        ("memory_gb = 8", 'memory_gb = "8"', "pipeline.memory_gb must be of type float"),
        ("frames = 9", "frames = true", "defaults.frames must be of type int"),
        ("frames = 9\n", "", "frames"),
        ("fps = 8", "fps = 8\ncolour = 1", "unknown key defaults.colour"),
        ("frames_multiple = 4", "frames_multiple = 0", "rules.frames_multiple must be 1 or more"),
        ('sizes = ["64x48"]', 'sizes = ["64"]', "rules.sizes has '64'"),
        ('sizes = ["64x48"]', "sizes = [64]", "rules.sizes must be a list of strings"),
        ("max_sequence_length = 16", "max_sequence_length = [16]", "call.max_sequence_length must be a number"),
        ('repository = "some-one/motion"', "", "parts.motion_adapter.repository is missing"),
        ('repository = "some-one/tiny.model"', 'repository = "https://x"', "it must be OWNER/NAME"),
        ("[rules]", "[rules", "not valid TOML"),
    ],
)
def test_wrong_cards_name_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    path = tmp_path / "card.toml"
    path.write_text(TEXT.replace(old, new, 1) if old != "frames = 9\n" else TEXT.replace("frames = 9\n", ""))
    with pytest.raises(WeightsError) as error:
        read_generator_card(path)
    assert said in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["bundle-flim", "zeroscope", "wan", "cogvideo", "Hunyuan"])
def test_an_unknown_name_gets_near_ones(name: str) -> None:
    with pytest.raises(UsageError, match="neither a known name nor a folder") as error:
        find_generator(name)
    assert "did you mean" in error.value.line() and error.value.exit_code == ExitCode.USAGE


def test_folders_that_are_no_generators(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no card\.toml"):
        find_generator(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="this is a file"):
        find_generator(tmp_path / "file")
    with pytest.raises(UsageError) as error:
        find_generator("")
    assert "known generators: animatediff, " in error.value.line()


def test_what_is_not_downloaded_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("zeroscope-v2-576w", "animatediff", "wan2.1-1.3b"):
        with pytest.raises(WeightsError, match="not on this machine") as error:
            generator_folder(find_generator(name))
        assert f"gpt4video models pull {name}" in error.value.line()
        assert error.value.exit_code == ExitCode.WEIGHTS


def test_the_hubs_cache_and_the_own_folder_are_found(
    tmp_path: Path, generator_folder: object, loaded: object, own_home: Path
) -> None:
    """A model that lies beside a copy of its card, and one in the folder of converted models."""
    source: Path = generator_folder("wan")  # type: ignore[operator]
    folder = locate.models_home() / "mine"
    shutil.copytree(source, folder)
    assert known_generators()["mine"] == folder / "card.toml"
    assert "mine" not in known_models()
    from gpt4video_cli.weights.find_generator import generator_folder as locate_folder

    assert locate_folder(find_generator("mine")).path == folder
    shutil.rmtree(folder / "vae")
    with pytest.raises(WeightsError, match="vae: this part is missing"):
        locate_folder(find_generator("mine"))
    (folder / "model_index.json").write_text("{")
    with pytest.raises(WeightsError, match="cannot be read as JSON"):
        locate_folder(find_generator("mine"))
    assert json.loads((source / "model_index.json").read_text())["_class_name"] == "WanPipeline"
