"""The conversation at a terminal: a message is answered, a line that begins with ``/`` is a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING

from gpt4video_cli import __version__
from gpt4video_cli.cli.chat import ChatRequest
from gpt4video_cli.cli.chat_films import ChatFilms, FilmWishes, ask_to_rewrite
from gpt4video_cli.cli.clip_urls import fetch_clips
from gpt4video_cli.cli.engine_options import adapter_lines, change_adapters
from gpt4video_cli.cli.keeping import filmed_clips, write_page
from gpt4video_cli.cli.line_editor import LineEditor
from gpt4video_cli.cli.plain_lines import PlainLines
from gpt4video_cli.cli.preview import show_seen
from gpt4video_cli.cli.render import Renderer
from gpt4video_cli.cli.saved_files import load_from, save_to, say_last
from gpt4video_cli.cli.settings import Settings, find_setting, read_video_command, show
from gpt4video_cli.cli.startup import Startup
from gpt4video_cli.cli.terminal import BOLD, DIM, Status, is_plain, no_echo, say, say_error
from gpt4video_cli.cli.typed_paths import dropped_files
from gpt4video_cli.errors import ClipError, ExitCode, Gpt4VideoError, UsageError
from gpt4video_cli.events import Event, Refusal
from gpt4video_cli.session import ClipRequest, Message
from gpt4video_cli.video.sniff import sniff
from gpt4video_cli.video.url import full_path

if TYPE_CHECKING:
    from gpt4video_cli.assistant import Assistant


LONGEST_COMMAND = 1000
"""Characters. What is longer and begins with a ``/`` was pasted, and is no mistyped command."""


@dataclass(frozen=True)
class Command:
    """A slash command: what ``/help`` says and the method that does it."""

    name: str
    arguments: str
    about: str
    run: Callable[[Repl, str], None]


class Repl:
    """One conversation. Nothing that goes wrong in a turn ends it."""

    def __init__(self, request: ChatRequest, startup: Startup, assistant: Assistant) -> None:
        self._startup = startup
        self._assistant = assistant
        self._settings = Settings(
            request.card,
            request.plan,
            request.answer,
            receipts=request.receipts,
            preview=request.preview,
            film=request.film,
            save=request.keeper.save,
        )
        self._films = ChatFilms(quiet=request.quiet, gates=assistant.gates, verbose=request.verbose)
        self._filmed: list[ClipRequest] = []
        self._quiet, self._verbose = request.quiet, request.verbose
        self._loading = f"loading {request.card.name} ..."
        self.session, self._keeper = request.session, request.keeper
        self._queue: list[ClipRequest] = list(request.clips)
        self._retries = 0
        self._draft = ""
        self._left = False
        self._editor: LineEditor | PlainLines = (
            PlainLines()
            if is_plain()
            else LineEditor([(c.name, c.about) for c in COMMANDS.values()], path_commands=PATH_COMMANDS)
        )

    def run(self) -> None:
        """Until the person leaves."""
        while not self._left:
            try:
                text = self._editor.read(queued=len(self._queue), default=self._draft)
            except KeyboardInterrupt:  # the line is cleared
                self._draft = ""
                continue
            except EOFError:
                return
            self._draft = ""
            try:
                self._handle(text.strip())
            except Gpt4VideoError as error:
                say_error(error.line())
            except KeyboardInterrupt:
                say("(stopped)")
            finally:
                self._keep()

    def _keep(self) -> None:
        self._keeper.save = self._settings.save
        self._keeper.keep(self.session)

    def _handle(self, text: str) -> None:
        if not text:
            return
        name, _, rest = text.partition(" ")
        if name in COMMANDS:
            COMMANDS[name].run(self, rest.strip())
        elif files := dropped_files(text):
            self._add([ClipRequest(path, self._settings.plan) for path in files])
        elif text.startswith("/") and "\n" not in text and "/" not in name[1:] and len(text) <= LONGEST_COMMAND:
            raise UsageError(f"no command {name}", hint=_nearest(name))
        else:
            self._ask(text)

    # --- asking ---------------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        self._retries = 0
        message = Message(text, tuple(self._queue))
        try:
            answered = self._show(
                lambda cancel: self._assistant.reply(self.session, message, self._settings.answer, cancel)
            )
        except ClipError as error:
            kept = [clip for clip in self._queue if str(clip.path) != error.path]
            if len(kept) < len(self._queue):
                self._queue = kept
                error = ClipError(error.path, error.reason, hint="the clip is left out; send the message again")
            self._draft = text
            raise error from None
        except Gpt4VideoError:
            self._draft = text
            raise
        refusal = answered.refusal
        if refusal is not None and refusal.subject in ("user text", "user clip"):  # the message is as if never sent
            self._queue = [clip for clip in self._queue if full_path(clip.path) != refusal.path]
        elif answered.done is not None:
            self._queue = []
            self._film(answered.prompts)
            self._film_rewritten(refusal)

    def _film_rewritten(self, refusal: Refusal | None) -> None:
        """Where the model's prompt was refused, film what the person writes instead, if they want to."""
        wishes = self._settings.film
        if refusal is not None and refusal.prompt and wishes.mode == "ask":
            changed = ask_to_rewrite(refusal.prompt)
            if changed is not None:
                self._film_now([changed], replace(wishes, mode="yes"), self._filmed)

    def _show(self, reply: Callable[[threading.Event], Iterable[Event]]) -> Renderer:
        """Show a reply. It has its ``done`` if it was completed (a stopped answer is, if it had begun)."""
        cancel = threading.Event()
        waiting = "thinking ..." if self._startup.loaded else self._loading
        renderer = Renderer(quiet=self._quiet, receipts=self._settings.receipts, waiting=waiting, verbose=self._verbose)
        try:
            with no_echo(), _stoppable(cancel, renderer):
                renderer.show(reply(cancel))
        finally:
            self._startup.reader.forget()
        return renderer

    def _film(self, prompts: list[str]) -> None:
        """Film what the last answer asks for; the new clips are queued for the next message."""
        self._keep()  # filming takes long
        if prompts and self._settings.film.mode == "no":
            say("generating is off; /set generate ask changes that")
        self._filmed = []
        self._film_now(prompts, self._settings.film, self._filmed)

    def _film_now(self, prompts: list[str], wishes: FilmWishes, clips: list[ClipRequest]) -> None:
        """Film, queue the new clips and add them to ``clips``: those too that were ready before something failed."""
        shown = self._films.renderer(preview=self._settings.preview)
        try:
            self._films.film_all(prompts, wishes, shown)
        finally:
            self.session.add_films(filmed_clips(shown.films))
            clips += [ClipRequest(film["path"], self._settings.plan) for film in shown.films]
            self._queue += clips

    # --- commands -------------------------------------------------------------------------------------------------

    def video(self, text: str) -> None:
        """Add clips to the next message."""
        self._add(read_video_command(text, self._settings.plan))

    def generate(self, text: str) -> None:
        """Film a prompt as it is, without asking the model."""
        if not text:
            raise UsageError("/generate needs a prompt", hint="/generate a red circle moving left")
        self._film_now([text], replace(self._settings.film, mode="yes"), [])

    def _add(self, clips: list[ClipRequest]) -> None:
        """Read clips now, so that one that cannot be read is told now; then queue them."""
        for clip in clips:
            fetch_clips([clip.path], quiet=self._quiet)
            sniff(str(clip.path))
            with Status(f"reading {clip.path} ..."):
                receipt = self._startup.receipt(clip)
            self._queue.append(clip)
            say(f"queued for the next message: {receipt.line()}")

    def frames(self, text: str) -> None:
        """Say and show what was seen of each clip."""
        clips = self.session.clips
        for clip in clips:
            say(f"clip {clip.number}: {clip.receipt.line()}")
            if self._settings.preview:
                show_seen(clip.path, clip.receipt, self._startup.reader)
        for request in self._queue:
            say(f"queued: {request.path}")
        if not clips and not self._queue:
            say("no clips yet; /video PATH adds one")

    def reset(self, text: str) -> None:
        """Start anew."""
        self.session.reset()
        self._keeper.begin(self.session)
        self._queue = []
        say("a new conversation")

    def undo(self, text: str) -> None:
        """Take the last message back, into the line to be edited."""
        turn = self.session.undo()
        if turn is None:
            raise UsageError("there is nothing to undo")
        self._forget_filmed()
        self._queue = [*turn.message().clips, *self._queue]
        self._draft = turn.text
        left = len(self.session.turns)
        say(f"took back the last message and its answer; {left} turn{'' if left == 1 else 's'} left")

    def retry(self, text: str) -> None:
        """Answer the last message again, with the present settings."""
        if not self.session.turns:
            raise UsageError("there is no message to retry")
        answer = self._settings.answer
        if answer.temperature == 0 and answer == self.session.turns[-1].options:
            say("temperature is 0, so the answer will be the same; /set temperature 0.7 varies it")
        elif answer.temperature > 0:
            self._retries += 1
            answer = replace(answer, seed=answer.seed + self._retries)
        answered = self._show(lambda cancel: self._assistant.retry(self.session, answer, cancel))
        if answered.done is not None:
            self._forget_filmed()
            self._film(answered.prompts)

    def _forget_filmed(self) -> None:
        """What was filmed for an answer that is taken back is no part of the conversation; its file stays."""
        self._queue = [clip for clip in self._queue if clip not in self._filmed]
        self._filmed = []

    def save(self, text: str) -> None:
        """Write the conversation to a file."""
        save_to(self.session, text)

    def load(self, text: str) -> None:
        """Go on with a saved conversation."""
        self.session = load_from(text)
        self._keeper.begin(self.session)
        self._queue = []

    def set(self, text: str) -> None:
        """Show or change settings."""
        name, _, value = text.partition(" ")
        name = name.removeprefix("--")
        if not name:
            for line in self._settings.lines():
                say(line)
            return
        if value.strip():
            self._settings.set(name, value.strip())
        find_setting(name)
        say(f"{name} = {show(self._settings.value(name))}")

    def adapter(self, text: str) -> None:
        """Show or change which LoRA adapters are in force."""
        with Status("reading the adapter ..." if text else self._loading, quiet=self._quiet):
            _ = self._assistant.model.engine
            change_adapters(self._assistant.model, text)
        for line in adapter_lines(self._assistant.model):
            say(line)

    def help(self, text: str) -> None:
        """List the commands and keys."""
        for command in COMMANDS.values():
            say(f"{f'{command.name} {command.arguments}'.rstrip()}: {command.about}")
        say("Enter sends; Alt-Enter, or \\ before Enter, starts a new line; Tab completes; Up finds earlier messages.")
        say("Ctrl-C stops an answer or clears the line; Ctrl-D leaves.")

    def exit(self, text: str) -> None:
        """Leave."""
        self._left = True


COMMANDS = {
    command.name: command
    for command in (
        Command("/video", "PATH [--frames N] [--start T] ...", "add a clip to the next message", Repl.video),
        Command("/generate", "PROMPT", "film a prompt as it is; the clip goes with the next message", Repl.generate),
        Command("/frames", "", "what was seen of each clip", Repl.frames),
        Command("/undo", "", "take the last message back", Repl.undo),
        Command("/retry", "", "answer the last message again", Repl.retry),
        Command("/reset", "", "start a new conversation", Repl.reset),
        Command("/save", "PATH", "write the conversation to a file", Repl.save),
        Command("/load", "PATH", "go on with a saved conversation", Repl.load),
        Command("/set", "[NAME [VALUE]]", "show or change settings", Repl.set),
        Command("/adapter", "[NAME[:SCALE]|off]", "show or change the LoRA adapters in force", Repl.adapter),
        Command("/help", "", "this list", Repl.help),
        Command("/exit", "", "leave", Repl.exit),
    )
}
PATH_COMMANDS = ("/video", "/save", "/load")


def converse(request: ChatRequest, startup: Startup) -> int:
    """Hold a conversation until the person leaves; the exit code."""
    if not request.quiet:
        greet(request)
    with Status(f"loading {request.card.name} ...", quiet=request.quiet):
        assistant = startup.load()
        startup.check_clips()
    if not request.quiet:
        say(f"engine: {assistant.model.choice.line()}", style=DIM)
    if not request.quiet:
        say_last(request.session)
    repl = Repl(request, startup, assistant)
    repl.run()
    write_page(request.html, repl.session, startup.reader, quiet=request.quiet)
    return int(ExitCode.DONE)


def greet(request: ChatRequest) -> None:
    """Which model this is, what it can do and what it cannot."""
    say(f"gpt4video {__version__}: {request.card.name}", style=BOLD)
    say(request.card.summary)
    for limit in request.card.limits:
        say(f"- {limit}")
    say("/help lists the commands, Ctrl-D leaves.", style=DIM)


@contextmanager
def _stoppable(cancel: threading.Event, renderer: Renderer) -> Iterator[None]:
    """Ctrl-C ends the answer where it is; pressed before the answer has begun, or twice, it breaks the work off."""

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set() or not renderer.began:
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "/help lists the commands"
