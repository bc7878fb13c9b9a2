"""Filming what ``gpt4video generate`` asks for; how it looks is ``render.py``'s business."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.assistant import Assistant, Message, film
from gpt4video_cli.cli.policy_options import open_gates, refusal_as_dict
from gpt4video_cli.cli.render import Renderer, print_json, shown_text
from gpt4video_cli.cli.startup import quieten_libraries
from gpt4video_cli.cli.terminal import Status, say
from gpt4video_cli.errors import CancelledError, ExitCode, GenerationError
from gpt4video_cli.events import Event, GenerationPrompt, Notice, Refusal, Screened
from gpt4video_cli.gallery.clip_file import check_target, default_name
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator, seeded
from gpt4video_cli.safety.verdict import Subject

if TYPE_CHECKING:
    from gpt4video_cli.cli.generate import GenerateRequest
    from gpt4video_cli.gallery.generator import FilmRequest, Generator
    from gpt4video_cli.safety.gates import Gates


def film_all(request: GenerateRequest) -> int:
    """Film all that is asked for; the exit code. Each path is printed when its clip is written."""
    quieten_libraries()
    generator = DiffusersGenerator(request.found, request.loading, named=request.named)
    if request.resume is None:
        generator.check(request.film)
    next(_orders(request, [request.film.prompt]))  # a name that cannot be is refused now, before anything is loaded
    gates = open_gates(request.policy)
    show = Renderer(
        verbose=request.verbose,
        quiet=request.quiet,
        answer=False,
        waiting="",
        preview=request.preview,
        paths=not request.json,
        metadata=request.metadata,
    )
    if request.made_by not in (None, generator.revision):
        made = f"the model is not the one that made the clip ({generator.revision}, not {request.made_by})"
        show.event(Notice(made))
    prompts = [request.film.prompt] if request.text is None else _written(request, gates, show)
    said: set[Subject] = set()
    for order in _orders(request, prompts):
        if show.refusal is not None:
            break
        with closing(filming(generator, order, gates, said)) as events:  # type: ignore[type-var]
            show.show(events)
    if request.json:
        refusal = refusal_as_dict(show.refusal)
        print_json({"clips": show.films, "notices": show.notices, "refusal": refusal, "verdicts": show.verdicts})
    return int(ExitCode.DONE if show.refusal is None else ExitCode.REFUSED)


def filming(generator: Generator, order: FilmOrder, gates: Gates, said: set[Subject]) -> Iterator[Event]:
    """``assistant.film`` for a person: Ctrl-C is ``KeyboardInterrupt``; latents that are left behind are told."""
    try:
        yield from film(generator, order, gates, said)
    except BaseException as error:
        if order.latents.exists() and not isinstance(error, GenerationError):
            say(f"note: what was filmed is kept; decode it with: gpt4video generate --resume {order.latents}")
        if isinstance(error, CancelledError):
            raise KeyboardInterrupt from error
        raise


def _written(request: GenerateRequest, gates: Gates, show: Renderer) -> list[str]:
    """The prompts that the assistant writes for the text, exactly those that it asks to be filmed."""
    answer = ""
    with Status(f"loading {request.model} ...", quiet=request.quiet):
        assistant = Assistant.open(request.model, device=request.loading.device, gates=gates)
    with assistant:
        with Status("writing the prompt ...", quiet=request.quiet) as status:
            prompts = []
            for event in assistant.reply(assistant.new_session(), Message(request.text or "")):
                if isinstance(event, GenerationPrompt):
                    prompts.append(event.prompt)
                elif isinstance(event, Notice | Refusal | Screened):
                    status.clear()
                    show.event(event)
                answer = getattr(event, "answer", answer)
    if not prompts and show.refusal is None:
        said = f", it said: {shown_text(answer)[:200]}" if answer.strip() else ""
        raise GenerationError(f"the assistant asked for no clip{said}", hint="--raw films the text as it is")
    for prompt in prompts:
        show.event(Notice(f'prompt: "{prompt}"'))
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
