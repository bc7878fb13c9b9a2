"""One answer for a shell script: the answer on stdout, or one JSON object with ``--json``."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from gpt4video_cli import __version__
from gpt4video_cli.cli.chat_films import ChatFilms
from gpt4video_cli.cli.render import Renderer, print_json, shown_text
from gpt4video_cli.cli.terminal import Status
from gpt4video_cli.errors import ExitCode, Gpt4VideoError
from gpt4video_cli.session import Message

if TYPE_CHECKING:
    from gpt4video_cli.cli.chat import ChatRequest
    from gpt4video_cli.cli.startup import Startup


def answer_once(request: ChatRequest, startup: Startup) -> int:
    """Ask the one question and show its answer; the exit code."""
    assert request.prompt is not None
    loading = f"loading {request.card.name} ..."
    with Status(loading, quiet=request.quiet):
        assistant = startup.load()
    session = assistant.new_session()
    renderer = Renderer(quiet=request.quiet, receipts=request.receipts, answer=not request.json, waiting=loading)
    renderer.show(assistant.reply(session, Message(request.prompt, request.clips), request.answer, None))
    films = ChatFilms(quiet=request.quiet)
    filmed = films.renderer(preview=request.preview)
    failure: Gpt4VideoError | None = None
    if renderer.refusal is None and renderer.prompts:
        try:
            films.film_all(renderer.prompts, request.film, filmed)
        except Gpt4VideoError as error:
            failure = error
    if request.json:
        print_json(as_dict(request, renderer, filmed, startup))
    if failure is not None:  # told when the answer is out
        raise failure
    if renderer.refusal is not None or filmed.refusal is not None:
        return int(ExitCode.REFUSED)
    return int(ExitCode.DONE)


def as_dict(request: ChatRequest, renderer: Renderer, filmed: Renderer, startup: Startup) -> dict[str, Any]:
    """Everything about one answer, ready for JSON.

    ``timings`` are seconds; ``first_token`` and ``total`` count from the program's start, the stages overlap.
    """
    done = renderer.done
    refusal = renderer.refusal or filmed.refusal
    adapter = request.folder / "adapter"
    return {
        "answer": shown_text(done.answer) if done else "",
        "prompts": renderer.prompts,
        "films": filmed.films,
        "refusal": None if refusal is None else {"guard": refusal.guard, "category": refusal.category},
        "clips": [
            {"number": clip.number, "path": clip.path, "seconds": clip.seconds, "receipt": clip.receipt}
            for clip in renderer.clips
        ],
        "notices": [*renderer.notices, *filmed.notices],
        "finish_reason": done.finish_reason if done else None,
        "tokens": {
            "prompt": done.prompt_tokens if done else 0,
            "reused": done.reused_tokens if done else 0,
            "evaluated": done.evaluated_tokens if done else 0,
            "new": done.new_tokens if done else 0,
        },
        "timings": startup.all_timings(done.timings if done else {}),
        "model": request.card.name,
        "adapter": str(adapter) if adapter.is_dir() else None,
        "seed": done.seed if done else request.answer.seed,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What took part in this answer."""
    import torch
    import transformers

    return {
        "gpt4video": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
    }
