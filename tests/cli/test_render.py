"""Events to text: what goes where, and in which form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.cli.render import AnswerStream, Renderer, print_json
from gpt4video_cli.events import Done, GenerationPrompt, Notice, Refusal, TextDelta


def done(answer: str, reason: str = "stop") -> Done:
    return Done(answer, 10, 0, 10, 3, reason, 0)


def test_a_request_for_a_clip_is_named_and_not_filmed(capsys: pytest.CaptureFixture[str]) -> None:
    renderer = Renderer()
    renderer.show([TextDelta("Here "), GenerationPrompt("a \x1b[2Jdog", 1), TextDelta("it is."), done("Here it is.")])
    out, err = capsys.readouterr()
    assert out == "Here it is.\n"
    assert err == 'clip asked for: "a dog"\n'
    assert renderer.prompts == ["a \x1b[2Jdog"]


def test_a_refusal_is_said_even_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Renderer(quiet=True).show([Notice("hidden"), Refusal("text", "violence", "no"), done("")])
    out, err = capsys.readouterr()
    assert (out, err) == ("", "refused (text, violence): no\n")


@pytest.mark.parametrize(
    ("reason", "part"), [("length", "cut at 3 tokens"), ("context", "context is full"), ("cancelled", "(stopped)")]
)
def test_it_says_why_an_answer_ended_early(reason: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    Renderer().show([TextDelta("x"), done("x", reason)])
    assert part in capsys.readouterr().err


def test_a_broken_answer_still_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def events():  # type: ignore[no-untyped-def]
        yield TextDelta("half an ans")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Renderer().show(events())
    assert capsys.readouterr().out == "half an ans\n"


@given(st.lists(st.text(st.sampled_from("ab \n\x1b[m"), max_size=5), max_size=10))
def test_streamed_text_is_the_whole_text_stripped(pieces: list[str]) -> None:
    import io

    from gpt4video_cli.cli.terminal import clean

    stream = io.StringIO()
    answer = AnswerStream(stream)
    for piece in pieces:
        answer.write(piece)
    answer.end_line()
    whole = clean("".join(pieces)).strip()
    assert stream.getvalue() == (whole + "\n" if whole else "")


@given(st.text())
def test_json_is_safe_and_loses_nothing(text: str) -> None:
    import contextlib
    import io
    import re

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        print_json({"x": text})
    assert json.loads(shown.getvalue()) == {"x": text}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown.getvalue())
