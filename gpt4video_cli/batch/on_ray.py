"""The same jobs on a Ray cluster, which may be many machines: Ray Data sends them to workers and gives back their ends.

    jobs -> Ray Data, one block for each -> workers (actors), each with a pipeline -> outcomes, as jobs end

There is a worker for each GPU of the cluster or, without GPUs, for each slot of CPUs. Ray holds back jobs while all
workers have as many as they can take, starts workers that died again and sends them their jobs once more. A job that
is lost a second time is tried alone at the end, so that one which kills its worker takes no other with it; only then
it has failed. Results and failures are written where the command was given, and nowhere else.

Ray is told to send no usage statistics and to start no dashboard.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from gpt4video_cli.batch.job import Job
from gpt4video_cli.batch.job_errors import FailedElsewhere
from gpt4video_cli.batch.pipeline import Outcome, Widths
from gpt4video_cli.batch.ray_worker import OpenStages, RayWorker
from gpt4video_cli.errors import Gpt4VideoError, UsageError, WorkerDiedError
from gpt4video_cli.strict_json import loads

ADDRESS = re.compile(r"auto|local|(ray://)?[^/\s]+:\d{1,5}")
LOCAL = "local"
"""The address that starts a cluster on this machine, for this run only."""
_SETTINGS = "GPT4VIDEO_"
"""Environment variables that begin so hold on all machines."""


@dataclass(frozen=True)
class RayWish:
    """``address``: ``HOST:PORT``, ``auto`` (``RAY_ADDRESS``, or the cluster that runs on this machine) or ``local``.

    ``cpus``: CPUs of a worker. ``gpus``: take a GPU for each worker, if the cluster has any.
    """

    address: str
    cpus: int = 1
    gpus: bool = True


def check_ray_installed() -> None:
    """Refuse what needs Ray where it is not installed. Nothing is imported for that."""
    if any(find_spec(name) is None for name in ("ray", "pyarrow", "pandas")):
        raise UsageError("--ray needs Ray", hint="pip install 'gpt4video[ray]'")


def ray_outcomes(
    jobs: Sequence[Job], open_stages: OpenStages, wish: RayWish, widths: Widths, *, debug: bool = False
) -> Iterator[Outcome]:
    """One outcome for each of ``jobs``, as they end. Closing the iterator stops everything. ``debug``: Ray may talk.

    ``open_stages`` and the jobs are pickled. Raises ``Gpt4VideoError`` where there is no cluster, or it is gone.
    """
    ray = _connect(wish, debug)
    try:
        slots, each = _slots(ray, wish)
        left = dict(enumerate(jobs))
        for retries, at_once in ((1, widths.jobs), (0, 1)):
            compute = (min(slots, len(left)), at_once, retries)
            for row in _rows(list(left.items()), [open_stages, os.getcwd(), widths], each, *compute):
                yield _outcome(left.pop(row["index"]), row)
            if not left:
                return
    except ray.exceptions.RayError as error:
        raise Gpt4VideoError(f"the Ray cluster failed: {_short(error)}") from error
    finally:
        ray.shutdown()
    for job in left.values():
        yield Outcome(job, error=WorkerDiedError("its worker died, and again when it had no other job"))


def _connect(wish: RayWish, debug: bool) -> Any:
    """Ray, connected."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if wish.address == LOCAL and "RAY_AUTH_MODE" not in os.environ:  # else Ray writes a token into the home folder
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    import ray
    import ray.data

    own = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    options: dict[str, Any] = {"include_dashboard": False} if wish.address == LOCAL else {}
    try:
        ray.init(
            address=wish.address,
            log_to_driver=debug,
            logging_level=logging.INFO if debug else logging.CRITICAL,
            runtime_env={"env_vars": own},
            **options,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"--ray {wish.address}: {_short(error.__cause__ or error)}",
            hint="`ray start --head` starts a cluster; --ray local starts one for this run",
        ) from error
    if not debug:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = debug
    context.max_errored_blocks = -1  # a lost job is not the end of the others
    return ray


def _short(error: BaseException) -> str:
    """The beginning of what Ray says, which goes on for a page, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".")


def _slots(ray: Any, wish: RayWish) -> tuple[int, dict[str, float]]:
    """How many workers the cluster has room for, and what each takes. A worker is on one machine."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each: dict[str, float] = {"num_cpus": wish.cpus}
    rooms = [int(found.get("CPU", 0)) // wish.cpus for found in machines]
    if wish.gpus and any(found.get("GPU", 0) >= 1 for found in machines):
        each["num_gpus"] = 1
        rooms = [min(room, int(found.get("GPU", 0))) for room, found in zip(rooms, machines, strict=True)]
    slots = sum(rooms)
    if slots == 0:  # Ray would wait for ever
        if "num_gpus" in each:
            raise UsageError(f"--threads {wish.cpus}: no machine of the Ray cluster with a GPU has that many CPUs")
        raise UsageError(f"--threads {wish.cpus}: no machine of the Ray cluster has that many CPUs")
    return slots, each


def _rows(
    jobs: list[tuple[int, Job]], made_of: list[Any], each: dict[str, float], workers: int, at_once: int, retries: int
) -> Iterator[dict[str, Any]]:
    """What ``RayWorker`` says of ``jobs``, in the order of their ends; nothing of those that were lost.

    ``at_once``: jobs that a worker has at a time. ``retries``: how often a job whose worker died is done again.
    """
    import ray.data

    rows = [{"index": index, "job": job} for index, job in jobs]
    compute = ray.data.ActorPoolStrategy(
        size=workers,
        max_concurrent_calls_per_actor=at_once,
        max_tasks_in_flight_per_actor=at_once,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings(action="ignore"):  # there is no other way to bound retries; so Ray is below 2.64
        # One job a block: a block is what Ray sends, retries and gives back.
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            RayWorker, fn_constructor_args=made_of, compute=compute, max_task_retries=retries, **each
        )
    yield from data.iter_rows()


def _outcome(job: Job, row: dict[str, Any]) -> Outcome:
    if row["failure"]:
        return Outcome(job, error=FailedElsewhere(loads(row["failure"].encode()), ends=bool(row["ends"])))
    return Outcome(job, loads(row["record"].encode()))
