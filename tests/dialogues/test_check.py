"""``gpt4video data check``: every kind of mistake is found in real files with real clips, and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.data.check import KINDS, Checker
from gpt4video_cli.data.dialogue_file import DataClip, DataDialogue, DataTurn, as_json, write_dialogues
from gpt4video_cli.data.layout import Layout
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.video.writer import write_mp4


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name, shade in (("a", 30), ("b", 200)):
        write_mp4(tmp_path / f"{name}.mp4", np.full((8, 32, 32, 3), shade, np.uint8), 4)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "text.mp4").write_text("no video")
    return tmp_path


def one(identifier: str, clip: str | None = None, answer: str = "A star.", user: str = "What?") -> DataDialogue:
    shown = (DataClip(clip),) if clip else ()
    return DataDialogue(identifier, (DataTurn(user, answer, (0,) if clip else ()),), shown, "test", "CC0")


def test_each_kind_of_mistake_is_found(clips: Path, random_length_model: Path) -> None:
    lines = [
        as_json(one("good", "a.mp4")),
        "{",
        as_json(one(" ")),
        as_json(one("empty", answer=" ")),
        as_json(one("tag", answer="<video>a")),
        as_json(DataDialogue("reference", (DataTurn("a", "reference"),), (DataClip("a.mp4"),))),
        as_json(one("missing", "none.mp4")),
        as_json(one("undecodable", "text.mp4")),
        as_json(one("good", "b.mp4", "twice the id")),
        as_json(one("again", "a.mp4")),
        as_json(one("long", answer="word " * 3000)),
        as_json(one("leak", "copy.mp4", "of a clip")),
        as_json(one("leaked words", answer="These words are tested.")),
    ]
    (clips / "train.jsonl").write_text("\n".join(lines) + "\n")
    write_dialogues(clips / "test.jsonl", [one("t", "b.mp4"), one("u", answer="These words are tested.")])
    (clips / "test").mkdir()
    (clips / "test" / "held.mp4").write_bytes((clips / "a.mp4").read_bytes())
    write_dialogues(clips / "test" / "more.jsonl", [one("v", "held.mp4", "held out")])

    checker = Checker(layout=Layout(str(random_length_model)))
    checker.remember_test([clips / "test.jsonl", clips / "test" / "more.jsonl"])
    report = checker.check([clips / "train.jsonl"])
    found = {kind: [int(place.rpartition(":")[2]) for place, _ in report.found[kind]] for kind in report.found}
    assert found == {
        "not a dialogue": [2],
        "no id": [3],
        "empty turn": [4],
        "tag mistake": [5],
        "clip reference": [6],
        "missing clip": [7],
        "undecodable clip": [8],
        "duplicate id": [9],
        "duplicate dialogue": [10],
        "too long": [11],
        # Line 1, 6, 9, 10 and 12 show a clip of the test files, line 13 says what they say.
        "leak": [1, 6, 9, 10, 12, 13],
    }
    assert set(found) == set(KINDS)
    assert report.dialogues == 12 and report.clips == 7
    assert "none.mp4: no such file" in report.found["missing clip"][0][1]
    assert "text.mp4" in report.found["undecodable clip"][0][1]
    assert json.loads(json.dumps(report.as_dict()))["unfit"] == 13


@pytest.fixture(scope="module")
def random_length_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gpt4video_cli.model.random_model import write_random_model

    return write_random_model(tmp_path_factory.mktemp("model") / "random", context_length=2048)


def test_lengths_are_those_of_the_prompt_that_a_chat_sends(random_length_model: Path, clips: Path) -> None:
    from gpt4video_cli.assistant import Assistant, ClipRequest, Message
    from gpt4video_cli.events import Done

    dialogue = one("a", str(clips / "a.mp4"), user="What moves?")
    with Assistant.open(str(random_length_model)) as assistant:
        message = Message("What moves?", (ClipRequest(str(clips / "a.mp4")),))
        (done,) = [e for e in assistant.reply(assistant.new_session(), message) if isinstance(e, Done)]
    layout = Layout(str(random_length_model))
    bare = len(layout.sample(DataDialogue("a", (DataTurn("What moves?", "", (0,)),), dialogue.clips)).ids)
    end = 1  # the end token of the answer
    assert bare == done.prompt_tokens + end
    assert len(layout.sample(dialogue).ids) > bare
    described = DataDialogue("b", dialogue.turns, (DataClip(description="a star"),))
    assert len(layout.sample(described).ids) < len(layout.sample(dialogue).ids) + 10


def test_the_command_says_what_is_wrong_and_where(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = clips / "train.jsonl"
    write_dialogues(path, [one("a", "a.mp4"), one("b", "b.mp4", "Here: <video>a star</video>")])
    assert run(["data", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.splitlines() == [
        "2 dialogues with 2 turns, 2 clips and 1 prompts",
        "sources: test 2",
        "licences: CC0 2",
        "nothing is wrong",
    ]
    write_dialogues(path, [one(f"a{i}", "none.mp4", f"answer {i}") for i in range(8)])
    assert run(["data", "check", str(path), "--no-decode"]) == ExitCode.INPUT
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "missing clip: 8 (clip files that are not there)"
    assert lines[4] == f"- {path}:1: {clips / 'none.mp4'}: no such file"
    assert lines[-2:] == ["- and 3 more; --all names them", "0 fit for training, 8 not"]
    assert run(["data", "check", str(path), "--no-decode", "--all", "--json"]) == ExitCode.INPUT
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(report["found"]["missing clip"]) == 8


def test_an_empty_file_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    assert run(["data", "check", str(tmp_path / "empty.jsonl")]) == ExitCode.INPUT
    assert capsys.readouterr().err.endswith("empty.jsonl: no dialogues\n")
    assert run(["data", "check", str(tmp_path / "none.jsonl")]) == ExitCode.INPUT
    assert "none.jsonl: cannot be read: No such file or directory" in capsys.readouterr().err
