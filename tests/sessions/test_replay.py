"""A conversation with the bundled model is run again: the same, unless something is not as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ClipError, ExitCode, UsageError, WeightsError
from gpt4video_cli.replay import check_same, model_of, replay
from gpt4video_cli.session import Session
from gpt4video_cli.used_model import UsedAdapter, place_of, used_model

DEMO = Path(__file__).resolve().parents[2] / "gpt4video_cli" / "bundle" / "clips" / "demo.mp4"


@pytest.fixture(scope="module")
def assistant() -> Iterator[Assistant]:
    with Assistant.open("bundle", device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def made(assistant: Assistant, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Three turns about a copy of the demonstration clip: greedy, drawn with a seed, and one that asks for a clip."""
    clip = Path(shutil.copy(DEMO, tmp_path_factory.mktemp("clips") / "demo.mp4"))
    session = assistant.new_session()
    drawn = replace(assistant.default_options(), temperature=1.5, seed=11, max_tokens=12)
    asked = [("What happens in the clip?", None), ("Tell me more.", drawn), ("Make a video of a blue star.", None)]
    for number, (text, options) in enumerate(asked):
        clips = (ClipRequest(str(clip)),) if number == 0 else ()
        for _ in assistant.reply(session, Message(text, clips), options):
            pass
    assert len(session.turns) == 3 and session.turns[2].prompts
    return session


@pytest.fixture
def talk(made: Session, tmp_path: Path) -> Session:
    """As it comes back from its file."""
    made.save(tmp_path / "talk.json")
    return Session.load(tmp_path / "talk.json")


def test_a_turn_notes_what_answered(made: Session) -> None:
    used = {turn.used for turn in made.turns}
    assert len(used) == 1
    (record,) = used
    assert record is not None and record.engine == "llama:f16" and len(record.sha256) == 64
    assert [adapter.name for adapter in record.adapters] == ["adapter"]
    assert place_of("bundle", record.folder) == "bundle"


def test_the_same_comes_out_again(assistant: Assistant, talk: Session) -> None:
    before = list(talk.turns)
    compared = list(replay(assistant, talk))
    assert [(entry.number, entry.differs) for entry in compared] == [(1, ()), (2, ()), (3, ())]
    assert [entry.again.ids for entry in compared] == [turn.ids for turn in before]
    assert talk.turns == before


def test_only_what_differs_is_told(assistant: Assistant, talk: Session) -> None:
    """A changed answer changes nothing after it that it does not belong to: each turn follows the kept ones."""
    talk.turns[2] = replace(talk.turns[2], prompts=("a red square",), answer="No.")
    assert [entry.differs for entry in replay(assistant, talk)] == [(), (), ("answer", "prompts")]
    talk.turns[1] = replace(talk.turns[1], options=replace(talk.turns[1].options, seed=13))
    assert [entry.differs for entry in replay(assistant, talk)][:2] == [(), ("answer",)]


def test_a_stopped_answer_is_compared_as_far_as_it_went(assistant: Assistant, talk: Session) -> None:
    first = talk.turns[0]
    talk.turns = [replace(first, written=first.written[:9], answer=first.answer[:9], ids=(), finish_reason="cancelled")]
    assert [entry.differs for entry in replay(assistant, talk)] == [()]
    talk.turns = [replace(talk.turns[0], written="A square", answer="A square")]
    assert [entry.differs for entry in replay(assistant, talk)] == [("answer",)]


def test_a_clip_that_is_not_what_it_was(assistant: Assistant, talk: Session, tmp_path: Path) -> None:
    clip = talk.turns[0].clips[0]
    for content, reason in ((None, "is gone"), (b"other", "is not the file")):
        path = tmp_path / f"{reason}.mp4"
        if content is not None:
            path.write_bytes(content)
        talk.turns[0] = replace(talk.turns[0], clips=(replace(clip, path=str(path)),))
        with pytest.raises(ClipError, match=reason):
            next(replay(assistant, talk))


def test_another_model_only_when_asked(assistant: Assistant, talk: Session) -> None:
    place, record = model_of(talk)
    assert place == "bundle"
    check_same(assistant, record)
    with pytest.raises(WeightsError, match="its weights differ"):
        check_same(assistant, replace(record, sha256="0" * 64))
    with pytest.raises(WeightsError, match="its weights differ"):
        check_same(assistant, replace(record, adapters=(UsedAdapter("adapter", 0.5, record.adapters[0].sha256),)))
    talk.turns[1] = replace(talk.turns[1], used=replace(record, engine="llama:q8_0"))
    with pytest.raises(UsageError, match="2 models, engines or adapters"):
        model_of(talk)
    with pytest.raises(UsageError, match="does not say which weights"):
        model_of(Session([replace(talk.turns[0], used=None)]))
    with pytest.raises(UsageError, match="empty"):
        model_of(Session())


def test_the_engine_and_the_adapters_are_asked_for_again(assistant: Assistant) -> None:
    record = used_model(assistant.model)
    assert record is not None
    assert record.engine_wish().adapters is None and record.engine_wish().name == "llama"
    half = replace(record, engine="llama:q8_0", adapters=(replace(record.adapters[0], scale=0.5),))
    assert (half.engine_wish().name, half.engine_wish().kind) == ("llama", "q8_0")
    assert [str(adapter) for adapter in half.engine_wish().adapters or ()] == ["adapter:0.5"]
    assert replace(record, adapters=()).engine_wish().adapters == ()


def test_the_command(talk: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file, as JSON, with one answer changed: exit code 1 with --check alone."""
    talk.turns = [talk.turns[0], replace(talk.turns[2], answer="No.")]
    talk.save(tmp_path / "talk.json")
    assert run(["replay", str(tmp_path / "talk.json"), "--device", "cpu", "--json", "-q"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["differing"], [row["differs"] for row in told["turns"]]) == (1, [[], ["answer"]])
    assert run(["replay", str(tmp_path / "talk.json"), "--device", "cpu", "--check"]) == ExitCode.FAILED
    shown, notes = capsys.readouterr()
    assert shown.startswith("turn 1: the same\nturn 2: answer differs\n  was: No.\n  now: ")
    assert "1 of 2 turns differ" in notes
