"""A batch from its checked command line to its exit code: files opened, model loaded, jobs run, summary said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING

from gpt4video_cli.batch.job import Job, JobFault
from gpt4video_cli.batch.line_file import LineFile
from gpt4video_cli.batch.on_ray import ray_outcomes
from gpt4video_cli.batch.pipeline import Widths, run_stages
from gpt4video_cli.batch.read_jobs import read_jobs
from gpt4video_cli.batch.results import DoneJob, done_jobs, drop_errors, open_file, read_lines
from gpt4video_cli.batch.run import Line, Recorder, RunPlan, Summary, key_for, plan_run, run_jobs, tell_faults
from gpt4video_cli.cli.batch_stages import digest_of, opened_stages, worker_stages
from gpt4video_cli.cli.batch_view import BatchView, count_text, last_words
from gpt4video_cli.cli.options import switches
from gpt4video_cli.cli.policy_options import open_gates
from gpt4video_cli.cli.progress import duration
from gpt4video_cli.cli.startup import quieten_libraries
from gpt4video_cli.cli.terminal import say, say_error
from gpt4video_cli.errors import ExitCode, Gpt4VideoError, UsageError
from gpt4video_cli.safety.verdict import Verdict
from gpt4video_cli.strict_json import one_line

if TYPE_CHECKING:
    from gpt4video_cli.cli.batch import BatchRequest

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
        recorder = Recorder(
            summary, write=_writer(results, request, view), fail=_failer(errors, request, view), tell=view.update
        )
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
    model = digest_of(request) if done else ""
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


def _writer(results: LineFile | None, request: BatchRequest, view: BatchView) -> Callable[[Line], None]:
    out = sys.stdout

    def write(line: Line) -> None:
        if results is not None:
            results.append(line)
        else:
            print(one_line(line), file=out, flush=True)
        if request.verbose:
            with view.paused():
                for verdict in line["verdicts"]:
                    say(f"job {line['id']}: safety: {Verdict(**verdict).line()}")

    return write


def _failer(errors: LineFile | None, request: BatchRequest, view: BatchView) -> Callable[[Line], None]:
    def fail(line: Line) -> None:
        if errors is not None:
            errors.append(line)
        if errors is None or request.verbose:
            with view.paused():
                name = f"job {line['id']}" if line["id"] is not None else f"line {line['line']}"
                say_error(f"{name}: {line['error']}")

    return fail


def _run(request: BatchRequest, plan: RunPlan, recorder: Recorder, view: BatchView) -> None:
    """Load the model, here or on the workers, and do the jobs."""
    films = request.film_all or any(job.generate for job in plan.todo)
    widths = Widths(max(2 * request.workers, SEEN_TOGETHER), request.rows, SEEN_TOGETHER)
    if request.ray is not None:
        quieten_libraries()
        open_gates(request.policy)  # says what is turned off: a worker's own line would be read by nobody
        stages = partial(worker_stages, request, digest_of(request), films=films)
        outcomes = ray_outcomes(plan.todo, stages, request.ray, widths, debug=switches.debug)
        with _only_our_lines(), view:  # the bar is drawn on these streams, and gone before they are
            view.begin()
            run_jobs(outcomes, recorder, fail_fast=request.fail_fast)
        return
    with opened_stages(request, digest_of(request), films=films) as opened:
        view.begin()
        outcomes = run_stages(plan.todo, opened, **vars(widths))
        run_jobs(outcomes, recorder, fail_fast=request.fail_fast)


@contextmanager
def _only_our_lines() -> Iterator[None]:
    """What Ray prints of its workers, some of it from native code, goes nowhere, and to stderr with --debug: stdout is
    for results and stderr for what this program says.
    """
    with ExitStack() as streams:
        if switches.debug:
            streams.enter_context(redirect_stdout(sys.stderr))
            yield
            return
        nowhere = open(os.devnull, "w")  # noqa: SIM115  not closed: Ray keeps it, and writes to it at the very end
        streams.enter_context(redirect_stdout(nowhere))
        kept = os.dup(2)
        streams.callback(os.close, kept)
        if (stderr := sys.__stderr__) is not None and stderr is sys.stderr:
            ours = streams.enter_context(open(os.dup(kept), "w", encoding=stderr.encoding, errors="replace"))
            streams.enter_context(redirect_stderr(ours))
        os.dup2(nowhere.fileno(), 2)
        streams.callback(os.dup2, kept, 2)
        yield


def _how_to_go_on(request: BatchRequest) -> str:
    if request.output is None:
        return ""
    return "; the same command goes on" if request.resume else "; the same command with --resume goes on"


def _place(fault: JobFault) -> str:
    return f"line {fault.line}: " if fault.line is not None else ""
