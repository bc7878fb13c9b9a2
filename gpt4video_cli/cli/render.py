"""Events of a reply -> text for a person: the answer on stdout, everything else on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from gpt4video_cli.cli.progress import ProgressBar
from gpt4video_cli.cli.terminal import (
    DIM,
    RED,
    YELLOW,
    Cleaner,
    Status,
    WordWrap,
    clean,
    clean_line,
    is_plain,
    may_draw,
    say,
)
from gpt4video_cli.events import (
    ClipReady,
    ClipSeen,
    Done,
    Event,
    GenerationProgress,
    GenerationPrompt,
    Notice,
    Refusal,
    Screened,
    TextDelta,
)
from gpt4video_cli.strict_json import one_line
from gpt4video_cli.video.sampling import SamplingReceipt

_SENTENCE = re.compile(r"[.!?][\"')\]]*\s|\n")


class AnswerStream:
    """The answer's text on stdout as it comes: cleaned, without blank space around it, one newline at its end.

    On a terminal lines break between words; into a file or a pipe the text goes as it is. With ``--plain`` a terminal
    gets whole sentences, because a screen reader begins anew with each piece.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cleaner = Cleaner()
        self._wrap = WordWrap(stream) if may_draw(stream) else None
        self._sentences = stream.isatty() and is_plain()
        self._waiting = ""
        self._blanks = ""
        self.open_line = False
        """Whether the last line has no newline yet."""

    def write(self, text: str) -> None:
        """Show the next piece. Blank space waits until something follows it."""
        text = self._blanks + self._cleaner.feed(text)
        shown = text.rstrip()
        self._blanks = text[len(shown) :]
        if not self.open_line:
            shown = shown.lstrip()
            self._blanks = self._blanks if shown else ""
        if shown:
            self.open_line = True
            self._put(shown)

    def end_line(self) -> None:
        """End the line that is open, if one is."""
        if self.open_line:
            if self._wrap is not None:
                self._wrap.finish()
            if self._waiting:
                self._stream.write(self._waiting)
                self._waiting = ""
            self._put("\n")
        self.open_line, self._blanks = False, ""

    def _put(self, text: str) -> None:
        if self._wrap is not None:
            self._wrap.write(text)
        elif self._sentences:
            text = self._waiting + text
            end = max((found.end() for found in _SENTENCE.finditer(text)), default=0)
            self._waiting = text[end:]
            self._stream.write(text[:end])
            self._stream.flush()
        else:
            self._stream.write(text)
            self._stream.flush()


class Renderer:
    """Shows one reply. ``quiet``: no notes on stderr. ``receipts``: say which moments of each clip were seen.

    ``waiting``: what a terminal shows until the answer begins. ``preview``: draw the clips that were filmed. ``paths``:
    put their paths on stdout instead of saying them. ``metadata``: they have side-cars. ``verbose``: say all verdicts.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        receipts: bool = False,
        answer: bool = True,
        waiting: str = "thinking ...",
        preview: bool = False,
        paths: bool = False,
        metadata: bool = True,
        verbose: bool = False,
    ) -> None:
        self._status = Status(waiting, quiet=quiet or not waiting)
        self._bar = ProgressBar(quiet=quiet)
        self._preview = preview and not quiet
        self._paths = paths
        self._metadata = metadata
        self._quiet = quiet
        self._receipts = receipts
        self._verbose = verbose
        self._answer = AnswerStream(sys.stdout) if answer else None
        self.clips: list[ClipSeen] = []
        self.prompts: list[str] = []
        self.films: list[dict[str, Any]] = []
        """The clips that were filmed (``gallery.delivery.film_as_dict``), without their frames: there may be many."""
        self.notices: list[str] = []
        self.refusal: Refusal | None = None
        self.verdicts: list[dict[str, Any]] = []
        """What the gates said, allowed or not (``Verdict.as_dict``)."""
        self.done: Done | None = None
        self.began = False
        """Whether the answer's text has begun to come."""

    def show(self, events: Iterable[Event]) -> None:
        """Render all of a reply, or of a film. However it ends, the line is ended."""
        try:
            with self._status, self._bar:
                for event in events:
                    self.event(event)
        finally:
            if self._answer is not None:
                self._answer.end_line()
        if self.done is not None and self.refusal is None:
            self._say_why_it_ended(self.done)

    def event(self, event: Event) -> None:
        """Show one event."""
        match event:
            case TextDelta():
                self.began = True
                if self._answer is not None:
                    self._status.clear()
                    self._answer.write(event.text)
            case ClipSeen():
                self.clips.append(event)
                if self._receipts:
                    self._note("saw " + receipt_line(event.receipt))
            case GenerationPrompt():
                self.prompts.append(event.prompt)
                self._note(f'clip asked for: "{event.prompt}"', YELLOW)
            case Screened():
                self.verdicts.append(event.verdict.as_dict())
                if self._verbose:
                    self._note(f"safety: {event.verdict.line()}")
            case Refusal():
                self.refusal = event
                self._note(f"refused ({event.guard}, {event.category}): {event.message}", RED, always=True)
            case Notice():
                self.notices.append(event.text)
                self._note(f"note: {event.text}")
            case ClipReady():
                self._ready(event)
            case GenerationProgress():
                self._bar.show(event)
            case Done():
                self.done = event

    def _ready(self, event: ClipReady) -> None:
        if self._paths:
            self._bar.clear()
            print(clean_line(event.path), flush=True)
        else:
            self._note(f"clip written: {event.path}")
        if event.film is None:
            return
        from gpt4video_cli.cli.film_times import remember
        from gpt4video_cli.gallery.delivery import film_as_dict

        self.films.append(film_as_dict(event.film, event.path, metadata=self._metadata))
        remember(event.film)
        if self._preview:
            from gpt4video_cli.cli.preview import draw_strip

            self._bar.clear()
            draw_strip(event.film.frames)

    def _note(self, text: str, style: str = DIM, *, always: bool = False) -> None:
        if self._quiet and not always:
            return
        # Where answer and notes share one terminal, a note must not continue the answer's line.
        if self._answer is not None and sys.stdout.isatty():
            self._answer.end_line()
        self._status.clear()
        self._bar.clear()
        say(text, style=style)
        if not self.began and self.done is None:
            self._status.show()

    def _say_why_it_ended(self, done: Done) -> None:
        if done.finish_reason == "length":
            self._note(f"note: the answer was cut at {done.new_tokens} tokens (--max-tokens, /set max-tokens)")
        elif done.finish_reason == "context":
            self._note("note: the answer was cut, because the model's context is full (/reset starts anew)")
        elif done.finish_reason == "cancelled":
            self._note("(stopped)")
        elif not done.answer.strip() and not self.prompts:
            self._note("note: the model answered nothing")


def receipt_line(receipt: dict[str, Any]) -> str:
    """What was seen of a clip, on one line."""
    return SamplingReceipt.from_dict(receipt).line()


def print_json(value: Any) -> None:
    """``value`` as JSON on stdout: one line, except on a terminal. What could harm a terminal is escaped, not lost."""
    print(one_line(value, indent=2 if sys.stdout.isatty() else None), flush=True)


def shown_text(text: str) -> str:
    """An answer as it is shown, for the JSON form."""
    return clean(text).strip()
