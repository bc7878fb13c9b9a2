"""One worker of a cluster, without the cluster: what it does with the jobs that it is sent, and what it sends back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt4video_cli.batch.job import Job
from gpt4video_cli.batch.job_errors import FailedElsewhere, ends_the_run, error_fields, kind_of
from gpt4video_cli.batch.on_ray import RayWish, _slots
from gpt4video_cli.batch.pipeline import Widths
from gpt4video_cli.batch.ray_worker import RayWorker
from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ClipError, ExitCode, UsageError, WeightsError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.video.sampling import SamplingPlan

WIDTHS = Widths(ahead=3, rows=2, together=2)


def job(name: str) -> Job:
    return Job(name, ("what moves?",), (), SamplingPlan(frames=4), SamplingOptions(), line=7)


class Stages:
    """Answers with the job's id; raises for a job that is called after what it raises."""

    def begin(self, job: Job, ready: Any) -> None:
        ready()

    def see(self, jobs: Sequence[Job]) -> list[Any]:
        return [ClipError("a.mp4", "is empty", hint="look") if one.id == "clip" else None for one in jobs]

    def answer(self, job: Job, seen: Any) -> dict[str, Any]:
        if job.id == "weights":
            raise WeightsError("no weights")
        return {"id": job.id, "text": "two\nlines \ud800", "score": 0.1 + 0.2}

    def stop(self) -> None:
        pass


@contextmanager
def opened() -> Iterator[Stages]:
    yield Stages()


def test_each_call_is_one_job_and_many_may_be_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    worker = RayWorker(opened, str(tmp_path), WIDTHS)
    jobs = [job(f"{n}") for n in range(30)]
    with ThreadPoolExecutor(WIDTHS.jobs) as pool:
        rows = list(pool.map(worker, [{"index": n, "job": one} for n, one in enumerate(jobs)]))
    assert [row["index"] for row in rows] == list(range(30))
    for one, row in zip(jobs, rows, strict=True):
        assert json.loads(row["record"]) == {"id": one.id, "text": "two\nlines \ud800", "score": 0.1 + 0.2}
        assert (row["failure"], row["ends"]) == ("", False)
    failed, ended = (worker({"index": 0, "job": job(name)}) for name in ("clip", "weights"))
    assert (failed["ends"], ended["ends"]) == (False, True)
    # What is told here is what would have been told there.
    there = FailedElsewhere(json.loads(failed["failure"]), ends=False)
    error = ClipError("a.mp4", "is empty", hint="look")
    assert error_fields(job("clip"), there) == error_fields(job("clip"), error)
    assert (kind_of(there), there.exit_code, there.line()) == ("clip", ExitCode.INPUT, "a.mp4: is empty; look")
    assert not ends_the_run(there) and ends_the_run(FailedElsewhere(json.loads(ended["failure"]), ends=True))


def test_a_worker_that_cannot_start_says_so_of_each_job() -> None:
    @contextmanager
    def broken() -> Iterator[Stages]:
        raise WeightsError("b: is not the bundle", hint="give all machines the same")
        yield

    worker = RayWorker(broken, "/no/such/folder", WIDTHS)
    row = worker({"index": 3, "job": job("a")})
    assert (row["index"], row["ends"], json.loads(row["failure"])["kind"]) == (3, True, "weights")


def test_there_is_a_worker_for_each_gpu_or_for_each_slot_of_cpus() -> None:
    def slots(*machines: dict[str, float], cpus: int = 1, gpus: bool = True) -> Any:
        nodes = [{"Alive": True, "Resources": machine} for machine in machines]
        gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        return _slots(SimpleNamespace(nodes=lambda: [*nodes, gone]), RayWish("auto", cpus, gpus))

    small, large = {"CPU": 7.0, "memory": 1e9}, {"CPU": 16.0, "GPU": 2.0}
    assert slots(small, small) == (14, {"num_cpus": 1})
    assert slots(small, small, cpus=4) == (2, {"num_cpus": 4})  # not 3: a worker is on one machine
    assert slots(small, large, large) == (4, {"num_cpus": 1, "num_gpus": 1})
    assert slots(small, large, large, cpus=9) == (2, {"num_cpus": 9, "num_gpus": 1})  # 2 GPUs, but CPUs for one
    assert slots(small, large, gpus=False, cpus=4) == (5, {"num_cpus": 4})
    with pytest.raises(UsageError, match="--threads 17: no machine of the Ray cluster with a GPU has that many CPUs"):
        slots({"CPU": 32.0}, large, cpus=17)
    with pytest.raises(UsageError, match="--threads 9: no machine of the Ray cluster has that many CPUs"):
        slots(small, cpus=9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--ray", "a.jsonl", "b.mp4"],
            "--ray is 'a.jsonl'; it must be HOST:PORT, auto or local; put the jobs before --ray",
        ),
        (["a.jsonl", "--ray", "here"], "--ray is 'here'"),
        (["a.jsonl", "--ray", "--device", "cuda:1"], "--device cuda:1 and --ray contradict each other"),
        (["a.jsonl", "--ray"], "--ray needs Ray; pip install 'gpt4video[ray]'"),
        (["a.jsonl", "--ray", "10.0.0.1:6379"], "--ray needs Ray; pip install 'gpt4video[ray]'"),
    ],
)
def test_what_cannot_be_asked_of_ray(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpt4video_cli.batch.on_ray.find_spec", lambda name: None)
    assert run(["batch", *arguments, "-p", "x"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
