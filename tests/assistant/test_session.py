"""Conversations on disk: what is written comes back, and nothing else is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli import session as session_module
from gpt4video_cli.errors import ExitCode, Gpt4VideoError, SessionFileError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.session import ClipRequest, FilmedClip, Message, Session, SessionClip, Turn
from gpt4video_cli.used_model import UsedAdapter, UsedModel
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt


def clip(number: int, alone: bool) -> SessionClip:
    receipt = SamplingReceipt(
        path=f"clip{number}.mp4",
        sha256="ab" * 32,
        duration=2.5,
        mode="exact",
        requested=(0.1, 1.0 / 3.0),
        seen=(0.1, 0.3),
        largest_gap=2.2,
        width=64,
        height=48,
    )
    return SessionClip(number, f"/clips/clip{number}.mp4", SamplingPlan(at=(0.1, 1 / 3)), receipt, alone)


def turn(text: str, *clips: SessionClip) -> Turn:
    return Turn(
        text=text,
        clips=clips,
        answer="a cat \N{CAT} \x1b[0m",
        written="a cat \N{CAT} \x1b[0m<video>dog</video>",
        ids=(5, 6, 7),
        model="tiny",
        prompts=("dog",),
        options=SamplingOptions(temperature=0.7, seed=2**40, stop=("###",)),
        finish_reason="stop",
        used=UsedModel("/models/tiny", "torch", "cd" * 32, (UsedAdapter("adapter", 0.5, "ef" * 32),)),
        films=(FilmedClip("/films/dog-3.mp4", "01" * 32, "dog", 3, "/films/dog-3.json"),),
    )


@pytest.fixture
def talk() -> Session:
    return Session([turn("what?", clip(1, True)), turn("und?\n"), turn("both?", clip(2, False), clip(3, False))])


@pytest.fixture
def stored(talk: Session, tmp_path: Path) -> Path:
    talk.save(tmp_path / "talk.json")
    return tmp_path / "talk.json"


def test_saved_and_loaded_is_the_same(talk: Session, stored: Path) -> None:
    assert Session.load(stored) == talk


def test_saving_twice_gives_the_same_bytes(stored: Path) -> None:
    before = stored.read_bytes()
    Session.load(stored).save(stored)
    assert stored.read_bytes() == before


def test_the_runtime_is_not_stored(talk: Session, tmp_path: Path) -> None:
    talk.runtime = object()
    talk.save(tmp_path / "talk.json")
    assert Session.load(tmp_path / "talk.json").runtime is None


def test_undo_gives_the_message_back(talk: Session) -> None:
    undone = talk.undo()
    assert undone is not None
    plan = SamplingPlan(at=(0.1, 1 / 3))
    assert undone.message() == Message(
        "both?", (ClipRequest("/clips/clip2.mp4", plan), ClipRequest("/clips/clip3.mp4", plan))
    )
    assert [c.number for c in talk.clips] == [1]
    talk.reset()
    assert talk.turns == [] and talk.undo() is None


def test_times_and_title_of_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"])
    session = Session([], next(times), next(times))
    monkeypatch.setattr(session_module, "now", lambda: next(times))
    assert session.title == ""
    session.add(turn("what\n  is it?"))
    assert (session.title, session.created[:10], session.changed[:10]) == ("what is it?", "2026-01-01", "2026-01-02")


def test_films_belong_to_the_last_answer(talk: Session) -> None:
    film = FilmedClip("/films/cat-0.mp4", "02" * 32, "cat", 0)
    before = talk.turns[-1].films
    talk.add_films((film,))
    assert talk.turns[-1].films == (*before, film) and film not in talk.turns[0].films


def test_version_1_is_read_and_becomes_version_2(talk: Session, tmp_path: Path) -> None:
    """What it did not know is empty; everything else stays."""
    path = tmp_path / "old.json"
    talk.save(path)
    value = json.loads(path.read_text())
    value["version"] = 1
    for name in ("created", "changed"):
        del value[name]
    for entry in value["turns"]:
        del entry["used"], entry["films"]
    path.write_text(json.dumps(value))
    old = Session.load(path)
    assert (old.created, old.changed) == ("", "")
    assert old.turns == [replace(t, used=None, films=()) for t in talk.turns]
    old.save(path)
    assert json.loads(path.read_text())["version"] == 2 and Session.load(path) == old


def set_at(*keys: Any, to: Any) -> Callable[[Any], None]:
    """A change of the stored JSON: the value under ``keys`` becomes ``to``."""

    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return change


def drop(*keys: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for key in keys[:-1]:
            value = value[key]
        del value[keys[-1]]

    return change


CLIP = ("turns", 0, "clips", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_at("version", to=3), "version 3"),
        (set_at("version", to="2"), "version '2'"),
        (drop("version"), "version None"),
        (set_at("format", to="x"), "not a session file"),
        (set_at("extra", to=1), "unknown field 'extra'"),
        (set_at("turns", 0, "run", to="rm"), "unknown field 'run'"),
        (drop("turns", 0, "answer"), "no field 'answer'"),
        (drop("created"), "no field 'created'"),
        (set_at("created", to="yesterday"), "session.created is no time"),
        (set_at("changed", to="2026-11-22T09:15:00"), "session.changed is no time with a time zone"),
        (set_at("turns", 0, "used", to="bundle"), "session.turns[0].used is not an object"),
        (set_at("turns", 0, "used", "adapters", to=[1]), "session.turns[0].used.adapters[0] is not an object"),
        (set_at("turns", 0, "films", 0, "sha256", to=None), "films[0].sha256 is not a valid str"),
        (set_at("turns", 0, "films", 0, "prompt", to="\ud800"), "not Unicode"),
        (set_at("turns", to={}), "session.turns is not a valid list"),
        (set_at("turns", 0, "text", to=3), "session.turns[0].text is not a valid str"),
        (set_at("turns", 0, "text", to="\ud800"), "not Unicode"),
        (set_at("turns", 0, "ids", to=[1, True]), "session.turns[0].ids[1] is not a valid int"),
        (set_at("turns", 0, "ids", to=[-1]), "negative"),
        (set_at("turns", 0, "ids", to=[10**30]), "session.turns[0].ids[0] is not a valid int"),
        (set_at("turns", 0, "options", "temperature", to=-1), "temperature must be 0 or more"),
        (set_at("turns", 0, "options", "temperature", to="0"), "not a valid float"),
        (set_at(*CLIP, "number", to=2), "numbered wrongly"),
        (set_at(*CLIP, "alone", to=False), "numbered wrongly"),
        (set_at(*CLIP, "plan", "frames", to=4), "contradict"),
        (set_at(*CLIP, "plan", "mode", to="all"), "is none of exact, keyframe"),
        (set_at(*CLIP, "receipt", "seen", to=["x"]), "not a valid float"),
        (set_at(*CLIP, "receipt", to=None), "is not an object"),
    ],
)
def test_a_changed_file_is_refused(talk: Session, tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    path = tmp_path / "changed.json"
    talk.save(path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(SessionFileError) as caught:
        Session.load(path)
    assert reason in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in caught.value.line() and caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\x80\x04\x95", "not a text file"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "not a session file"),
        (b'{"format": NaN}', "NaN is not a number"),
        (b'{"format": "a", "format": "b"}', "a field is given twice"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(SessionFileError, match=reason):
        Session.load(path)


def test_every_cut_is_refused(stored: Path) -> None:
    content = stored.read_bytes()
    for size in range(0, len(content) - 1, 37):
        stored.write_bytes(content[:size])
        with pytest.raises(SessionFileError):
            Session.load(stored)


def test_missing_folder_and_large_files(tmp_path: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SessionFileError, match="No such file"):
        Session.load(tmp_path / "none.json")
    with pytest.raises(SessionFileError, match="directory"):
        Session.load(tmp_path)
    monkeypatch.setattr(session_module, "MAX_BYTES", 100)
    with pytest.raises(SessionFileError, match="too large"):
        Session.load(stored)


def test_a_failed_save_leaves_the_old_file_alone(talk: Session, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    talk.undo()
    with pytest.raises(Gpt4VideoError, match="No space left"):
        talk.save(stored)
    assert stored.read_bytes() == before
    assert [file.name for file in stored.parent.iterdir()] == [stored.name]


def test_saving_into_no_folder(talk: Session, tmp_path: Path) -> None:
    with pytest.raises(Gpt4VideoError, match="cannot be written"):
        talk.save(tmp_path / "none" / "talk.json")


def test_file_names_that_are_not_unicode_come_back(talk: Session, tmp_path: Path) -> None:
    odd = replace(talk.turns[0].clips[0], path=os.fsdecode(b"/clips/\xff.mp4"))
    session = Session([replace(talk.turns[0], clips=(odd,))])
    session.save(tmp_path / "odd.json")
    assert Session.load(tmp_path / "odd.json") == session
