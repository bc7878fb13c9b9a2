"""Streamed model text -> text and generation prompts.

The model asks for a clip by writing ``<video>prompt</video>``. Pieces of its reply come as the tokens come, so a tag
may be split anywhere. What could still become a tag is held back until it is decided; everything else is passed on at
once. Nothing is guessed: a tag that is not opened and closed properly stays in the text as it was written and is
reported.

Code is text, as Markdown (CommonMark 0.31, sections 4.5 and 6.1) says: a span lies between two equal runs of backticks
in one paragraph, a block between two fences. A backtick run that is never closed is no code, so a tag after one is held
back until its paragraph ends. Not code here: indentation by four spaces, which models use in lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gpt4video_cli.events import GenerationPrompt, Notice, TextDelta

OPEN = "<video>"
CLOSE = "</video>"
MAX_PROMPT_CHARS = 4000
"""Longest text between the tags. The longest text encoder in use reads 512 tokens, about 2,500 characters."""

NOT_CLOSED = f"the reply has a {OPEN} that is never closed; it is shown as text and no clip was asked for"
NESTED = f"the reply has a {OPEN} inside another one; the outer one is shown as text"
NOT_OPENED = f"the reply has a {CLOSE} that was never opened; it is shown as text"
TOO_LONG = f"the reply has a {OPEN} with more than {MAX_PROMPT_CHARS} characters; it is shown as text"
EMPTY = f"the reply has an empty {OPEN}{CLOSE}; no clip was asked for"
IN_OPEN_BLOCK = f"the reply has a {OPEN} inside a code block that is never closed; it is shown as text"

ReplyEvent = TextDelta | GenerationPrompt | Notice

_TAG = re.compile("</?video>")
_SPECIAL = re.compile(r"[<`~\\]")
_RUN_OR_BLOCK_END = re.compile(r"(?P<run>`+)|\n(?=[ \t\r]*\n| {0,3}(?:`{3}|~{3}))")


class ReplyParser:
    """Feed it the pieces of one reply in order, then ``finish`` it. Prompts are numbered from 1 in each reply.

    ``written`` is all that it was fed, ``answer`` the text that it passed on, ``prompts`` what it found.
    ``written[:_shown]`` is shown or is a prompt's; ``written[:_at]`` is decided. An opening mark that turns out to be
    plain text sends ``_at`` back to just behind it, to read what follows again as text.
    """

    def __init__(self, *, tags: bool = True) -> None:
        """``tags`` false: all of the reply is text, whatever stands in it."""
        self.written = ""
        self.answer = ""
        self.prompts: list[str] = []
        self._before: list[tuple[int, int]] = []  # of each prompt: where its tag opens, and how long the answer was
        self._at = 0
        self._shown = 0
        self._events: list[ReplyEvent] = []
        self._read: Callable[[bool], bool] = self._read_text if tags else self._read_all
        self._start = 0  # just behind the mark that opened the span, block or prompt being read
        self._mark = ""  # the backticks or tildes that opened the span or block being read
        self._fence = False  # the open run of backticks may still be a fence: nothing but its line has been read

    def feed(self, piece: str) -> list[ReplyEvent]:
        """Events that are certain after ``piece``."""
        self.written += piece
        return self._advance(False)

    def finish(self) -> list[ReplyEvent]:
        """Events for what was held back, now that the reply is complete."""
        return self._advance(True)

    def take_back(self, number: int) -> None:
        """End the reply before prompt ``number``: neither it nor what follows was ever written."""
        written, answer = self._before[number - 1]
        self.written, self.answer = self.written[:written], self.answer[:answer]
        del self.prompts[number - 1 :], self._before[number - 1 :]

    def _advance(self, final: bool) -> list[ReplyEvent]:
        while self._read(final):
            pass
        events, self._events = self._events, []
        return events

    def _show(self, end: int) -> None:
        if end > self._shown:
            delta = self.written[self._shown : end]
            self._shown = end
            self.answer += delta
            if self._events and isinstance(self._events[-1], TextDelta):
                delta = self._events.pop().text + delta  # type: ignore[union-attr]
            self._events.append(TextDelta(delta))

    def _plain_text_from(self, index: int) -> bool:
        self._at = index
        self._read = self._read_text
        return True

    def _run_end(self, index: int) -> int:
        """End of the run of equal characters that starts at ``index``."""
        end = index
        while end < len(self.written) and self.written[end] == self.written[index]:
            end += 1
        return end

    def _starts_line(self, index: int) -> bool:
        indent = self.written[self.written.rfind("\n", 0, index) + 1 : index]
        return len(indent) <= 3 and not indent.strip(" ")

    # Each reader takes one decision and returns True, or returns False when it needs more text (or all is read).

    def _read_all(self, final: bool) -> bool:
        self._at = len(self.written)
        self._show(self._at)
        return False

    def _read_text(self, final: bool) -> bool:
        text = self.written
        found = _SPECIAL.search(text, self._at)
        at = self._at = found.start() if found else len(text)
        self._show(at)
        if not found:
            return False
        if text[at] == "<":
            return self._read_angle(final)
        if text[at] == "\\":
            if at + 1 == len(text) and not final:
                self._show(at + 1)
                return False
            return self._plain_text_from(at + 2 if text[at + 1 : at + 2] in ("`", "\\") else at + 1)
        end = self._run_end(at)
        if end == len(text) and not final:
            self._show(end)
            return False
        self._start = self._at = end
        self._mark = text[at:end]
        self._fence = len(self._mark) >= 3 and self._starts_line(at)
        if self._mark[0] == "`":
            self._read = self._read_span
        elif self._fence:
            self._read = self._read_block
        return True

    def _read_angle(self, final: bool) -> bool:
        text, at = self.written, self._at
        if text.startswith(OPEN, at):
            self._start = at + len(OPEN)
            self._read = self._read_prompt
        elif text.startswith(CLOSE, at):
            self._at = at + len(CLOSE)
            self._show(self._at)
            self._events.append(Notice(NOT_OPENED))
        elif not final and (OPEN.startswith(text[at:]) or CLOSE.startswith(text[at:])):
            return False
        else:
            self._at = at + 1
        return True

    def _read_prompt(self, final: bool) -> bool:
        text, start = self.written, self._start
        close, nested = text.find(CLOSE, start), text.find(OPEN, start)
        first = min((index for index in (close, nested) if index >= 0), default=-1)
        if first > start + MAX_PROMPT_CHARS or (first < 0 and len(text) >= start + MAX_PROMPT_CHARS + len(CLOSE)):
            self._events.append(Notice(TOO_LONG))
            return self._plain_text_from(start)
        if first < 0:
            if final:
                self._events.append(Notice(NOT_CLOSED))
                return self._plain_text_from(start)
            return False
        if first == nested:
            self._events.append(Notice(NESTED))
            return self._plain_text_from(start)
        prompt = " ".join(text[start:close].split())
        if prompt:
            self.prompts.append(prompt)
            self._before.append((start - len(OPEN), len(self.answer)))
            self._events.append(GenerationPrompt(prompt, len(self.prompts)))
        else:
            self._events.append(Notice(EMPTY))
        self._shown = close + len(CLOSE)
        return self._plain_text_from(self._shown)

    def _read_span(self, final: bool) -> bool:
        text = self.written
        if self._fence:
            decided = re.compile("[`\n]").search(text, self._at)
            if decided or final:
                self._fence = False
                if not decided or decided.group() == "\n":  # a fence: its line has no other backtick
                    self._read = self._read_block
                return True
        found = None if self._fence else _RUN_OR_BLOCK_END.search(text, self._at)
        if found and found["run"]:
            if found.end() < len(text) or final:
                self._at = found.end()
                if found["run"] == self._mark:
                    self._show(self._at)
                    self._read = self._read_text
                return True
        elif found or (final and not self._fence):
            return self._plain_text_from(self._start)
        self._show(self._first_tag())
        return False

    def _first_tag(self) -> int:
        """Where the first tag, or what could become one at the text's end, starts in the span being read."""
        tag = _TAG.search(self.written, self._start)
        if tag:
            return tag.start()
        tail = self.written[max(self._start, len(self.written) - len(CLOSE) + 1) :]
        angle = tail.rfind("<")
        undecided = angle >= 0 and (OPEN.startswith(tail[angle:]) or CLOSE.startswith(tail[angle:]))
        return len(self.written) - len(tail) + angle if undecided else len(self.written)

    def _read_block(self, final: bool) -> bool:
        end = r"(?:\n|\Z)" if final else r"\n"
        closing = re.compile(rf"^ {{0,3}}{self._mark[0]}{{{len(self._mark)},}}[ \t\r]*{end}", re.MULTILINE)
        first_line = self.written.find("\n", self._start) + 1  # behind the fence's own line
        found = closing.search(self.written, first_line) if first_line else None
        self._show(found.end() if found else len(self.written))
        if found:
            return self._plain_text_from(found.end())
        if final and self._at < len(self.written):
            if OPEN in self.written[self._start :]:
                self._events.append(Notice(IN_OPEN_BLOCK))
            self._at = len(self.written)
        return False
