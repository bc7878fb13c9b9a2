"""A batch from its checked command line to its exit code: files opened, model loaded, jobs run, summary said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from gpt4video_cli.batch.job import Job, JobFault
from gpt4video_cli.batch.job_key import model_digest
from gpt4video_cli.batch.line_file import LineFile
from gpt4video_cli.batch.read_jobs import read_jobs
from gpt4video_cli.batch.results import DoneJob, done_jobs, drop_errors, open_file, read_lines
from gpt4video_cli.batch.run import Recorder, RunPlan, Summary, key_for, plan_run, run_jobs, tell_faults
from gpt4video_cli.cli.batch_view import BatchView, count_text, last_words
from gpt4video_cli.cli.policy_options import open_gates
from gpt4video_cli.cli.progress import duration
from gpt4video_cli.cli.terminal import Status, say, say_error
from gpt4video_cli.errors import ExitCode, Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.strict_json import one_line

if TYPE_CHECKING:
    from gpt4video_cli.assistant import Assistant
    from gpt4video_cli.batch.films import FilmMaker
    from gpt4video_cli.cli.batch import BatchRequest
    from gpt4video_cli.model.checkpoint import Model

SEEN_TOGETHER = 4
"""Jobs whose clips are encoded at once at most."""


def tell_plan(request: BatchRequest) -> int:
    """``--dry-run``: how many jobs would run, are done, cannot be read, and how long it will take."""
    done: list[DoneJob] = []
    if request.output is not None and request.output.exists() and not request.force:
        done = done_jobs(request.output, read_lines(request.output, "result"))
        if done and not request.resume:
            say(f"note: {request.output} holds results; the run would be refused without --resume or --force")
    plan = _plan(request, _read(request), done if request.resume else [])
    count, rate = len(plan.todo), plan.seconds_a_job
    print(f"would run: {count}")
    print(f"done: {plan.done}")
    print(f"left for later: {plan.later}")
    print(f"cannot be read: {len(plan.faults)}")
    if rate is None:
        print("time: not known, because there are no earlier results to tell it from")
    else:
        print(f"time: about {duration(rate * count)} ({rate:.2g} s a job in {len(done)} earlier results)")
    for fault in plan.faults:
        say(f"note: {_place(fault)}{fault.error.line()}")
    return int(ExitCode.DONE)


def run_batch(request: BatchRequest) -> int:
    """Run the jobs; the exit code."""
    with ExitStack() as files:
        results, errors, plan = _open(request, files)
        summary = Summary(plan)
        view = files.enter_context(
            BatchView(summary, quiet=request.quiet, log=request.log, bar=request.output is not None)
        )
        recorder = Recorder(summary, write=_writer(results), fail=_failer(errors, view), tell=view.update)
        try:
            if tell_faults(plan, recorder, fail_fast=request.fail_fast) and plan.todo:
                _run(request, plan, recorder, view)
        except (KeyboardInterrupt, Gpt4VideoError) as error:
            view.close()
            word = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
            say(f"{word}: {count_text(summary)}{_how_to_go_on(request)}")
            raise
        view.close()
        if not request.quiet:
            rest = _how_to_go_on(request) if summary.ended < summary.total else ""
            say(last_words(summary, request.output, request.errors) + rest)
    return int(ExitCode.PARTIAL if summary.failures else ExitCode.DONE)


def _read(request: BatchRequest) -> list[Job | JobFault]:
    return read_jobs(request.jobs, request.defaults, None if sys.stdin is None else sys.stdin.buffer)


def _open(request: BatchRequest, files: ExitStack) -> tuple[LineFile | None, LineFile | None, RunPlan]:
    """The results file and the errors file, and what is left to do. Nothing is loaded yet."""
    read = _read(request)
    results = errors = None
    done: list[DoneJob] = []
    if request.output is not None:
        results, lines = open_file(request.output, "result", resume=request.resume, force=request.force)
        files.enter_context(results)
        done = done_jobs(request.output, lines)
    plan = _plan(request, read, done)
    if request.errors is not None:
        errors, _ = open_file(request.errors, "error", resume=request.resume, force=request.force)
        if request.resume:
            errors = drop_errors(errors, plan.settles)
        files.enter_context(errors)
    return results, errors, plan


def _plan(request: BatchRequest, read: list[Job | JobFault], done: list[DoneJob]) -> RunPlan:
    model = _model_digest(request) if done else ""
    if any(one.model_digest != model for one in done):
        raise UsageError(
            f"{request.output}: holds results of another model than {request.card.name} as it is now",
            hint="give the --engine and --adapter of that run, name another file with -o, or drop them with --force",
        )
    return plan_run(
        read,
        done,
        key_for(model, lambda job: request.generator if request.film_all or job.generate else None),
        shard=request.shard,
        limit=request.limit,
        order=request.order,
        readers=request.workers,
    )


def _model_digest(request: BatchRequest) -> str:
    try:
        return model_digest(request.card, request.folder, request.loading)
    except OSError as error:
        raise WeightsError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _writer(results: LineFile | None) -> Callable[[dict[str, Any]], None]:
    return results.append if results is not None else lambda line: print(one_line(line), flush=True)


def _failer(errors: LineFile | None, view: BatchView) -> Callable[[dict[str, Any]], None]:
    def say_it(line: dict[str, Any]) -> None:
        with view.paused():
            name = f"job {line['id']}" if line["id"] is not None else f"line {line['line']}"
            say_error(f"{name}: {line['error']}")

    return errors.append if errors is not None else say_it


def _run(request: BatchRequest, plan: RunPlan, recorder: Recorder, view: BatchView) -> None:
    """Load the model and do the jobs."""
    from gpt4video_cli.cli.startup import quieten_libraries

    quieten_libraries()
    with Status(f"loading {request.card.name} ...", quiet=request.quiet):
        from gpt4video_cli.assistant import Assistant
        from gpt4video_cli.batch.answering import Answering
        from gpt4video_cli.batch.decoding import AheadReader
        from gpt4video_cli.cli.render import shown_text
        from gpt4video_cli.clip_cache import ClipCache
        from gpt4video_cli.model.checkpoint import open_model

        reader = AheadReader(request.workers, limit=request.time_limit)
        reader.warm()
    with reader:
        loaded = open_model(request.model, request.loading)
        loaded.warm()
        gates = open_gates(request.policy)
        assistant = Assistant(loaded, reader, ClipCache() if request.cache else None, gates)
        stages = Answering(
            assistant,
            reader,
            model=_model_digest(request),
            constants=lambda: _constants(request, loaded),
            shown=shown_text,
            maker=_maker(request, plan, assistant),
            together=request.rows > 1,
        )
        view.begin()
        run_jobs(
            plan,
            stages,
            recorder,
            ahead=max(2 * request.workers, SEEN_TOGETHER),
            rows=request.rows,
            together=SEEN_TOGETHER,
            fail_fast=request.fail_fast,
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


def _maker(request: BatchRequest, plan: RunPlan, assistant: Assistant) -> FilmMaker | None:
    """What films, if anything is to be filmed. Its model is loaded with the first film."""
    if not (request.film_all or any(job.generate for job in plan.todo)):
        return None
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


def _how_to_go_on(request: BatchRequest) -> str:
    if request.output is None:
        return ""
    return "; the same command goes on" if request.resume else "; the same command with --resume goes on"


def _place(fault: JobFault) -> str:
    return f"line {fault.line}: " if fault.line is not None else ""
