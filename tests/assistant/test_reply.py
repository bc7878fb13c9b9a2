"""The reply parser: what is a prompt, what is text, and that it does not matter how the stream is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt4video_cli import reply
from gpt4video_cli.events import GenerationPrompt, Notice, TextDelta
from gpt4video_cli.reply import ReplyEvent, ReplyParser


def joined(events: list[ReplyEvent]) -> list[tuple[str, str]]:
    """Events as (kind, text), neighbouring pieces of text put together."""
    result: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, TextDelta):
            if result and result[-1][0] == "text":
                result[-1] = ("text", result[-1][1] + event.text)
            else:
                result.append(("text", event.text))
        elif isinstance(event, GenerationPrompt):
            result.append(("prompt", event.prompt))
        else:
            assert isinstance(event, Notice)
            result.append(("notice", event.text))
    return result


def parse(*pieces: str) -> list[tuple[str, str]]:
    parser = ReplyParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return joined(events + parser.finish())


def text(value: str) -> tuple[str, str]:
    return "text", value


def prompt(value: str) -> tuple[str, str]:
    return "prompt", value


def notice(value: str) -> tuple[str, str]:
    return "notice", value


LONG = "x" * reply.MAX_PROMPT_CHARS

CASES = {
    "no tag": ("A cat. 1 < 2 > 0.", [text("A cat. 1 < 2 > 0.")]),
    "one prompt": ("Sure: <video>a red circle</video> done", [text("Sure: "), prompt("a red circle"), text(" done")]),
    "several": ("<video>a</video>, <video>b</video>", [prompt("a"), text(", "), prompt("b")]),
    "space is normalised": ("<video>\n a  red\tcircle </video>", [prompt("a red circle")]),
    "code marks inside a prompt": ("<video>a `b` c</video>", [prompt("a `b` c")]),
    "references to clips are text": (
        "In <video1> x</video1> and <video2>",
        [text("In <video1> x</video1> and <video2>")],
    ),
    "other spellings are text": ("<Video>a</Video> < video>", [text("<Video>a</Video> < video>")]),
    "empty": ("a <video>  \n</video> b", [text("a "), notice(reply.EMPTY), text(" b")]),
    "never closed": ("a <video>b c", [text("a "), notice(reply.NOT_CLOSED), text("<video>b c")]),
    "never opened": ("a</video>b", [text("a</video>"), notice(reply.NOT_OPENED), text("b")]),
    "nested": (
        "<video>a <video>b</video> c</video>",
        [notice(reply.NESTED), text("<video>a "), prompt("b"), text(" c</video>"), notice(reply.NOT_OPENED)],
    ),
    "cut in the closing tag": ("<video>a</vide", [notice(reply.NOT_CLOSED), text("<video>a</vide")]),
    "cut in the opening tag": ("a<vide", [text("a<vide")]),
    "longest prompt": (f"<video>{LONG}</video>", [prompt(LONG)]),
    "too long": (
        f"<video>{LONG}x</video>",
        [notice(reply.TOO_LONG), text(f"<video>{LONG}x</video>"), notice(reply.NOT_OPENED)],
    ),
    "code span": ("Write `<video>a</video>` so.", [text("Write `<video>a</video>` so.")]),
    "code span of two": ("``<video>`</video>``", [text("``<video>`</video>``")]),
    "behind a code span": ("`a` <video>b</video>", [text("`a` "), prompt("b")]),
    "backtick that opens nothing": ("5` <video>a</video>", [text("5` "), prompt("a")]),
    "that and a paragraph more": ("5` <video>a</video>\n\n`", [text("5` "), prompt("a"), text("\n\n`")]),
    "that and a fence": ("5` <video>a</video>\n```\n`\n```", [text("5` "), prompt("a"), text("\n```\n`\n```")]),
    "stray closing tag behind a backtick": (
        "5` </video> b\n\n",
        [text("5` </video>"), notice(reply.NOT_OPENED), text(" b\n\n")],
    ),
    "escaped backtick": (r"\`<video>a</video>\`", [text(r"\`"), prompt("a"), text(r"\`")]),
    "escaped backslash": (r"\\`<video>a</video>`", [text(r"\\`<video>a</video>`")]),
    "code block": (
        "```xml\n<video>a</video>\n```\n<video>b</video>",
        [text("```xml\n<video>a</video>\n```\n"), prompt("b")],
    ),
    "code block of tildes": (
        "~~~\n<video>a</video>\n~~~~\n<video>b</video>",
        [text("~~~\n<video>a</video>\n~~~~\n"), prompt("b")],
    ),
    "longer fence holds a shorter one": (
        "````\n```\n<video>a</video>\n````",
        [text("````\n```\n<video>a</video>\n````")],
    ),
    "fence that is none": ("a ``` <video>b</video>", [text("a ``` "), prompt("b")]),
    "code span that starts like a fence": (
        "```<video>a</video>``` <video>b</video>",
        [text("```<video>a</video>``` "), prompt("b")],
    ),
    "code block never closed": (
        "```\n<video>a</video>",
        [text("```\n<video>a</video>"), notice(reply.IN_OPEN_BLOCK)],
    ),
    "code span behind an open tag": (
        "<video>use `<video>a</video>` so",
        [notice(reply.NESTED), text("<video>use `<video>a</video>` so")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_a_prompt(name: str) -> None:
    whole, expected = CASES[name]
    assert parse(whole) == expected


@pytest.mark.parametrize("name", CASES)
def test_letter_by_letter_gives_the_same(name: str) -> None:
    whole, expected = CASES[name]
    assert parse(*whole) == expected


PARTS = st.sampled_from(
    ["<video>", "</video>", "<", "</", "video>", "<vid", "eo>", "`", "``", "```", "~~~", "\n", "\n\n", " ", "   ", "\\"]
    + ["a", "word ", "é", "<video1>", ">", "\r\n", "\x1b[0m"]
)
REPLIES = st.lists(PARTS, max_size=40).map("".join) | st.text(max_size=60)


@settings(max_examples=400, deadline=None)
@given(REPLIES, st.data())
@example("`</video>\n\n", None)
def test_any_split_gives_the_same_events(whole: str, data: st.DataObject | None) -> None:
    cuts: list[int] = []
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    once = parse(whole)
    assert parse(*pieces) == once
    assert parse(*whole) == once


@settings(max_examples=300, deadline=None)
@given(REPLIES)
def test_nothing_is_lost(whole: str) -> None:
    """What is shown, with the tags of the prompts put back, is what was written (space inside tags aside)."""
    shown = "".join(
        {"text": value, "prompt": f"<video>{value}</video>", "notice": ""}[kind] for kind, value in parse(whole)
    )
    if any(kind == "notice" and value == reply.EMPTY for kind, value in parse(whole)):
        return
    assert "".join(shown.split()) == "".join(whole.split())


@given(st.text())
def test_text_without_tags_passes_through(whole: str) -> None:
    if "video>" not in whole:
        assert parse(*whole) == ([text(whole)] if whole else [])


@pytest.mark.parametrize("whole", ["A cat sits `here`, 2 < 3, <b>bold</b>, <video1> ``x", "<vi", "```\n<video>"])
def test_only_what_may_become_a_tag_is_delayed(whole: str) -> None:
    """After each letter, all is shown except an ending that may still become a tag."""
    parser = ReplyParser()
    shown = ""
    for count, letter in enumerate(whole, start=1):
        for event in parser.feed(letter):
            assert isinstance(event, TextDelta)
            shown += event.text
        held = whole[len(shown) : count]
        assert held == "" or "<video>".startswith(held) or "</video>".startswith(held)


def test_prompts_are_numbered() -> None:
    parser = ReplyParser()
    events = parser.feed("<video>a</video><video>b</video>") + parser.finish()
    assert events == [GenerationPrompt("a", 1), GenerationPrompt("b", 2)]
