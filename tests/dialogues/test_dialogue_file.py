"""The training data format: written and read again, every way a line can be wrong, and what is wrong with dialogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.data.dialogue_file import (
    DataClip,
    DataDialogue,
    DataTurn,
    as_json,
    read_dialogues,
    read_lines,
    write_dialogues,
)
from gpt4video_cli.data.faults import faults
from gpt4video_cli.errors import InputError

GOOD: dict[str, Any] = {
    "schema": 1,
    "id": "a",
    "clips": [{"path": "a.mp4", "start": 1.0}, {"description": "A star spins."}],
    "turns": [
        {"user": "What moves?", "assistant": "A star.", "clips": [0]},
        {"user": "And here?", "assistant": "Here: <video>a blue star</video>", "clips": [1]},
    ],
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    dialogue = DataDialogue(
        "ä-1",
        (DataTurn("What?\nNow", "A <video>star</video>.", (0,)), DataTurn("", "Yes")),
        (DataClip("clips/1.mp4", None, 0.5, 2.0), DataClip(description="a star")),
        "shapeworld",
        "CC0",
    )
    path = tmp_path / "a.jsonl"
    assert write_dialogues(path, [dialogue, dialogue]) == 2
    assert list(read_dialogues(path)) == [dialogue, dialogue]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts, texts, texts)
def test_any_text_survives(identifier: str, user: str, answer: str) -> None:
    dialogue = DataDialogue(identifier, (DataTurn(user, answer),))
    line = as_json(dialogue)
    assert "\n" not in line
    from gpt4video_cli.data.dialogue_file import _line

    assert _line(Path("x"), 1, line.encode()).dialogue == (
        dialogue if identifier else None
    )  # an empty id is left out, and missed


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "no schema"),
        ('{"id": "a", "turns": []}', "no schema"),
        (json.dumps({**GOOD, "schema": 2}), "schema 2; this program reads 1"),
        (json.dumps({**GOOD, "colour": 1}), "colour"),
        (json.dumps({**GOOD, "turns": [{"user": "a"}]}), "assistant"),
        (json.dumps({**GOOD, "id": 5}), "id"),
        (json.dumps({**GOOD, "clips": [{"start": "1"}]}), "start"),
        ('{"schema": 1, "id": "a", "id": "b", "turns": []}', "given twice"),
        ("\xff\xfe", "UTF-8"),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"\n" + line.encode("latin-1") + b"\n" + json.dumps(GOOD).encode() + b"\n")
    bad, good = read_lines(path)
    assert bad.dialogue is None and reason in bad.error and bad.place == f"{path}:2"
    assert good.dialogue is not None and good.number == 3
    with pytest.raises(InputError, match=r"bad\.jsonl:2: "):
        list(read_dialogues(path))


def test_a_missing_file_and_an_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="No such file"):
        list(read_lines(tmp_path / "none.jsonl"))
    monkeypatch.setattr("gpt4video_cli.data.dialogue_file.LONGEST_LINE", 100)
    (tmp_path / "long.jsonl").write_bytes(b"x" * 1000)
    (line,) = read_lines(tmp_path / "long.jsonl")
    assert "longer than" in line.error


def _changed(**changes: Any) -> DataDialogue:
    from gpt4video_cli.strict_json import from_json

    return from_json({**GOOD, **changes}, DataDialogue, "dialogue")


def test_a_good_dialogue_has_no_faults() -> None:
    assert list(faults(_changed())) == []


def _turn(user: str = "a", assistant: str = "b", clips: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"user": user, "assistant": assistant, "clips": list(clips)}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"id": " "}, "no id", "empty"),
        ({"turns": [], "clips": []}, "empty turn", "no turns"),
        ({"turns": [_turn(assistant=" ")], "clips": []}, "empty turn", "turn 1: the assistant says nothing"),
        ({"turns": [_turn(user="")], "clips": []}, "empty turn", "turn 1: the user says nothing"),
        ({"turns": [_turn(user="<video1> what?")], "clips": []}, "tag mistake", "in what the user says"),
        ({"turns": [_turn(assistant="<video>a star")], "clips": []}, "tag mistake", "turn 1"),
        ({"turns": [_turn(assistant="a </video>")], "clips": []}, "tag mistake", "turn 1"),
        ({"turns": [_turn(assistant="<video></video>")], "clips": []}, "tag mistake", "turn 1"),
        ({"turns": [_turn(clips=(0,))]}, "clip reference", "clip 1 comes with no turn"),
        ({"turns": [_turn(clips=(0, 1, 2))]}, "clip reference", "there is no clip 2"),
        ({"turns": [_turn(clips=(0, 1)), _turn(clips=(1,))]}, "clip reference", "came with turn 1 already"),
        ({"turns": [_turn(clips=(1, 0))]}, "clip reference", "order"),
        ({"clips": [{}, {"path": "b"}]}, "clip reference", "clip 0: neither a path nor a description"),
        ({"clips": [{"path": "a", "start": 2.0, "end": 1.0}, {"path": "b"}]}, "clip reference", "not after its start"),
        ({"clips": [{"path": "a", "start": -2.0}, {"path": "b"}]}, "clip reference", "negative"),
    ],
)
def test_faults_are_named(changes: dict[str, Any], kind: str, text: str) -> None:
    found = list(faults(_changed(**changes)))
    assert [fault.kind for fault in found] == [kind], found
    assert text in found[0].text
