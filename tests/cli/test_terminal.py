"""Nothing that a model or a file name says can steer the terminal."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpt4video_cli.cli.terminal import Cleaner, WordWrap, clean, clean_line

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Text made of what sequences are made of, so that they are met often.
DANGEROUS = st.text(
    st.sampled_from(
        "\x1b\x9b\x9d\x90\x9c[]()PX^_\\\x07;?0123mJHA \n\tab\r\x00\x08\x7f\x85\u061c\u200f\u202e\u2066\u2069\udcffé語"
    )
    | st.characters(),
    max_size=60,
)


@given(DANGEROUS)
def test_nothing_harmful_remains(text: str) -> None:
    assert not HARMFUL.search(clean(text))
    assert not re.search("[\n\t\u2028\u2029]", clean_line(text))


@given(DANGEROUS, st.lists(st.integers(0, 60), max_size=6))
def test_pieces_do_not_matter(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    cleaner = Cleaner()
    assert "".join(cleaner.feed(text[a:b]) for a, b in pairwise(places)) == clean(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf"]) | st.sampled_from("\n\t\u200d\u200f")))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "ared b"),
        ("\x1b[2J\x1b[Hgone?", "gone?"),
        ("\x1b]52;c;aGk=\x07clipboard", "clipboard"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ end", "link end"),
        ("\x1b]0;title without end\nnext line", "\nnext line"),
        ("\x9b2Jx\x85y", "xy"),
        ("\x1b(Bz", "z"),
        ("safe\u202egpj.exe", "safegpj.exe"),
        ("over\rwritten", "overwritten"),
        ("\udcff", "\ufffd"),
        ("\x1b\x1b[2Jq", "q"),
        ("\x1b]" + "x" * 5000 + " end", "x" * (5000 - 2047) + " end"),
    ],
)
def test_known_sequences(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_line_stays_one_line() -> None:
    assert clean_line("clip\nerror: all is lost\x1b[1A.mp4") == "clip error: all is lost.mp4"


@given(st.lists(st.text(st.sampled_from("ab c\n"), max_size=8), max_size=12), st.integers(10, 40))
@example([" aa", "aa", "aaa", "aaa"], 10)  # a blank before a word as long as the line
def test_wrapping_breaks_only_at_blanks_and_fits(pieces: list[str], width: int) -> None:
    stream = io.StringIO()
    wrap = WordWrap(stream, width=width)
    for piece in pieces:
        wrap.write(piece)
    wrap.finish()
    text, shown = "".join(pieces), stream.getvalue()
    assert shown.split() == text.split() or any(len(word) >= width for word in text.split())
    assert all(len(line) <= width for line in shown.split("\n"))


def test_wrapping_long_words_and_wide_letters() -> None:
    stream = io.StringIO()
    wrap = WordWrap(stream, width=10)
    wrap.write("see " + "x" * 25 + " 語語語 語語語 end")
    wrap.finish()
    assert stream.getvalue() == "see\nxxxxxxxxxx\nxxxxxxxxxx\nxxxxx\n語語語\n語語語 end"
