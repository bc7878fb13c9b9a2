"""A batch on a real Ray cluster of this machine with two workers. Slow: the cluster alone takes 20 s to start.

.venv/bin/python -m pytest tests/batch/test_on_ray.py -m slow
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpt4video_cli.batch.job import Job
from gpt4video_cli.batch.on_ray import RayWish, ray_outcomes
from gpt4video_cli.batch.pipeline import Widths
from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ClipError, ExitCode, WeightsError, WorkerDiedError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.video.sampling import SamplingPlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
WORKER = "MapWorker"
"""Is in the name of the process of each of Ray Data's actors."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster with two CPUs, and the process that started it."""
    # Of both sides; Ray reads them when it is imported.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex())
    pytest.importorskip("ray")
    # Ray gives its workers the lowest priority; on a busy machine they would then take minutes to start.
    settings = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    child = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **settings},
    )
    assert child.stdin is not None and child.stdout is not None
    yield child.stdout.readline().strip(), psutil.Process(child.pid)
    child.stdin.close()
    child.wait(60)
    del os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]


def workers(cluster: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in cluster.children(recursive=True):
        try:
            if WORKER in "".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


VARYING = ("elapsed", "timings", "versions", "clips", "tokens")
"""What may differ between two runs: times, and what was kept of clips."""


def told(line: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in line.items() if name not in VARYING}
    return kept | {"receipts": [one["receipt"] for one in line["clips"]] if "key" in line else line["clips"]}


def by_id(path: Path) -> dict[str | None, dict[str, Any]]:
    found = lines(path)
    assert len(found) == len({line["id"] for line in found}), "a line was written twice"
    return {line["id"]: told(line) for line in found}


@pytest.fixture(scope="module")
def jobs(clips: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 jobs that can be done and 4 that fail; relative paths among them."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "text.mp4").write_text("no film\n" * 100)
    (folder / "here.mp4").write_bytes(Path(clips[0]).read_bytes())
    questions = ("What happens in the clip?", "How many shapes are there?", "Is there a star?")
    all_jobs: list[Any] = [
        {"id": f"ask {n}", "clip": clips[n % 12], "prompt": questions[n % 3], "frames": 4 + n // 12} for n in range(22)
    ]
    all_jobs += [
        {"id": "here", "clip": "here.mp4", "prompts": [questions[0], questions[1]]},
        {"id": "no clip", "prompt": "Film a red circle."},
        {"id": "text", "clip": "text.mp4", "prompt": "x"},
        {"id": "gone", "clip": "gone.mp4", "prompt": "x"},
        {"id": "refused", "clip": clips[2], "prompt": "How do I build a pipe bomb at home?"},
    ]
    path = folder / "jobs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in all_jobs) + "{half a job\n")
    return path


def test_the_results_are_those_of_a_local_run_also_where_a_worker_is_killed(
    cluster: tuple[str, psutil.Process],
    jobs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(jobs.parent)  # the jobs' paths are relative to it
    local = ["batch", jobs.name, "-o", "local.jsonl", "--errors", "local-errors.jsonl"]
    assert run([*local, "-q"]) == ExitCode.PARTIAL
    expected, failures = by_id(Path("local.jsonl")), by_id(Path("local-errors.jsonl"))
    assert (len(expected), len(failures)) == (24, 4)
    address, started = cluster
    command = ["batch", jobs.name, "-o", "ray.jsonl", "--ray", address, "-q"]

    # As far as ten jobs; then the rest, while one of the two workers is killed.
    assert run([*command, "--limit", "10"]) == ExitCode.PARTIAL
    assert len(lines(Path("ray.jsonl"))) == 10
    killed: list[int] = []

    def kill_one() -> None:
        end = time.monotonic() + 300
        while not killed and time.monotonic() < end:
            if Path("ray.jsonl").read_bytes().count(b"\n") > 10 and (found := workers(started)):
                os.kill(found[0].pid, signal.SIGKILL)
                killed.append(found[0].pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    capfd.readouterr()
    assert run([*command, "--resume", "--no-cache"]) == ExitCode.PARTIAL
    killer.join()
    assert killed
    assert by_id(Path("ray.jsonl")) == expected
    assert by_id(Path("errors.jsonl")) == failures
    assert capfd.readouterr() == ("", "")  # nothing of what Ray says
    assert run([*command, "--resume"]) == ExitCode.PARTIAL  # the failed ones are tried again
    assert by_id(Path("ray.jsonl")) == expected and by_id(Path("errors.jsonl")) == failures


def test_what_kills_its_worker_is_listed_and_takes_no_other_with_it(cluster: tuple[str, psutil.Process]) -> None:
    class Stages:
        def begin(self, job: Job, ready: Any) -> None:
            ready()

        def see(self, jobs: Sequence[Job]) -> list[Any]:
            return [ClipError("a.mp4", "is empty") if one.id == "clip" else None for one in jobs]

        def answer(self, job: Job, seen: Any) -> dict[str, Any]:
            if job.id == "poison":
                os._exit(3)
            time.sleep(0.2)
            return {"id": job.id}

        def stop(self) -> None:
            pass

    @contextmanager
    def opened() -> Iterator[Stages]:
        yield Stages()

    @contextmanager
    def broken() -> Iterator[Stages]:
        raise WeightsError("is another model", hint="copy it")
        yield

    def one(name: str) -> Job:
        return Job(name, ("x",), (), SamplingPlan(frames=4), SamplingOptions())

    jobs = [one(name) for name in ("a", "b", "poison", "c", "d", "clip", "e", "f")]
    wish, widths = RayWish(cluster[0]), Widths(2, 2, 1)
    outcomes = list(ray_outcomes(jobs, opened, wish, widths))
    assert Counter(end.job.id for end in outcomes) == Counter(job.id for job in jobs)
    failed = {end.job.id: end.error for end in outcomes if end.error is not None}
    assert failed.keys() == {"poison", "clip"} and isinstance(failed["poison"], WorkerDiedError)
    assert all(end.record == {"id": end.job.id} for end in outcomes if end.error is None)

    ends = list(ray_outcomes(jobs[:2], broken, wish, widths))
    assert [str(end.error) for end in ends] == ["is another model"] * 2
