"""The names of clips: made of the prompt, safe on every system, and free."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt4video_cli.gallery.clip_name import MOST_BYTES, default_name
from tests.gallery.clips import ENDINGS

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
NASTY = st.sampled_from(
    ["../", "..", "/", "\\", "\0", "\n", "\x1b[2J", "-rf", "--force", ".hidden", "~", "$HOME", "`id`", "*", "?", '"']
    + ["con", "NUL", "com¹", "lpt1.mp4", "a red circle", " ", "\u202e", "\ud800", "İ", "ﷺ", "e\u0301", "\u0301", "ß"]
    + ["中文", "จิต", "🎬", "CLIP:", "<video>", "a" * 300, "é" * 200, "\u0345\u0345", ".", "｡／．"]
)
PROMPTS = st.lists(NASTY | st.text(max_size=20), max_size=30).map(" ".join) | st.text(max_size=4000)


@pytest.fixture(scope="module")
def names_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(max_examples=500, deadline=None)
@given(prompt=PROMPTS | NASTY, seed=st.integers(0, 2**64 - 1), ending=st.sampled_from(ENDINGS))
@example(prompt="x " * 2000, seed=0, ending=".mp4")
def test_names_are_safe_whatever_the_prompt_says(names_folder: Path, prompt: str, seed: int, ending: str) -> None:
    path = default_name(prompt, seed, names_folder, ending)
    name = path.name
    assert path.parent == names_folder
    assert re.fullmatch(rf"\w[\w\u0300-\U0001ffff-]*-{seed}{re.escape(ending)}", name)
    assert not re.search(r"[\s/\\.:*?\"<>|\x00-\x1f\x7f-\x9f\u200e-\u202e\u2066-\u2069]", name.removesuffix(ending))
    assert len(name.encode("utf-8")) <= MOST_BYTES + 1 + 20 + 5
    assert not RESERVED.match(name)
    assert name.lower() == name
    assert default_name(prompt, seed, names_folder, ending) == path


@settings(max_examples=60, deadline=None)
@given(prompt=PROMPTS)
def test_a_name_can_be_made(names_folder: Path, prompt: str) -> None:
    first = default_name(prompt, 1, names_folder)
    first.touch(exist_ok=False)
    second = default_name(prompt, 1, names_folder)
    assert second != first and not second.exists()
    first.unlink()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, moving left!", "a-red-circle-moving-left-7.mp4"),
        ("one two three four five six seven", "one-two-three-four-five-six-7.mp4"),
        ("", "clip-7.mp4"),
        ("../../etc/passwd", "etc-passwd-7.mp4"),
        ("ＣＯＭ¹", "com1-7.mp4"),
        ("Ein Café in Zürich", "ein-café-in-zürich-7.mp4"),
        ("猫が走る", "猫が走る-7.mp4"),
        ("a" * 100, "a" * 48 + "-7.mp4"),
        ("short " + "é" * 100, "short-7.mp4"),
        ("\u0301 \u0301x", "x-7.mp4"),
    ],
)
def test_examples_of_names(tmp_path: Path, prompt: str, name: str) -> None:
    assert default_name(prompt, 7, tmp_path).name == name


def test_a_side_car_takes_a_name_too(tmp_path: Path) -> None:
    (tmp_path / "cat-7.json").touch()
    os.symlink("nowhere", tmp_path / "cat-7-2.mp4")
    assert default_name("cat", 7, tmp_path).name == "cat-7-3.mp4"
    assert default_name("cat", 7, tmp_path, "").name == "cat-7-2"
