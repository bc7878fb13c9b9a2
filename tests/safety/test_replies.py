"""A conversation under guard: what is refused reaches neither the model nor its memory, and the session goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message, Session
from gpt4video_cli.events import Done, Event, GenerationPrompt, Refusal, Screened, TextDelta
from gpt4video_cli.safety.gates import Gates
from gpt4video_cli.video.reader import FrameReader
from tests.safety.guards import Finds, Red


@pytest.fixture
def guarded(model: Any, reader: FrameReader) -> Assistant:
    gates = Gates(shipped=Finds(awful=("violence", 0.9)), frames=lambda policy: [Red()])
    return Assistant(model, reader, gates=gates)


def listen(assistant: Assistant, session: Session, text: str, *clips: Path) -> list[Event]:
    return list(assistant.reply(session, Message(text, tuple(map(ClipRequest, clips)))))


def refusal_of(events: list[Event]) -> Refusal:
    """The one refusal, after which nothing but ``Done`` comes."""
    (refusal,) = (event for event in events if isinstance(event, Refusal))
    assert events[-2] is refusal and isinstance(events[-1], Done)
    assert events[-1].finish_reason == "refused" and events[-1].timings["safety"] >= 0
    return refusal


@pytest.fixture
def written(guarded: Assistant, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the model writes, piece by piece; set it in the test. ``prompts`` that it read are in the second list."""
    pieces: list[str] = []

    def stream(engine: Any, segments: Any, options: Any, *, cache: Any, stats: Any, cancel: Any) -> Iterator[str]:
        stats.finish_reason = "stop"
        for number, piece in enumerate(pieces):
            stats.new_tokens = number + 1
            yield piece

    monkeypatch.setattr("gpt4video_cli.assistant.stream_text", stream)
    return pieces


def test_a_refused_message_is_as_if_never_sent(guarded: Assistant) -> None:
    free, session = Assistant(guarded.model, guarded.reader, gates=Gates()), Session()
    listen(guarded, session, "What moves?")
    before = [*session.turns]
    events = listen(guarded, session, "Something awful, please")
    refusal = refusal_of(events)
    assert (refusal.guard, refusal.category, refusal.subject) == ("finds", "violence", "user text")
    assert "awful" not in refusal.message and "graphic violence" in refusal.message
    assert not any(isinstance(event, TextDelta) for event in events)
    assert session.turns == before
    # The next answer is that of a conversation in which it was never said.
    other = Session()
    listen(free, other, "What moves?")
    done, expected = (listen(a, s, "And then?")[-1] for a, s in ((guarded, session), (free, other)))
    assert isinstance(done, Done) and isinstance(expected, Done)
    assert (done.answer, done.prompt_tokens) == (expected.answer, expected.prompt_tokens)


def test_retrying_what_is_refused_now_keeps_the_old_answer(guarded: Assistant) -> None:
    session = Session()
    listen(Assistant(guarded.model, guarded.reader, gates=Gates()), session, "awful")
    before = [*session.turns]
    assert refusal_of(list(guarded.retry(session))).subject == "user text"
    assert session.turns == before


def test_a_stored_conversation_is_judged_once(guarded: Assistant, tmp_path: Path) -> None:
    session = Session()
    for text in ("What moves?", "And then?"):
        listen(Assistant(guarded.model, guarded.reader, gates=Gates()), session, text)
    session.save(tmp_path / "s.json")
    loaded = Session.load(tmp_path / "s.json")
    events = listen(guarded, loaded, "Why?")
    assert sum(isinstance(event, Screened) for event in events) == 3
    assert sum(isinstance(event, Screened) for event in listen(guarded, loaded, "Why not?")) == 1
    strange = Session.load(tmp_path / "s.json")
    strange.turns[1] = replace(strange.turns[1], text="something awful")
    refusal = refusal_of(listen(guarded, strange, "Go on"))
    assert "turn 2" in refusal.message and "awful" not in refusal.message
    assert strange.undo() is not None  # and without that turn it goes on
    assert isinstance(listen(guarded, strange, "Go on")[-1], Done) and len(strange.turns) == 2


def test_a_refused_clip(guarded: Assistant, long_clip: Path, clean_clip: Path) -> None:
    session = Session()
    refusal = refusal_of(listen(guarded, session, "What moves?", clean_clip, long_clip))
    assert (refusal.subject, refusal.path) == ("user clip", str(long_clip)) and "at 60.0 s" in refusal.message
    assert session.turns == [] and session.clips == []
    assert refusal_of(listen(guarded, session, "Again?", long_clip)).path == str(long_clip)  # remembered, and no pass
    events = listen(guarded, session, "And this?", clean_clip)
    assert len(session.clips) == 1
    verdicts = [event.verdict for event in events if isinstance(event, Screened)]
    assert [(verdict.subject, verdict.outcome) for verdict in verdicts] == [
        ("user text", "allowed"),
        ("user clip", "allowed"),
    ]


def test_a_stored_conversation_with_a_refused_clip(guarded: Assistant, long_clip: Path) -> None:
    session = Session()
    listen(Assistant(guarded.model, guarded.reader, gates=Gates()), session, "What moves?", long_clip)
    refusal = refusal_of(listen(guarded, session, "And then?"))
    assert refusal.subject == "user clip" and "turn 1" in refusal.message


def test_a_refused_prompt_ends_the_answer(guarded: Assistant, written: list[str]) -> None:
    session = Session()
    written += ["Here: <video>a cat</video> and <vid", "eo>awful\nthings</video> or <video>a ", "dog</video>!"]
    events = listen(guarded, session, "Film it.")
    refusal = refusal_of(events)
    assert (refusal.subject, refusal.prompt) == ("generation prompt", "awful things")
    assert "awful" not in refusal.message and "awful" not in repr(refusal)
    assert [event.prompt for event in events if isinstance(event, GenerationPrompt)] == ["a cat"]
    (turn,) = session.turns
    assert (turn.prompts, turn.finish_reason, turn.ids) == (("a cat",), "refused", ())
    assert turn.written == "Here: <video>a cat</video> and " and turn.answer == "Here:  and "
    done = events[-1]
    assert isinstance(done, Done) and done.answer == turn.answer
    written[:] = ["Well."]
    assert not any(isinstance(event, Refusal) for event in listen(guarded, session, "And?"))


def test_the_last_prompt_of_an_answer_is_judged_too(guarded: Assistant, written: list[str]) -> None:
    """A prompt behind a backtick is held back until the reply is complete."""
    session = Session()
    written += ["It`s <video>awful</video>"]
    assert refusal_of(listen(guarded, session, "Film it.")).prompt == "awful"
    assert session.turns[0].written == "It`s "
