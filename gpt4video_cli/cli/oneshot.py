"""One answer for a shell script: the answer on stdout, or one JSON object with ``--json``."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Any

from gpt4video_cli import __version__
from gpt4video_cli.cli.chat_films import ChatFilms
from gpt4video_cli.cli.keeping import filmed_clips, write_page
from gpt4video_cli.cli.policy_options import refusal_as_dict
from gpt4video_cli.cli.render import Renderer, print_json, shown_text
from gpt4video_cli.cli.terminal import Status
from gpt4video_cli.errors import ExitCode, Gpt4VideoError
from gpt4video_cli.session import Message
from gpt4video_cli.strict_json import loads

if TYPE_CHECKING:
    from gpt4video_cli.cli.chat import ChatRequest
    from gpt4video_cli.cli.startup import Startup


def answer_once(request: ChatRequest, startup: Startup) -> int:
    """Ask the one question and show its answer; the exit code."""
    assert request.prompt is not None
    loading = f"loading {request.card.name} ..."
    with Status(loading, quiet=request.quiet):
        assistant = startup.load()
    session = request.session
    renderer = Renderer(
        quiet=request.quiet,
        receipts=request.receipts,
        answer=not request.json and request.answer.schema is None,
        waiting=loading,
        verbose=request.verbose,
    )
    renderer.show(assistant.reply(session, Message(request.prompt, request.clips), request.answer, None))
    request.keeper.keep(session)
    films = ChatFilms(quiet=request.quiet, gates=assistant.gates, verbose=request.verbose)
    filmed = films.renderer(preview=request.preview)
    failure: Gpt4VideoError | None = None
    if renderer.refusal is None and renderer.prompts:
        try:
            films.film_all(renderer.prompts, request.film, filmed)
        except Gpt4VideoError as error:
            failure = error
        session.add_films(filmed_clips(filmed.films))
        request.keeper.keep(session)
    if request.json:
        print_json(as_dict(request, renderer, filmed, startup))
    elif request.answer.schema is not None and renderer.refusal is None and renderer.done is not None:
        print_json(loads(renderer.done.answer.encode()))  # whole, where a terminal's line breaks would damage it
    write_page(request.html, session, startup.reader, quiet=request.quiet)
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
        "refusal": refusal_as_dict(refusal),
        "verdicts": [*renderer.verdicts, *filmed.verdicts],
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
        "engine": startup.engine_as_dict(),
        "adapter": str(adapter) if adapter.is_dir() and request.loading.engine.adapters is None else None,
        "seed": done.seed if done else request.answer.seed,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What took part in this answer: of the libraries those that were imported for it."""
    from importlib.metadata import version

    libraries = {"torch": "torch", "transformers": "transformers", "llama_cpp": "llama-cpp-python"}
    found = {name: version(name) for module, name in libraries.items() if module in sys.modules}
    return {"gpt4video": __version__, "python": platform.python_version(), **found}
