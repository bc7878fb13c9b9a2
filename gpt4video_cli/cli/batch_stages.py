"""What the pipeline of a batch needs, loaded here or on a worker: decoders, model, gates and what films."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpt4video_cli.batch.job_key import model_digest
from gpt4video_cli.cli.policy_options import open_gates
from gpt4video_cli.cli.terminal import Status
from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.locate import find_model

if TYPE_CHECKING:
    from gpt4video_cli.assistant import Assistant
    from gpt4video_cli.batch.films import FilmMaker
    from gpt4video_cli.batch.pipeline import Stages
    from gpt4video_cli.cli.batch import BatchRequest
    from gpt4video_cli.model.checkpoint import Model


def digest_of(request: BatchRequest) -> str:
    """``model_digest`` of the request's model. Raises ``WeightsError`` where it cannot be read."""
    try:
        return model_digest(request.card, request.folder, request.loading)
    except OSError as error:
        raise WeightsError(f"{error.filename}: cannot be read: {error.strerror}") from error


@contextmanager
def worker_stages(request: BatchRequest, digest: str, *, films: bool) -> Iterator[Stages]:
    """``opened_stages`` on another machine, whose model must be the one with the ``digest``; else ``WeightsError``."""
    card, folder = find_model(request.model)
    here = replace(request, card=card, folder=folder, quiet=True)
    if digest_of(here) != digest:
        raise WeightsError(
            f"{folder}: is not the {request.card.name} of the machine where the run was started",
            hint="give all machines the same model folder and the same version of gpt4video",
        )
    with opened_stages(here, digest, films=films) as stages:
        yield stages


@contextmanager
def opened_stages(request: BatchRequest, digest: str, *, films: bool) -> Iterator[Stages]:
    """Load the model. ``films``: something is to be filmed."""
    from gpt4video_cli.cli.startup import quieten_libraries

    quieten_libraries()
    with Status(f"loading {request.card.name} ...", quiet=request.quiet):
        from gpt4video_cli.assistant import Assistant
        from gpt4video_cli.batch.answering import Answering
        from gpt4video_cli.batch.decoding import AheadReader
        from gpt4video_cli.cli.render import shown_text
        from gpt4video_cli.clip_cache import ClipCache
        from gpt4video_cli.model.checkpoint import open_model
        from gpt4video_cli.video.url import Spool, use_spool

        use_spool(Spool(request.fetching))
        reader = AheadReader(request.workers, limit=request.time_limit)
        reader.warm()
    with reader:
        loaded = open_model(request.model, request.loading)
        loaded.warm()
        gates = open_gates(request.policy)
        assistant = Assistant(loaded, reader, ClipCache() if request.cache else None, gates)
        yield Answering(
            assistant,
            reader,
            model=digest,
            constants=lambda: _constants(request, loaded),
            shown=shown_text,
            maker=_maker(request, assistant) if films else None,
            together=request.rows > 1,
        )


def _constants(request: BatchRequest, model: Model) -> dict[str, Any]:
    """What each result says of the run, as ``chat --json`` says it."""
    from gpt4video_cli.cli.oneshot import versions

    own = request.folder / "adapter"
    adapters = [{"name": one.name, "scale": one.scale, "path": str(one.path)} for one in model.adapters]
    return {
        "model": request.card.name,
        "engine": {**model.choice.as_dict(), "adapters": adapters},
        "adapter": str(own) if own.is_dir() and request.loading.engine.adapters is None else None,
        "versions": versions(),
    }


def _maker(request: BatchRequest, assistant: Assistant) -> FilmMaker:
    """What films. Its model is loaded with the first film."""
    from gpt4video_cli.batch.films import FilmMaker
    from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
    from gpt4video_cli.gallery.new_file import cannot_be_written
    from gpt4video_cli.gallery.options import LoadOptions
    from gpt4video_cli.weights.find_generator import find_generator

    try:
        request.films.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_be_written(request.films, error) from error
    found = find_generator(request.generator)
    generator = DiffusersGenerator(found, LoadOptions(request.loading.device), named=request.generator)
    return FilmMaker(generator, request.generator, request.films, assistant.gates, always=request.film_all)
