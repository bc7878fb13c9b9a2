"""Markdown that shows what was said as it was said, with the frames that were seen."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4video_cli.cli.terminal import clean
from gpt4video_cli.export.markdown import markdown
from gpt4video_cli.export.transcript import ShownTurn, Transcript, transcript
from gpt4video_cli.session import Session
from gpt4video_cli.video.reader import FrameReader

markdown_it = pytest.importorskip("markdown_it")  # comes with rich


class Rendered(HTMLParser):
    """What a reader of the rendered Markdown gets: its text, its tags and what they fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.fetched = "", [], []  # type: ignore[var-annotated]
        self.feed(markdown_it.MarkdownIt("commonmark").render(text))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def one_turn(text: str) -> str:
    turn = ShownTurn(text, (), text, (), (), "tiny")
    return markdown(Transcript("title", "", "", (turn,)), "x_files").text


@pytest.mark.parametrize(
    "text",
    [
        "1. one\n2. two",
        "# heading\n- item\n+ item\n* item\n> quote\n===\n---\n    code",
        "a *b* _c_ `d` ~~e~~ [f](http://g) ![h](http://i) <b>j</b> &amp; | k | $l$ \\m",
        "<script>x</script>",
        "```\nfence\n```",
        "[label]: http://example.org",
        "<http://example.org>",
    ],
)
def test_what_was_said_is_shown_as_it_is(text: str) -> None:
    found = Rendered(one_turn(text))
    lines = [line.strip() for line in text.split("\n")]
    shown = [line for line in found.text.split("\n") if line]
    assert shown == ["title", "1", *lines, *lines, "tiny"]  # the question and the answer
    assert set(found.tags) <= {"h1", "h2", "blockquote", "p", "br", "sub"}
    assert found.fetched == []


def test_frames_are_files_beside_it(talk: Session, reader: FrameReader) -> None:
    document = markdown(transcript(talk, reader, clean), "my talk_files")
    found = Rendered(document.text)
    assert found.fetched == [f"my%20talk_files/{name}" for name in document.files]
    assert len(document.files) == 4 + 3 + 4
    with Image.open(BytesIO(document.files["turn001-clip1-4.jpg"])) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert picture.size == (96, 64)
    red = (pixels[..., 0] - pixels[..., 1] > 100).any(0).nonzero()[0]
    assert red.min() > 50, "the last moment seen: the bar has moved to the right"
    assert "red bar.mp4" in found.text and "\x1b" not in document.text and "\u202e" not in document.text
    assert "Asked for: a blue bar" in found.text and "(seed 3)" in found.text
    assert re.search(r"begun 2026-11-22T09:15:00\+00:00", found.text)


def test_clips_that_are_lost_are_told(talk: Session, reader: FrameReader, folder: Path) -> None:
    (folder / "red bar.mp4").unlink()
    (folder / "green.webm").write_bytes((folder / "made.mp4").read_bytes())
    (folder / "made.mp4").write_bytes(b"secret of this machine")
    document = markdown(transcript(talk, reader, clean), "x_files")
    text = Rendered(document.text).text
    assert "the file is no longer there" in text and "the file is another file now" in text
    assert "or is another one now" in text
    assert document.files == {}
