"""Three stages side by side: clips of later jobs are decoded and encoded while earlier jobs are answered.

    jobs -> begin (decoders, child processes) -> see (vision, one thread) -> answer (language, ``rows`` threads)

Each hand-over is bounded: at most ``ahead`` jobs are begun and not yet seen, and at most ``rows`` wait for an answer,
so that memory does not grow with the number of jobs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from gpt4video_cli.batch.job import Job


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with its record, or with what was raised."""

    job: Job
    record: dict[str, Any] | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Widths:
    """How much goes on at once in one pipeline; see ``run_stages``."""

    ahead: int
    rows: int
    together: int

    @property
    def jobs(self) -> int:
        """Jobs that one pipeline can have in hand."""
        return self.ahead + self.rows


class Stages(Protocol):
    """What is done with each job. Whatever a stage raises ends that job alone."""

    def begin(self, job: Job, ready: Callable[[], None]) -> None:
        """Start what takes time elsewhere, and return at once; ``ready`` is to be called when it has ended in any way.

        So a clip that hangs its decoder holds up no other job. What is raised instead ends the job.
        """
        ...

    def see(self, jobs: Sequence[Job]) -> list[Any]:
        """Encode the clips of one or more jobs; for each what ``answer`` needs, or the exception that ends it."""
        ...

    def answer(self, job: Job, seen: Any) -> dict[str, Any]:
        """The record of the job. Called by several threads at once where ``rows`` is above 1."""
        ...

    def stop(self) -> None:
        """Make whatever is going on in the other three end soon, in any way."""
        ...


@dataclass(frozen=True)
class _Seen:
    job: Job
    found: Any


def run_stages(jobs: Iterable[Job], stages: Stages, *, ahead: int, rows: int, together: int = 1) -> Iterator[Outcome]:
    """One outcome for each of ``jobs``, as they end. Closing the iterator stops everything and waits for the threads.

    ``jobs`` may still be coming. ``together``: so many jobs are seen at once at most, if they are waiting.
    """
    stop = threading.Event()
    slots = threading.Semaphore(ahead)
    begun: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # as they become ready; None: no more are begun
    count = 0
    ready: queue.Queue[_Seen | None] = queue.Queue(rows)
    outcomes: queue.SimpleQueue[Outcome | int] = queue.SimpleQueue()  # and how many jobs there were

    def feed() -> None:
        nonlocal count
        fed = 0
        for job in jobs:
            fed += 1
            slots.acquire()
            if stop.is_set():
                break
            try:
                stages.begin(job, partial(begun.put, job))
            except Exception as error:
                slots.release()
                outcomes.put(Outcome(job, error=error))
            else:
                count += 1
        begun.put(None)
        outcomes.put(fed)

    def look() -> None:
        seen, fed = 0, False
        while not fed or seen < count:
            group = [begun.get()]
            while len(group) < together and not begun.empty():
                group.append(begun.get())
            fed = fed or None in group
            waiting = [job for job in group if job is not None]
            seen += len(waiting)
            try:
                found = [None] * len(waiting) if stop.is_set() or not waiting else stages.see(waiting)
            except Exception as error:
                found = [error] * len(waiting)
            for job, one in zip(waiting, found, strict=True):
                slots.release()
                if isinstance(one, Exception):
                    outcomes.put(Outcome(job, error=one))
                elif not stop.is_set():
                    ready.put(_Seen(job, one))
        for _ in range(rows):
            ready.put(None)

    def reply() -> None:
        while (seen := ready.get()) is not None:
            if stop.is_set():
                continue
            try:
                outcomes.put(Outcome(seen.job, stages.answer(seen.job, seen.found)))
            except Exception as error:
                outcomes.put(Outcome(seen.job, error=error))

    threads = [threading.Thread(target=target, daemon=True) for target in (feed, look, *[reply] * rows)]
    for thread in threads:
        thread.start()
    try:
        ended, total = 0, None
        while ended != total:
            match outcomes.get():
                case int(fed):
                    total = fed
                case outcome:
                    ended += 1
                    yield outcome
    finally:
        stop.set()
        stages.stop()
        slots.release()  # the feeder may wait for a slot
        for thread in threads:
            thread.join()
