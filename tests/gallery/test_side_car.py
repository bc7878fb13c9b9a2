"""A clip's description: beside the clip and inside it, the same, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpt4video_cli.errors import ExitCode, InputError, UsageError
from gpt4video_cli.gallery import container_tags, side_car
from gpt4video_cli.gallery.clip_file import side_car_path, write_clip
from gpt4video_cli.gallery.container_tags import read_tags, tags_of
from gpt4video_cli.gallery.side_car import SideCar, metadata_of, model_revision, read_side_car, write_side_car
from gpt4video_cli.video.writer import write_mp4

ENDINGS = [".mp4", ".gif", ".webm", ""]
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 1, 1, 3)).repeat(16, 1).repeat(24, 2).astype(np.uint8)
MADE = SideCar(
    prompt="a café at night, 猫が走る \n\x1b[31m \u202e 🎬",
    negative_prompt="",
    model="bundle",
    revision="sha256:" + "ab" * 32,
    seed=2**63,
    settings={"fps": 8, "guidance": 7.5, "size": [64, 48], "scheduler": None, "slicing": True, "extra": {"a": "ü"}},
    sample=2,
    verdicts=({"subject": "generation prompt", "outcome": "not screened"},),
)


def made_clip(folder: Path, ending: str, description: SideCar = MADE) -> Path:
    return write_clip(folder / f"a{ending}", FRAMES, 8, metadata=metadata_of(description))


@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trips(tmp_path: Path, ending: str) -> None:
    clip = made_clip(tmp_path, ending)
    assert read_side_car(clip) == MADE  # from the clip's own file
    path = write_side_car(clip, MADE)
    assert path == side_car_path(clip) and path.is_file()
    assert read_side_car(path) == read_side_car(clip) == MADE
    write_side_car(clip, replace(MADE, sample=3), force=True)
    assert read_side_car(path).sample == 3
    assert sorted(os.listdir(tmp_path)) == sorted({clip.name, *([path.name] if ending else [])})


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_longest_prompt(tmp_path: Path, ending: str) -> None:
    description = replace(MADE, prompt="é🎬" * 2000, settings={"notes": ["x" * 1000] * 20})
    assert read_side_car(made_clip(tmp_path, ending, description)) == description


def test_a_side_car_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.json: exists"):
        write_side_car(tmp_path / "a.mp4", MADE)
    assert (tmp_path / "a.json").read_text() == "mine" and os.listdir(tmp_path) == ["a.json"]


def test_metadata_is_harmless_and_readable() -> None:
    metadata = metadata_of(MADE)
    assert metadata["title"] == "a café at night, 猫が走る [31m 🎬"
    assert metadata["comment"] == f"made by {MADE.program} with bundle, seed {2**63}"
    assert metadata["gpt4video"].isascii() and metadata["gpt4video"].isprintable()
    assert len(metadata_of(replace(MADE, prompt="x" * 4000))["title"]) == 200


def test_what_is_filled_in() -> None:
    assert MADE.program.startswith("gpt4video ") and MADE.created.endswith("+00:00")
    assert MADE.libraries["torch"] and MADE.libraries["diffusers"]
    assert replace(MADE, prompt="a \ud800").prompt == "a ?"
    assert replace(MADE, settings={"size": (1, 2)}).settings == {"size": [1, 2]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"a": float("nan")}}, "settings.a is nan"),
        ({"settings": {"a": [Path("x")]}}, r"settings.a\[0\] is PosixPath"),
        ({"settings": {1: 2}}, "settings is"),
        ({"settings": {"a": 10**30}}, "settings.a is 1000"),
        ({"sample": 0}, "counted from 1"),
        ({"seed": -1}, "0 or more"),
        ({"created": "2026-01-01"}, "no time zone"),
        ({"created": "yesterday"}, "isoformat"),
        ({"verdicts": ("allowed",)}, "objects"),
        ({"libraries": {"torch": 2}}, "versions as text"),
    ],
)
def test_what_cannot_be_said_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(MADE, **change)


# --- files of strangers ------------------------------------------------------------------------------------------


def set_to(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(name, value)


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__delitem__(name)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_to("format", "gpt4video session"), "not the description of a clip"),
        (without("format"), "not the description of a clip"),
        (set_to("version", 2), "version 2 of the format; this program reads 1"),
        (set_to("version", "1"), "version '1'"),
        (set_to("run", "rm"), "unknown field 'run'"),
        (without("prompt"), "no field 'prompt'"),
        (without("created"), "no field 'created'"),
        (without("settings"), "clip.settings is not a valid dict"),
        (set_to("settings", []), "clip.settings is not a valid dict"),
        (set_to("settings", {"a": deep(40)}), "nested too deeply"),
        (set_to("settings", {"a": 10**30}), "settings.a"),
        (set_to("verdicts", {}), "clip.verdicts is not a valid list"),
        (set_to("verdicts", [1]), "verdicts must be objects"),
        (set_to("libraries", {"a": 1}), "versions as text"),
        (set_to("seed", 1.5), "clip.seed is not a valid int"),
        (set_to("seed", True), "clip.seed is not a valid int"),
        (set_to("seed", -1), "0 or more"),
        (set_to("sample", 0), "counted from 1"),
        (set_to("prompt", None), "clip.prompt is not a valid str"),
        (set_to("prompt", "\ud800"), "not Unicode"),
        (set_to("settings", {"\ud800": 1}), "not Unicode"),
        (set_to("created", "now"), "isoformat"),
    ],
)
def test_a_changed_file_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str) -> None:
    content = json.loads(json.dumps(MADE.as_dict()))
    change(content)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_side_car(path)
    assert reason in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in caught.value.line() and caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "not the description"),
        (b"\x80", "not a text file"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": "gpt4video clip", "version": 1, "seed": 1e999}', "clip.settings"),
        (b'{"format": "gpt4video clip", "version": 1, "version": 1}', "given twice"),
        (b" " * (side_car.MAX_BYTES + 1), "too large"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_side_car(path)


def test_an_infinite_number(tmp_path: Path) -> None:
    path = write_side_car(tmp_path / "a.mp4", MADE)
    path.write_text(path.read_text().replace("7.5", "1e999"))
    with pytest.raises(InputError, match=r"settings\.guidance is inf"):
        read_side_car(path)


WHOLE = json.dumps(MADE.as_dict()).encode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_damage_does_harm(data: st.DataObject) -> None:
    """Whatever is done to a file, it is read as a description or refused with one line."""
    if data.draw(st.booleans()):
        content = bytearray(WHOLE)
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(content)))
            end = data.draw(st.integers(start, min(len(content), start + 40)))
            content[start:end] = data.draw(st.binary(max_size=12))
    else:
        value = json.loads(WHOLE)
        value[data.draw(st.sampled_from([*value, "other"]))] = data.draw(JSON)
        content = bytearray(json.dumps(value).encode())
    try:
        read = side_car._parsed(Path("a.json"), bytes(content))
    except InputError as error:
        assert "\n" not in error.line() and error.line().startswith("a.json: ")
    else:
        assert SideCar(**{name: getattr(read, name) for name in read.__dataclass_fields__}) == read
        metadata_of(read)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "text.mp4").write_text("hello, this is text\n")
    write_mp4(tmp_path / "bare.mp4", FRAMES, 8)
    write_mp4(tmp_path / "other.mp4", FRAMES, 8, metadata={"gpt4video": "yes"})
    write_mp4(tmp_path / "told.mp4", FRAMES, 8)
    write_side_car(tmp_path / "told.mp4", MADE)
    for name, reason in {
        "none.json": "No such file",
        "none.mp4": "no such file",
        "pipe.json": "is not a file",
        "folder.json": "no such file",  # an empty folder of frames
        "text.mp4": "is none of mp4, WebM, GIF and PNG",
        "bare.mp4": "does not say how it was made; only clips that this program made",
        "other.mp4": "not JSON",
        "told.mp4": "does not say how it was made; .*told.json may say it",
        "\0.json": "cannot be read",
        "x" * 300 + ".json": "File name too long",
        "\0.mp4": "cannot be opened",
    }.items():
        with pytest.raises(InputError) as caught:
            read_side_car(f"{tmp_path}/{name}")
        assert re.search(reason, caught.value.line()) and "\n" not in caught.value.line()


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webm", ".png"])
def test_damaged_clips(tmp_path: Path, ending: str) -> None:
    clip = made_clip(tmp_path, "" if ending == ".png" else ending)
    content = (clip / "frame_0001.png" if ending == ".png" else clip).read_bytes()
    damaged = tmp_path / f"damaged{ending}"
    rng = np.random.default_rng(0)
    for size in range(20, len(content), len(content) // 12):
        cut = bytearray(content[:size])
        torn = bytearray(content)
        for at in rng.integers(12, len(content), 6):
            torn[at] = rng.integers(0, 256)
        for changed in (cut, torn):
            damaged.write_bytes(changed)
            try:  # in this process, because a child takes 0.3 s for each
                tags = tags_of(str(damaged))
            except InputError as error:
                assert str(damaged) in error.line() and "\n" not in error.line()
            else:
                assert all(isinstance(text, str) for text in tags.values())


def test_a_reader_that_hangs_or_crashes_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = made_clip(tmp_path, ".mp4")
    for code, reason in (("import time; time.sleep(60)", "did not end within 1 s"), ("import os; os.abort()", "crash")):
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(InputError, match=reason):
            read_tags(clip, time_limit=1)


def test_too_much_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clip = made_clip(tmp_path, ".gif")
    monkeypatch.setattr(container_tags, "MAX_CHARACTERS", 10)
    monkeypatch.setattr("sys.argv", ["", str(clip)])
    container_tags.main()
    assert "more text" in json.loads(capsys.readouterr().out)["error"]


def test_revisions(tmp_path: Path) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    assert model_revision(tmp_path / "snapshots" / commit) == commit
    folder = tmp_path / "model"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae" / "x.safetensors").write_bytes(b"abc")
    first = model_revision(folder)
    assert first.startswith("sha256:") and model_revision(str(folder)) == first
    (folder / "vae" / "x.safetensors").write_bytes(b"abd")  # the same size
    assert model_revision(folder) != first


SETTINGS = st.dictionaries(st.text(max_size=8), JSON.filter(lambda value: "NaN" not in json.dumps(value)), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(max_size=200), chosen=SETTINGS, seed=st.integers(0, 2**64))
@example(prompt="\0\r\n\x85\u2028", chosen={"": ""}, seed=0)
def test_any_description_comes_back_from_the_file_and_from_the_clip(
    tmp_path: Path, prompt: str, chosen: dict[str, Any], seed: int
) -> None:
    try:
        description = replace(MADE, prompt=prompt, settings=chosen, seed=seed)
    except ValueError:
        return  # infinities, integers of 30 digits
    path = write_side_car(tmp_path / "a.gif", description, force=True)
    assert read_side_car(path) == description
    for ending in (".gif", ".mp4"):
        clip = write_clip(tmp_path / f"a{ending}", FRAMES, 8, metadata=metadata_of(description), force=True)
        content = {name.lower(): text for name, text in tags_of(str(clip)).items()}["gpt4video"]
        assert side_car._parsed(clip, content.encode()) == description
