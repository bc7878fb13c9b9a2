"""Filming what ``gpt4video generate`` asks for, with a progress bar where there is a terminal to draw it on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.assistant import Assistant, Message, film
from gpt4video_cli.cli.film_times import remember
from gpt4video_cli.cli.progress import ProgressBar
from gpt4video_cli.cli.render import print_json, shown_text
from gpt4video_cli.cli.startup import quieten_libraries
from gpt4video_cli.cli.terminal import DIM, RED, Status, clean_line, say
from gpt4video_cli.errors import CancelledError, ExitCode, GenerationError
from gpt4video_cli.events import ClipReady, Event, GenerationProgress, GenerationPrompt, Notice, Refusal
from gpt4video_cli.gallery.clip_file import check_target, default_name, side_car_path
from gpt4video_cli.gallery.delivery import FilmOrder, settings_of
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator, seeded
from gpt4video_cli.safety.verdict import Subject

if TYPE_CHECKING:
    from gpt4video_cli.cli.generate import GenerateRequest
    from gpt4video_cli.gallery.generator import FilmRequest, Generator


def film_all(request: GenerateRequest) -> int:
    """Film all that is asked for; the exit code. Each path is printed when its clip is written."""
    quieten_libraries()
    generator = DiffusersGenerator(request.found, request.loading, named=request.named)
    if request.resume is None:
        generator.check(request.film)
    next(_orders(request, [request.film.prompt]))  # a name that cannot be is refused now, before anything is loaded
    show = _Show(request)
    if request.made_by not in (None, generator.revision):
        show.note(f"the model is not the one that made the clip ({generator.revision}, not {request.made_by})")
    prompts = [request.film.prompt]
    if request.text is not None:
        prompts = _written(request, show)
        if show.refused:
            return show.finish()
    said: set[Subject] = set()
    for order in _orders(request, prompts):
        show.all(filming(generator, order, said))
        if show.refused:
            break
    return show.finish()


def filming(generator: Generator, order: FilmOrder, said: set[Subject]) -> Iterator[Event]:
    """``assistant.film`` for a person: Ctrl-C is ``KeyboardInterrupt``; latents that are left behind are told."""
    try:
        yield from film(generator, order, said)
    except BaseException as error:
        if order.latents.exists() and not isinstance(error, GenerationError):
            say(f"note: what was filmed is kept; decode it with: gpt4video generate --resume {order.latents}")
        if isinstance(error, CancelledError):
            raise KeyboardInterrupt from error
        raise


def film_as_dict(event: ClipReady, *, metadata: bool) -> dict[str, Any]:
    """Everything about a filmed clip, ready for JSON."""
    assert event.film is not None
    made, wanted = event.film, event.film.request
    return {
        "path": event.path,
        "side_car": os.fspath(side_car_path(event.path)) if metadata else None,
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt,
        "seed": wanted.seed,
        "model": made.model,
        "revision": made.revision,
        "settings": settings_of(made),
        "seconds": {name: round(value, 4) for name, value in made.seconds.items()},
    }


def _written(request: GenerateRequest, show: _Show) -> list[str]:
    """The prompts that the assistant writes for the text, exactly those that it asks to be filmed."""
    answer = ""
    with Status(f"loading {request.model} ...", quiet=request.quiet):
        assistant = Assistant.open(request.model, device=request.loading.device)
    with assistant:
        with Status("writing the prompt ...", quiet=request.quiet) as status:
            prompts = []
            for event in assistant.reply(assistant.new_session(), Message(request.text or "")):
                if isinstance(event, GenerationPrompt):
                    prompts.append(event.prompt)
                elif isinstance(event, Notice | Refusal):
                    status.clear()
                    show.event(event)
                answer = getattr(event, "answer", answer)
    if not prompts and not show.refused:
        said = f", it said: {shown_text(answer)[:200]}" if answer.strip() else ""
        raise GenerationError(f"the assistant asked for no clip{said}", hint="--raw films the text as it is")
    for prompt in prompts:
        show.note(f'prompt: "{prompt}"')
    return prompts


def _orders(request: GenerateRequest, prompts: list[str]) -> Iterator[FilmOrder]:
    """What to film and where to put it: all samples of the first prompt, then of the next. Each name is checked."""
    count = len(prompts) * request.samples
    for number in range(count):
        prompt = prompts[number // request.samples]
        wanted = seeded(replace(request.film, prompt=prompt), number % request.samples)
        clip = _name(request, wanted, number + 1 if count > 1 else None)
        check_target(clip, force=request.force, side_car=request.metadata)
        yield FilmOrder(wanted, clip, number + 1, request.force, request.metadata, request.resume)


def _name(request: GenerateRequest, wanted: FilmRequest, number: int | None) -> str:
    """``a.mp4`` for ``-o a.mp4``, ``a-1.mp4``, ``a-2.mp4`` where there are several; by default the prompt's words."""
    if request.output is None:
        return os.fspath(default_name(wanted.prompt, wanted.seed, Path()))
    if number is None:
        return request.output
    name = request.output.rstrip("/")
    stem, ending = os.path.splitext(name)
    return f"{stem}-{number}{ending}{request.output[len(name) :][:1]}"


class _Show:
    """Events for a person and for scripts: paths or JSON on stdout, notes and a bar on stderr."""

    def __init__(self, request: GenerateRequest) -> None:
        self._request = request
        self._bar = ProgressBar(quiet=request.quiet)
        self._clips: list[dict[str, Any]] = []
        self._notices: list[str] = []
        self.refused: Refusal | None = None

    def all(self, events: Iterator[Event]) -> None:
        """Show everything until the events end; however they end, the bar goes away and the generator stops."""
        with closing(events), self._bar:  # type: ignore[type-var]
            for event in events:
                self.event(event)

    def event(self, event: Event) -> None:
        """Show one."""
        match event:
            case GenerationProgress():
                self._bar.show(event)
            case Notice():
                self.note(event.text)
            case Refusal():
                self.refused = event
                self._bar.clear()
                say(f"refused ({event.guard}, {event.category}): {event.message}", style=RED)
            case ClipReady():
                self._bar.clear()
                self._ready(event)

    def note(self, text: str) -> None:
        """A line for the person, kept for the JSON form too."""
        self._notices.append(text)
        if not self._request.quiet:
            self._bar.clear()
            say(f"note: {text}", style=DIM)

    def _ready(self, event: ClipReady) -> None:
        assert event.film is not None
        self._clips.append(film_as_dict(event, metadata=self._request.metadata))
        remember(event.film)
        if not self._request.json:
            print(clean_line(event.path), flush=True)
        if self._request.preview and not self._request.quiet:
            from gpt4video_cli.cli.preview import draw_strip

            draw_strip(event.film.frames, enabled=True)

    def finish(self) -> int:
        """The JSON form, if it was asked for; the exit code."""
        if self._request.json:
            refused = self.refused
            print_json(
                {
                    "clips": self._clips,
                    "notices": self._notices,
                    "refusal": None if refused is None else {"guard": refused.guard, "category": refused.category},
                }
            )
        return int(ExitCode.REFUSED if self.refused else ExitCode.DONE)
