"""A run: which jobs are left, all of them through the stages, each outcome written as it comes, and the summary."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gpt4video_cli.batch.job import Job, JobFault
from gpt4video_cli.batch.job_errors import ends_the_run, error_fields, kind_of
from gpt4video_cli.batch.job_key import clip_contents, job_key
from gpt4video_cli.batch.pipeline import Outcome
from gpt4video_cli.batch.results import DoneJob, error_line
from gpt4video_cli.batch.shard import Shard
from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.video.url import stop_fetching

Key = Callable[[Job, Sequence[str]], str]
"""``job_key`` for the run's model and generator: a job and the fingerprints of its clips -> its key."""
Line = dict[str, Any]


@dataclass(frozen=True)
class RunPlan:
    """What is left to do: ``todo`` in order, jobs that could not be read, and how many earlier runs have ``done``.

    ``later``: left for another run by a limit. ``settled``: the ids of which an earlier failure counts no more, because
    they are done or tried again. ``seconds_a_job``: as fast as the earlier runs were; None: nothing to tell from.
    """

    todo: tuple[Job, ...]
    faults: tuple[JobFault, ...]
    done: int = 0
    later: int = 0
    settled: frozenset[str] = frozenset()
    seconds_a_job: float | None = None

    def settles(self, line: Line) -> bool:
        """Whether a line of the errors file counts no more: lines that could not be read are told anew in each run."""
        return line["id"] is None or line["id"] in self.settled


@dataclass
class Summary:
    """How a run goes, and went. ``failed``: kind of failure -> how many, the jobs that could not be read among them."""

    plan: RunPlan
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        """How many failed."""
        return sum(self.failed.values())

    @property
    def ended(self) -> int:
        """How many ended, in whatever way."""
        return self.answered + self.failures

    @property
    def total(self) -> int:
        """How many are to end in this run."""
        return len(self.plan.todo) + len(self.plan.faults)


def plan_run(
    read: Iterable[Job | JobFault],
    done: Sequence[DoneJob],
    key: Key,
    *,
    shard: Shard | None = None,
    limit: int | None = None,
    order: int | None = None,
    readers: int = 4,
) -> RunPlan:
    """What is left of ``read``, in its order, or with ``order`` in an order drawn with that seed; ``limit`` at most.

    A job is done if a line of ``done`` has its key; each line stands for one job, first for the one with its id.
    ``readers``: clips hashed at a time. Raises ``UsageError`` where lines are there and none is of these jobs.
    """
    shard = shard or Shard()
    mine = [one for one in read if shard.holds(one.id or f"line-{one.line}")]
    jobs = [one for one in mine if isinstance(one, Job)]
    left = _left(jobs, done, key, readers)
    if done and jobs and len(left) == len(jobs):
        raise UsageError(
            f"none of the {len(done)} results is of these jobs: they are of another run",
            hint="name another file with -o, or drop them with --force",
        )
    if order is not None:
        random.Random(order).shuffle(left)
    now = left if limit is None else left[:limit]
    return RunPlan(
        todo=tuple(now),
        faults=tuple(one for one in mine if isinstance(one, JobFault)),
        done=len(jobs) - len(left),
        later=len(left) - len(now),
        settled=frozenset(one.id for one in mine if one.id is not None) - {job.id for job in left[len(now) :]},
        seconds_a_job=seconds_a_job([one.elapsed for one in done]),
    )


def _left(jobs: Sequence[Job], done: Sequence[DoneJob], key: Key, readers: int) -> list[Job]:
    if not done:
        return list(jobs)
    with ThreadPoolExecutor(readers) as pool:
        try:
            keys = list(pool.map(lambda job: _key(job, key), jobs))
        except BaseException:  # Ctrl-C: the pool's end would wait for what its threads fetch
            stop_fetching()
            raise
    lines = Counter(one.key for one in done)
    own = {(one.id, one.key) for one in done}
    finished = {job.id for job, of in zip(jobs, keys, strict=True) if (job.id, of) in own}
    for job, of in zip(jobs, keys, strict=True):
        if job.id in finished:
            lines[of] -= 1
    for job, of in zip(jobs, keys, strict=True):  # the same work under another id: a moved line of a file without ids
        if job.id not in finished and lines.get(of, 0) > 0:
            lines[of] -= 1
            finished.add(job.id)
    return [job for job in jobs if job.id not in finished]


def _key(job: Job, key: Key) -> str:
    """The job's key, or "" where a clip cannot be read: then it is not done, and will say why when it runs."""
    try:
        return key(job, clip_contents(job))
    except (OSError, InputError):
        return ""


def key_for(model: str, generator: Callable[[Job], str | None]) -> Key:
    """See ``Key``."""
    return lambda job, contents: job_key(job, contents, model, generator(job))


def seconds_a_job(elapsed: Sequence[float]) -> float | None:
    """The rate of earlier runs from ``elapsed`` of their lines, in order: a smaller one begins another run."""
    ends = [before for before, after in pairwise([*elapsed, -1.0]) if after < before]
    return sum(ends) / len(elapsed) if ends else None


class Recorder:
    """Writes outcomes as they come and keeps the ``summary``. ``write`` gets the line of each result, ``fail`` that of
    each failure; ``tell`` is called after each. What they raise ends the run."""

    def __init__(
        self, summary: Summary, *, write: Callable[[Line], None], fail: Callable[[Line], None], tell: Callable[[], None]
    ) -> None:
        self.summary = summary
        self._write, self._fail, self._tell = write, fail, tell
        self._began = time.perf_counter()

    def begin(self) -> None:
        """From here on the run's seconds count."""
        self._began = time.perf_counter()

    def answered(self, record: Line) -> None:
        """A job is done."""
        self._write({**record, "elapsed": self._elapsed()})
        self.summary.answered += 1
        self._tell()

    def failed(self, job: Job | JobFault, error: Exception) -> None:
        """A job failed."""
        self._fail({**error_line(job.id), **error_fields(job, error), "elapsed": self._elapsed()})
        self.summary.failed[kind_of(error)] += 1
        self._tell()

    def _elapsed(self) -> float:
        self.summary.seconds = time.perf_counter() - self._began
        return round(self.summary.seconds, 4)


def tell_faults(plan: RunPlan, recorder: Recorder, *, fail_fast: bool = False) -> bool:
    """Record the jobs that could not be read; whether the others may run."""
    for fault in plan.faults:
        recorder.failed(fault, fault.error)
        if fail_fast:
            return False
    return True


def run_jobs(outcomes: Iterator[Outcome], recorder: Recorder, *, fail_fast: bool = False) -> None:
    """Record how the jobs end, wherever they are done. ``fail_fast``: stop at a failure. ``outcomes`` is closed.

    Raises what the recorder raises, and the error of a job which shows that none can be done (``WeightsError``).
    """
    recorder.begin()
    with closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.record is not None:
                recorder.answered(outcome.record)
            elif outcome.error is not None:
                if ends_the_run(outcome.error):
                    raise outcome.error
                recorder.failed(outcome.job, outcome.error)
                if fail_fast:
                    return
