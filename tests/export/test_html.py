"""One page with everything in it, that fetches and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpt4video_cli.cli.terminal import clean
from gpt4video_cli.export.html import html
from gpt4video_cli.export.transcript import transcript
from gpt4video_cli.session import FilmedClip, Session
from gpt4video_cli.video.reader import FrameReader
from tests.export.browser import Browser, find_driver
from tests.export.conftest import NASTY, turn


class Page(HTMLParser):
    """The page's text, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, name: str) -> list[str]:
        return [value for of, attribute, value in self.attributes if (of, attribute) == (tag, name)]


@pytest.fixture
def page(talk: Session, reader: FrameReader) -> str:
    return html(transcript(talk, reader, clean))


def decoded(address: str, kind: str) -> bytes:
    head, _, content = address.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(content, validate=True)


def test_everything_is_inside(page: str, folder: Path) -> None:
    found = Page(page)
    assert len(found.all("img", "src")) == 4 + 3 + 4
    assert all(decoded(address, "image/jpeg").startswith(b"\xff\xd8") for address in found.all("img", "src"))
    red, green, made = found.all("video", "src")
    assert decoded(red, "video/mp4") == (folder / "red bar.mp4").read_bytes()
    assert decoded(green, "video/webm") == (folder / "green.webm").read_bytes()
    assert decoded(made, "video/mp4") == (folder / "made.mp4").read_bytes()
    fetching = [value for _, name, value in found.attributes if name in ("src", "href", "poster", "srcset", "data")]
    assert all(value.startswith("data:") for value in fetching)


def test_text_stays_text(page: str, reader: FrameReader) -> None:
    found = Page(page)
    assert "script" not in found.tags and found.tags.count("style") == 1
    assert found.text.count(NASTY) == 2  # a question and an answer
    titled = Page(html(transcript(Session([turn(NASTY, "yes")]), reader, clean)))
    assert titled.text.count(NASTY) == 3 and "script" not in titled.tags  # title, heading, question
    assert "\x1b" not in page and "\u202e" not in page
    assert not [name for _, name, _ in found.attributes if name.startswith("on") or name == "style"]


def test_the_policy_allows_nothing_but_what_is_inside(page: str) -> None:
    policy = Page(page).all("meta", "content")[0]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "url(" not in style[1] and "@import" not in style[1]


def test_a_large_clip_is_shown_by_its_pictures(talk: Session, reader: FrameReader) -> None:
    found = Page(html(transcript(talk, reader, clean), most_embedded=100))
    assert found.all("video", "src") == [] and len(found.all("img", "src")) == 11
    assert found.text.count("not in this page") == 3


def test_a_strangers_session_takes_no_file_along(tmp_path: Path, reader: FrameReader) -> None:
    """It names a file of this machine as a clip that was filmed, without knowing what is in it."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"\0\0\0\x18ftypmp42 this is nobody's business")
    film = FilmedClip(str(secret), "00" * 32, "x", 0)
    page = html(transcript(Session([turn("a", "b", films=[film])]), reader, clean))
    assert base64.b64encode(secret.read_bytes())[:20].decode() not in page
    assert "or is another one now" in page


@pytest.mark.skipif(find_driver() is None, reason="no chromedriver")
def test_in_a_real_browser(page: str, tmp_path: Path) -> None:
    """Headless Chromium, as wide as a phone: the clips play, nothing is fetched, nothing is wider than the screen."""
    file = tmp_path / "talk.html"
    file.write_text(page)
    with Browser(width=400, height=800) as browser:
        browser.open(file.as_uri())
        assert browser.run("return document.querySelectorAll('video').length") == 3
        browser.run("for (const v of document.querySelectorAll('video')) { v.muted = true; v.play(); }")
        for _ in range(50):
            times = browser.run("return [...document.querySelectorAll('video')].map(v => v.currentTime)")
            if min(times) > 0.1:
                break
            time.sleep(0.1)
        assert min(times) > 0.1
        assert browser.run("return [...document.querySelectorAll('video')].map(v => v.error)") == [None] * 3
        assert browser.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)") is True
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth") is True
        assert browser.run("return getComputedStyle(document.querySelector('main')).maxWidth") != "none"
        requested = browser.requests()
        assert requested and all(address.startswith(("data:", file.as_uri())) for address in requested)
        browser.run(
            "window.blocked = [];"
            "document.addEventListener('securitypolicyviolation', e => blocked.push(e.effectiveDirective));"
            "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}));"
        )
        for _ in range(50):
            if blocked := browser.run("return window.blocked"):
                break
            time.sleep(0.1)
        assert blocked == ["img-src"], "what would be fetched is stopped by the page's own policy"
