"""Clips that the model asks for in a conversation: shown with what they cost, then filmed, changed or skipped."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from gpt4video_cli.cli.film_times import expected_seconds
from gpt4video_cli.cli.progress import duration
from gpt4video_cli.cli.render import Renderer
from gpt4video_cli.cli.terminal import no_echo, say
from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.clip_name import default_name
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.options import LoadOptions
from gpt4video_cli.safety.verdict import Subject
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR, find_generator

if TYPE_CHECKING:
    from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
    from gpt4video_cli.safety.gates import Gates

Mode = Literal["ask", "yes", "no"]


@dataclass(frozen=True)
class FilmWishes:
    """How a conversation films. ``request``: everything but the prompt. ``folder``: where the clips go."""

    mode: Mode = "ask"
    generator: str = DEFAULT_GENERATOR
    folder: str = "."
    request: FilmRequest = field(default_factory=lambda: FilmRequest(""))
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"generate is {self.mode!r}; it must be one of {', '.join(get_args(Mode))}")


class ChatFilms:
    """Films the prompts of one conversation. The generator is loaded when the first clip is filmed, and kept."""

    def __init__(self, *, quiet: bool = False, gates: Gates | None = None, verbose: bool = False) -> None:
        """``gates``: see ``assistant.film``."""
        self._quiet, self._verbose = quiet, verbose
        self._gates = gates
        self._generator: DiffusersGenerator | None = None
        self._wanted: tuple[str, str] | None = None
        self._filmed: Counter[str] = Counter()
        self._said: set[Subject] = set()

    def renderer(self, *, preview: bool) -> Renderer:
        """For ``film_all``, which may fail half way: what was filmed until then stands in the renderer's ``films``."""
        return Renderer(quiet=self._quiet, answer=False, waiting="", preview=preview, verbose=self._verbose)

    def film_all(self, prompts: list[str], wishes: FilmWishes, renderer: Renderer) -> None:
        """Decide about each of ``prompts`` and film it. A refusal ends it, unless the person writes another prompt."""
        for number, prompt in enumerate(prompts, start=1):
            if renderer.refusal is not None:
                break
            chosen = self._choose(prompt, wishes)
            while chosen is not None:
                self._film(chosen, number, wishes, renderer)
                chosen = self._rewritten(chosen, wishes, renderer)

    def _choose(self, prompt: str, wishes: FilmWishes) -> str | None:
        """The prompt to film, as it is or changed; None to skip it."""
        if wishes.mode == "no":
            return None
        if not self._quiet:
            say(self._cost(prompt, wishes))
        return ask_about(prompt) if wishes.mode == "ask" else prompt

    def _rewritten(self, prompt: str, wishes: FilmWishes, renderer: Renderer) -> str | None:
        """What the person writes instead of ``prompt`` if it was refused; None if nothing, or nobody can be asked."""
        if renderer.refusal is None or wishes.mode != "ask":
            return None
        changed = ask_to_rewrite(prompt)
        if changed is not None:
            renderer.refusal = None
        return changed

    def _cost(self, prompt: str, wishes: FilmWishes) -> str:
        """What filming ``prompt`` will take. Raises ``UsageError`` or ``WeightsError`` where it cannot be filmed."""
        generator = self._open(wishes)
        request = generator.check(replace(wishes.request, prompt=prompt))
        seconds = expected_seconds(request, generator.revision, loaded=generator.loaded)
        time = "how long it takes here is not known yet" if seconds is None else f"about {duration(seconds)}"
        frames = f"{request.frames} frames of {request.width}x{request.height}"
        return f"{generator.card.name}: {frames}, {request.steps} steps, {time}"

    def _film(self, prompt: str, number: int, wishes: FilmWishes, renderer: Renderer) -> None:
        from gpt4video_cli.cli.film import filming
        from gpt4video_cli.gallery.clip_file import check_target
        from gpt4video_cli.gallery.delivery import FilmOrder
        from gpt4video_cli.safety.gates import Gates

        generator = self._open(wishes)
        # The same words once more are a wish for another clip.
        request = replace(wishes.request, prompt=prompt, seed=wishes.request.seed + self._filmed[prompt])
        generator.check(request)
        clip = os.fspath(default_name(prompt, request.seed, Path(wishes.folder)))
        check_target(clip, force=False, side_car=True)
        before = len(renderer.films)
        order = FilmOrder(request, clip, number)
        with closing(filming(generator, order, self._gates or Gates.open(), self._said)) as events, no_echo():  # type: ignore[type-var]
            renderer.show(events)
        self._filmed[prompt] += len(renderer.films) - before

    def _open(self, wishes: FilmWishes) -> DiffusersGenerator:
        wanted = (wishes.generator, wishes.device)
        if self._generator is None or self._wanted != wanted:
            from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator

            self._generator = None  # the old one's memory goes before the new one is read
            found = find_generator(wishes.generator)
            self._generator = DiffusersGenerator(found, LoadOptions(wishes.device), named=wishes.generator)
            self._wanted = wanted
        return self._generator


def ask_about(prompt: str) -> str | None:
    """Ask the person at the terminal: ``prompt`` to be filmed as it is or edited, or None. Ctrl-C and Ctrl-D skip."""
    from gpt4video_cli.cli.line_editor import ask_line

    try:
        while True:
            answer = ask_line("film it? [Y]es, [e]dit, [s]kip: ").strip().lower()
            if answer in ("", "y", "yes"):
                return prompt
            if answer in ("s", "skip", "n", "no"):
                return None
            if answer in ("e", "edit"):
                return ask_line("prompt: ", default=prompt).strip() or None
    except (KeyboardInterrupt, EOFError):
        return None


def ask_to_rewrite(prompt: str) -> str | None:
    """Ask the person at the terminal for another prompt in place of one that was refused; None if they do not want."""
    from gpt4video_cli.cli.line_editor import ask_line

    try:
        if ask_line("write another prompt? [y]es, [N]o: ").strip().lower() not in ("y", "yes"):
            return None
        changed = ask_line("prompt: ", default=prompt).strip()
        return changed if changed and changed != prompt else None
    except (KeyboardInterrupt, EOFError):
        return None
