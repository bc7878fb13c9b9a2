"""Cards: strict reading, and writing that reads back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.errors import ExitCode, WeightsError
from gpt4video_cli.weights.card import Card, parse_card, read_card, render_card
from gpt4video_cli.weights.locate import cards_folder

TEXT = """\
schema = 1
name = "tiny"
summary = "A tiny model"
licence = "Apache-2.0"
folder = "package:some.where/model"
limits = ["no sound", "no text"]
[prompt]
template = "paper"
[sampling]
frames = 8
mode = "keyframe"
[vision]
final_norm = true
[generation]
temperature = 1
top_p = 0.9
max_tokens = 64
[measured]
overall = 0.93
[measured."by kind"]
colour = 1.0
clips = 500
"""


def test_reads_every_field(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(TEXT)
    card = read_card(tmp_path / "card.toml")
    assert card == Card(
        name="tiny",
        summary="A tiny model",
        licence="Apache-2.0",
        folder="package:some.where/model",
        limits=("no sound", "no text"),
        template="paper",
        frames=8,
        mode="keyframe",
        final_norm=True,
        temperature=1.0,
        top_p=0.9,
        max_tokens=64,
        measured={"overall": 0.93, "by kind": {"colour": 1.0, "clips": 500}},
    )
    assert isinstance(card.temperature, float)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1\n", "", "schema is missing"),
        ("schema = 1", "schema = 2", "schema is 2"),
        ('name = "tiny"\n', "", "name is missing"),
        ('name = "tiny"', 'name = "../tiny"', "name '../tiny'"),
        ('template = "paper"', "", "prompt.template is missing"),
        ("final_norm = true", "", "vision.final_norm is missing"),
        ("final_norm = true", "final_norm = 1", "vision.final_norm must be of type bool"),
        ("frames = 8", "frames = true", "sampling.frames must be of type int"),
        ("frames = 8", "frames = 0", "sampling.frames must be 1 or more"),
        ("frames = 8", "frames = 8\nfps = 2", "unknown key sampling.fps"),
        ('mode = "keyframe"', 'mode = "fast"', "sampling.mode is 'fast'"),
        ("top_p = 0.9", "top_p = 1.5", "generation.top_p"),
        ("temperature = 1", "temperature = nan", "generation.temperature"),
        ('licence = "Apache-2.0"', 'license = "Apache-2.0"', "licence is missing"),
        ('folder = "', 'colour = "red"\nfolder = "', "unknown key colour"),
        ("overall = 0.93", 'overall = "good"', "measured.overall must be a number"),
        ("colour = 1.0", "colour = true", "measured.by kind.colour must be a number"),
        ('"no text"]', "3]", "limits must be a list of strings"),
        ("[prompt]", "[prompt", "not valid TOML"),
    ],
)
def test_wrong_cards_name_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "card.toml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(WeightsError) as error:
        read_card(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert error.value.exit_code == ExitCode.WEIGHTS


def test_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.toml: card is missing"):
        read_card(tmp_path / "nothing.toml")


_LINES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1)
_TABLES = st.dictionaries(_LINES, _NUMBERS | st.dictionaries(_LINES, _NUMBERS, min_size=1, max_size=3), max_size=4)


@given(
    card=st.builds(
        Card,
        name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
        summary=_LINES,
        licence=_LINES,
        folder=st.none() | _LINES.filter(bool),
        template=_LINES,
        frames=st.integers(1, 99),
        mode=st.sampled_from(["exact", "keyframe"]),
        final_norm=st.booleans(),
        temperature=st.floats(0, 9),
        top_p=st.floats(0.01, 1),
        max_tokens=st.integers(1, 9999),
        made_from=_LINES,
        citation=_LINES,
        limits=st.lists(_LINES, max_size=3).map(tuple),
        measured=_TABLES,
    )
)
def test_what_is_written_reads_back(card: Card) -> None:
    assert parse_card(render_card(card)) == card


@pytest.mark.parametrize("name", ["bundle", "gpt4video-7b", "gpt4video-7b-assembly"])
def test_shipped_assistants_have_whole_cards(name: str) -> None:
    from gpt4video_cli.model.prompt import find_template
    from gpt4video_cli.weights.convert import FORMATS

    card = read_card(cards_folder() / f"{name}.toml")
    assert card.name == name and card.licence and card.citation and card.limits and card.made_from
    assert find_template(card.template).name == card.template
    assert bool(card.parts) != bool(card.folder)
    assert {part.format for part in card.parts.values()} <= set(FORMATS)
    assert parse_card(render_card(card)) == card


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[parts.model]\nformat = 'hf-clip'", "parts.model.repository is missing"),
        ("[parts.model]\nrepository = 'a/b'", "parts.model.format is missing"),
        ("[parts.model]\nrepository = 'a'\nformat = 'hf-clip'", "parts.model.repository is 'a'"),
        ("[parts.model]\nrepository = 'a/b'\nformat = 'hf-clip'\nsize = 3", "unknown key parts.model.size"),
        ("[parts]\nmodel = 1", "parts must be a table of tables"),
        ("[parts.model]\nrepository = 'a/b'\nformat = 'hf-clip'\nfiles = 'x'", "parts.model.files must be a list"),
    ],
)
def test_parts_are_read_strictly(table: str, told: str) -> None:
    text = render_card(Card(name="m", summary="s", licence="l"))
    with pytest.raises(WeightsError, match=re.escape(told)):
        parse_card(f"{text}\n{table}\n")
