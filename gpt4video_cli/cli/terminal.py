"""What reaches a terminal: text without control sequences, colour only where it is wanted, lines broken at words.

A model's output and a file's name are written by strangers. Unfiltered, they could move the cursor, rewrite what was
shown before, set the clipboard (OSC 52) or show text in another order than it has (CVE-2021-42574).
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

# Everything that is not shown: C0 but newline and tab, DEL, C1, bidirectional marks, embeddings, overrides and
# isolates, lone surrogates (bytes of a file name that are not UTF-8).
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff]")

# States of Cleaner, after ECMA-48: a sequence is ESC and one letter, or ESC [ ... letter (CSI), or ESC ] ... BEL (OSC
# and its like DCS, SOS, PM, APC), which end at ST (ESC \) too. The C1 characters 0x80-0x9f are one-letter spellings.
_TEXT, _ESCAPE, _CSI, _STRING = range(4)
_STRING_LETTERS = "]PX^_"
_STRING_C1 = "\x90\x98\x9d\x9e\x9f"
# A sequence longer than this was never meant as one; what follows is text again, so that a stray ESC ] cannot hide
# the rest of an answer.
_LONGEST_SEQUENCE = 2048


class Cleaner:
    """Removes control sequences from text that comes in pieces; a sequence may be split over pieces anywhere.

    What comes out does not depend on where the pieces are cut.
    """

    def __init__(self) -> None:
        self._state = _TEXT
        self._length = 0

    def feed(self, text: str) -> str:
        """The part of ``text`` that may be shown."""
        if self._state == _TEXT and not _UNSAFE.search(text):
            return text
        return "".join(map(self._next, text))

    def _next(self, letter: str) -> str:
        if self._state != _TEXT:
            self._length += 1
            if self._length > _LONGEST_SEQUENCE or letter == "\n":
                self._state = _TEXT
        if letter == "\x1b":  # ends a string too: ST is ESC \\, and any other escape breaks it off
            self._begin(_ESCAPE)
        elif self._state == _STRING:
            if letter in "\x07\x9c":
                self._state = _TEXT
        elif letter == "\x9b":
            self._begin(_CSI)
        elif letter in _STRING_C1:
            self._begin(_STRING)
        elif self._state == _ESCAPE:
            return self._after_escape(letter)
        elif self._state == _CSI:
            return self._inside_csi(letter)
        elif "\ud800" <= letter <= "\udfff":
            return "\ufffd"
        elif not _UNSAFE.match(letter):
            return letter
        return ""

    def _begin(self, state: int) -> None:
        self._state, self._length = state, 0

    def _after_escape(self, letter: str) -> str:
        if letter == "[":
            self._state = _CSI
        elif letter in _STRING_LETTERS:
            self._state = _STRING
        elif not " " <= letter <= "/":  # these come before the letter that ends a longer escape, such as ESC ( B
            self._state = _TEXT
            return "" if "0" <= letter <= "~" else self._next(letter)
        return ""

    def _inside_csi(self, letter: str) -> str:
        if not " " <= letter <= "?":
            self._state = _TEXT
            return "" if "@" <= letter <= "~" else self._next(letter)
        return ""


def clean(text: str) -> str:
    """``text`` without control sequences; newlines and tabs stay."""
    return Cleaner().feed(text)


def clean_line(text: str) -> str:
    """``text`` on one line, without control sequences: for messages, paths and titles."""
    return clean(re.sub("[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)).strip()


PLAIN = "GPT4VIDEO_PLAIN"
"""The variable of the environment that ``--plain`` sets; child processes heed it too."""


def is_plain() -> bool:
    """Whether everything comes as lines that stay as they are: for screen readers, and for terminals like Emacs's."""
    return os.environ.get(PLAIN, "").lower() not in ("", "0", "false", "no", "off") or os.environ.get("TERM") == "dumb"


def may_draw(stream: TextIO) -> bool:
    """Whether lines on ``stream`` may be drawn over: it is a terminal, and nobody asked for plain lines."""
    return stream.isatty() and not is_plain()


def wants_colour(stream: TextIO) -> bool:
    """Colour is for terminals, unless NO_COLOR (no-color.org), --no-color, --plain or TERM=dumb says otherwise."""
    return may_draw(stream) and not os.environ.get("NO_COLOR")


def styled(text: str, code: str, stream: TextIO) -> str:
    """``text`` in the style ``code`` (an SGR number) where ``stream`` wants colour."""
    return f"\x1b[{code}m{text}\x1b[0m" if wants_colour(stream) else text


BOLD, DIM, RED, YELLOW, CYAN = "1", "2", "31", "33", "36"


def say(text: str, *, style: str = DIM) -> None:
    """A line for the person: stderr, cleaned; on a terminal broken between words."""
    print(styled(_filled(clean_line(text)), style, sys.stderr), file=sys.stderr, flush=True)


def say_error(text: str) -> None:
    """The one line of an error."""
    line = _filled(f"error: {clean_line(text)}")
    print(styled("error:", RED, sys.stderr) + line.removeprefix("error:"), file=sys.stderr, flush=True)


def print_lines(lines: Iterable[str]) -> None:
    """Clean ``lines`` on stdout; on a terminal the long ones go on, indented, between words."""
    width = max(20, columns(sys.stdout) - 1) if may_draw(sys.stdout) else sys.maxsize
    for line in lines:
        indent = len(line) - len(line.lstrip(" ")) + 2
        print(line if len(line) <= width else _fill(line, width, indent))
    sys.stdout.flush()


def _filled(line: str) -> str:
    if not may_draw(sys.stderr):
        return line
    width = max(20, columns(sys.stderr) - 1)
    return _fill(line, width, 2)


def _fill(line: str, width: int, indent: int) -> str:
    blanks = " " * indent
    return textwrap.fill(line, width, subsequent_indent=blanks, break_long_words=False, break_on_hyphens=False)


class Status:
    """A line on a terminal's stderr that goes away ("loading ..."); nothing where stderr is no terminal.

    With ``--plain`` it is a line that stays, and comes once.
    """

    def __init__(self, text: str, *, quiet: bool = False) -> None:
        self._text = clean_line(text)
        self._possible = sys.stderr.isatty() and not quiet
        self._stays = is_plain()
        self._shown = False

    def __enter__(self) -> Status:
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self) -> None:
        """Show the line; the cursor stays in it."""
        if not self._possible or self._shown:
            return
        self._shown = True
        if self._stays:
            say(self._text)
        else:
            sys.stderr.write(styled(self._text[: columns(sys.stderr) - 1], DIM, sys.stderr))
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown and not self._stays:
            self._shown = False
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextmanager
def no_echo() -> Iterator[None]:
    """What is typed meanwhile waits for the next prompt, instead of appearing in the middle of an answer."""
    if os.name != "posix" or sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    import termios

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def columns(stream: TextIO) -> int:
    """The terminal's width, or 80."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


class WordWrap:
    """Breaks streamed text between words at the terminal's width. Text is written at once up to its last blank."""

    def __init__(self, stream: TextIO, *, width: int | None = None) -> None:
        self._stream = stream
        self._width = width
        self._column = 0
        self._word = ""
        self._blanks = ""

    def write(self, text: str) -> None:
        """Show ``text``; an unfinished last word waits for the next piece."""
        width = self._width or columns(self._stream)
        for letter in text:
            if letter == "\n":
                self._put_word(width)
                self._blanks = ""
                self._stream.write("\n")
                self._column = 0
            elif letter in " \t":
                self._put_word(width)
                self._blanks += letter
            else:
                self._word += letter
                if cells(self._word) >= width:  # longer than a line (or a script without blanks): let it go
                    self._put_word(width)
        self._stream.flush()

    def finish(self) -> None:
        """Show what waits."""
        self._put_word(self._width or columns(self._stream))
        self._stream.flush()

    def _put_word(self, width: int) -> None:
        if not self._word:
            return
        length = cells(self._word)
        blanks = self._blanks.expandtabs(4)
        if self._column + len(blanks) + length > width:
            if self._column:
                self._stream.write("\n")
            self._column, blanks = 0, ""
        self._stream.write(blanks + self._word)
        self._column += len(blanks) + length
        self._word = self._blanks = ""


def cells(text: str) -> int:
    """How many columns ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    from prompt_toolkit.utils import get_cwidth

    return int(get_cwidth(text))
