"""What one worker of a Ray cluster does: the pipeline of ``pipeline.py``, over the jobs that Ray sends to it.

Nothing of Ray is imported here. What comes back is text, so that nothing of a worker has to be unpickled.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from gpt4video_cli.batch.job import Job
from gpt4video_cli.batch.job_errors import ends_the_run, error_fields
from gpt4video_cli.batch.pipeline import Outcome, Stages, Widths, run_stages
from gpt4video_cli.strict_json import one_line

OpenStages = Callable[[], AbstractContextManager[Stages]]
"""Loads what the stages need, in the process that calls it."""


class RayWorker:
    """One pipeline, made once in each worker's process. Each call is a job and waits for its end, in a thread of its
    own. ``folder``: where relative paths of clips start, if it is there on this machine."""

    def __init__(self, open_stages: OpenStages, folder: str, widths: Widths) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ends: dict[str, Future[Outcome]] = {}
        self._error: Exception | None = None
        with contextlib.suppress(OSError):  # else the jobs say which clip is missing
            os.chdir(folder)
        try:
            self._opened = open_stages()
            stages = self._opened.__enter__()  # left open: the process ends with the run
        except Exception as error:  # told by each job: Ray would make a worker that cannot start again and again
            self._error = error
        else:
            threading.Thread(target=self._run, args=(stages, widths), daemon=True).start()

    def _run(self, stages: Stages, widths: Widths) -> None:
        jobs = iter(self._jobs.get, None)
        for outcome in run_stages(jobs, stages, ahead=widths.ahead, rows=widths.rows, together=widths.together):
            self._ends.pop(outcome.job.id).set_result(outcome)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """``index`` and ``job`` -> ``index`` and either the ``record`` or the ``failure`` (``error_fields``), as JSON;
        ``ends``: see ``ends_the_run``."""
        job: Job = row["job"]
        if self._error is not None:
            outcome, ends = Outcome(job, error=self._error), True
        else:
            end = self._ends[job.id] = Future()
            self._jobs.put(job)
            outcome = end.result()
            ends = outcome.error is not None and ends_the_run(outcome.error)
        failure = "" if outcome.error is None else one_line(error_fields(job, outcome.error))
        return {"index": row["index"], "record": one_line(outcome.record), "failure": failure, "ends": ends}
