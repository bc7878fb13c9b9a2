"""Which jobs a run does, and the three stages side by side; with jobs whose stages are a few lines here."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4video_cli.batch.job import Job, JobFault
from gpt4video_cli.batch.job_key import clip_contents, job_key, model_digest
from gpt4video_cli.batch.pipeline import Outcome, run_stages
from gpt4video_cli.batch.results import DoneJob
from gpt4video_cli.batch.run import Recorder, RunPlan, Summary, plan_run, run_jobs, seconds_a_job, tell_faults
from gpt4video_cli.batch.shard import Shard
from gpt4video_cli.errors import ClipError, Gpt4VideoError, JobError, UsageError, WeightsError
from gpt4video_cli.language.adapters import AdapterWish
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import Spool, use_spool
from gpt4video_cli.weights.locate import find_model


def job(name: str, prompt: str = "what moves?", **fields: Any) -> Job:
    values = {"prompts": (prompt,), "clips": (), "plan": SamplingPlan(frames=4), "options": SamplingOptions()}
    return Job(name, **{**values, **fields})


def key(one: Job, contents: Sequence[str]) -> str:
    return job_key(one, contents, "model")


def done(one: Job, name: str | None = None, elapsed: float = 1.0) -> DoneJob:
    return DoneJob(one.id if name is None else name, key(one, clip_contents(one)), "model", elapsed)


def test_a_stop_while_clips_are_looked_at_ends_what_is_being_fetched() -> None:
    spool = use_spool(Spool())

    def interrupted(one: Job, contents: Sequence[str]) -> str:
        if one.id == "a":
            raise KeyboardInterrupt
        spool._stop.wait(20)  # as whoever fetches does
        return ""

    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            plan_run([job("a"), job("b")], [done(job("a"))], interrupted)
    finally:
        use_spool(Spool())
    assert time.monotonic() - began < 10


IDS = st.lists(st.text(max_size=8), unique=True, max_size=40)


@settings(max_examples=60, deadline=None)
@given(ids=IDS, count=st.integers(1, 7))
def test_shards_are_the_whole_and_share_nothing(ids: list[str], count: int) -> None:
    parts = [[name for name in ids if Shard(index, count).holds(name)] for index in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(ids)


def test_a_shard_does_not_depend_on_the_other_jobs_and_is_about_as_large_as_the_others() -> None:
    sizes = Counter(next(i for i in range(1, 5) if Shard(i, 4).holds(f"job {n}")) for n in range(2000))
    assert all(430 < size < 570 for size in sizes.values())
    assert [n for n in range(12) if Shard(2, 3).holds(f"job {n}")] == [0, 4, 6, 11]  # the same on every machine


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="must be I/N"):
        Shard.parse(text)


@settings(max_examples=60, deadline=None)
@given(ids=IDS.filter(lambda ids: len(ids) > 1), split=st.integers(1, 40), order=st.integers(0, 9))
def test_done_and_left_are_all_jobs(ids: list[str], split: int, order: int) -> None:
    jobs = [job(name, f"about {name}") for name in ids]
    finished = jobs[: min(split, len(jobs) - 1)]
    plan = plan_run(reversed(jobs), [done(one) for one in finished], key, order=order)
    assert plan.done == len(finished)
    assert sorted(one.id for one in plan.todo) == sorted(one.id for one in jobs[len(finished) :])


def test_what_is_done_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    first, second = (job(f"line-{n}", clips=(str(tmp_path / f"{name}.mp4"),)) for n, name in enumerate("ab"))
    lines = [done(first), done(second)]
    moved = job("line-7", clips=first.clips)  # a line was put before it
    assert plan_run([moved, second], lines, key).todo == ()
    # Two jobs of the same work are two jobs: one line stands for one of them, the one with its id.
    twin = job("twin", clips=first.clips)
    assert plan_run([twin, first, second], lines, key).todo == (twin,)
    changes: list[dict[str, Any]] = [
        {"prompt": "and what else?"},
        {"prompts": ("what moves?", "again")},
        {"plan": SamplingPlan(frames=5)},
        {"options": SamplingOptions(seed=1)},
        {"generate": True},
        {"clips": (*first.clips, *second.clips)},
    ]
    for change in changes:
        other = job("line-0", **{"clips": first.clips, **change})
        assert plan_run([other, second], lines, key).todo == (other,), change
    (tmp_path / "a.mp4").write_bytes(b"another film")
    assert plan_run([first, second], lines, key).todo == (first,)
    (tmp_path / "a.mp4").unlink()
    assert plan_run([first, second], lines, key).todo == (first,)  # it will say why


def test_results_of_other_jobs_are_refused() -> None:
    with pytest.raises(UsageError, match="none of the 1 results is of these jobs"):
        plan_run([job("a", "one thing")], [done(job("a", "another"))], key)


def test_limit_shuffle_and_faults() -> None:
    jobs = [job(f"j{n}", f"about {n}") for n in range(20)]
    faults = [JobFault(3, None, JobError("x")), JobFault(4, "j1", JobError("y"))]
    plain = plan_run([*faults, *jobs], [done(jobs[0])], key, limit=5)
    assert [one.id for one in plain.todo] == ["j1", "j2", "j3", "j4", "j5"]
    assert (plain.faults, plain.done, plain.later) == (tuple(faults), 1, 14)
    orders = [[one.id for one in plan_run(jobs, [], key, order=seed).todo] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    # Failures count no more where the job is done, tried again or could not be read; others stay known.
    assert [plain.settles({"id": name}) for name in ("j0", "j1", "j5", None)] == [True] * 4
    assert [plain.settles({"id": name}) for name in ("j6", "somebody's")] == [False] * 2
    parts = [plan_run([*faults, *jobs], [], key, shard=Shard(i, 3)) for i in (1, 2, 3)]
    assert sorted(one.id for part in parts for one in part.todo) == sorted(one.id for one in jobs)
    assert sum(len(part.faults) for part in parts) == 2


def test_the_rate_of_earlier_runs() -> None:
    assert seconds_a_job([]) is None
    assert seconds_a_job([2.0, 4.0, 6.0]) == 2.0
    assert seconds_a_job([2.0, 4.0, 1.0, 2.0]) == 1.5  # two runs, of 4 and of 2 seconds


class Fake:
    """Stages that note how much of each goes on at once. ``wrong``: job -> what its seeing or answering raises."""

    def __init__(self, wrong: dict[str, Exception] | None = None, pause: float = 0.0) -> None:
        self.wrong = wrong or {}
        self.pause = pause
        self.begun = self.most_begun = self.answering = self.most_answering = 0
        self.seen = 0
        self.late: list[Callable[[], None]] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()

    def begin(self, job: Job, ready: Callable[[], None]) -> None:
        with self.lock:
            self.begun += 1
            self.most_begun = max(self.most_begun, self.begun)
        if "begin" in job.id and job.id in self.wrong:
            self.begun -= 1
            raise self.wrong[job.id]
        if "late" in job.id:
            self.late.append(ready)
        else:
            ready()

    def see(self, jobs: Sequence[Job]) -> list[Any]:
        with self.lock:
            self.begun -= len(jobs)
            self.seen += len(jobs)
        return [self.wrong[one.id] if "see" in one.id and one.id in self.wrong else one.id for one in jobs]

    def answer(self, job: Job, seen: Any) -> dict[str, Any]:
        with self.lock:
            self.answering += 1
            self.most_answering = max(self.most_answering, self.answering)
        self.stopped.wait(self.pause)
        with self.lock:
            self.answering -= 1
        if job.id in self.wrong:
            raise self.wrong[job.id]
        return {"id": job.id, "seen": seen}

    def stop(self) -> None:
        self.stopped.set()
        for ready in self.late:
            ready()


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["fine", "begin", "see", "answer"]), max_size=30),
    ahead=st.integers(1, 5),
    rows=st.integers(1, 4),
    together=st.integers(1, 4),
)
def test_every_job_ends_once_and_never_too_many_are_held(
    kinds: list[str], ahead: int, rows: int, together: int
) -> None:
    jobs = [job(f"{kind} {n}") for n, kind in enumerate(kinds)]
    wrong = {one.id: ClipError(one.id, "is broken") for one in jobs if not one.id.startswith("fine")}
    stages = Fake(wrong)
    outcomes = list(run_stages(jobs, stages, ahead=ahead, rows=rows, together=together))
    assert sorted(outcome.job.id for outcome in outcomes) == sorted(one.id for one in jobs)
    for outcome in outcomes:
        if outcome.job.id in wrong:
            assert outcome == Outcome(outcome.job, error=wrong[outcome.job.id])
        else:
            assert outcome.record == {"id": outcome.job.id, "seen": outcome.job.id}
    assert stages.most_begun <= ahead and stages.most_answering <= rows


def test_stages_overlap_and_stop_at_once() -> None:
    stages = Fake(pause=0.05)
    jobs = [job(f"j{n}") for n in range(200)]
    with closing(run_stages(jobs, stages, ahead=3, rows=2)) as outcomes:  # type: ignore[type-var]
        for _ in range(10):
            next(outcomes)
        assert stages.most_answering == 2
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert stages.seen < 24  # the ten, 3 begun, 2 waiting, 2 being answered, and what came until it was stopped
    assert threading.active_count() < 20


def test_one_whose_clip_hangs_holds_up_no_other() -> None:
    stages = Fake()
    jobs = [job("late"), *(job(f"j{n}") for n in range(20))]
    with closing(run_stages(jobs, stages, ahead=2, rows=1)) as outcomes:  # type: ignore[type-var]
        assert [next(outcomes).job.id for _ in range(20)] == [f"j{n}" for n in range(20)]
        stages.late.pop()()
        assert [outcome.job.id for outcome in outcomes] == ["late"]
    with closing(run_stages(jobs, stages, ahead=2, rows=1)) as outcomes:  # type: ignore[type-var]
        next(outcomes)  # and one that never comes does not hold up the end


def record(plan: RunPlan, stages: Fake, **options: Any) -> tuple[Summary, list[Any], list[Any]]:
    results: list[Any] = []
    failures: list[Any] = []
    recorder = Recorder(Summary(plan), write=results.append, fail=failures.append, tell=lambda: None)
    try:
        if tell_faults(plan, recorder, fail_fast=options.get("fail_fast", False)):
            run_jobs(run_stages(plan.todo, stages, ahead=2, rows=1), recorder, **options)
    except Gpt4VideoError as error:
        failures.append(error)
    return recorder.summary, results, failures


def test_results_and_failures_are_counted_and_written() -> None:
    jobs = [job(f"j{n}") for n in range(6)]
    wrong = {"j2": ClipError("a.mp4", "is empty"), "j4": RuntimeError("two\nlines")}
    plan = RunPlan(tuple(jobs), (JobFault(9, None, JobError("not JSON", hint="look")),))
    summary, results, failures = record(plan, Fake(wrong))
    assert (summary.answered, summary.failures, dict(summary.failed)) == (4, 3, {"job": 1, "clip": 1, "internal": 1})
    assert {one["id"] for one in results} == {"j0", "j1", "j3", "j5"}
    assert [one["elapsed"] for one in results] == sorted(one["elapsed"] for one in results)
    shown = [(one["id"], one["line"], one["kind"], one["error"], one["hint"], one["exit_code"]) for one in failures]
    assert shown == [
        (None, 9, "job", "not JSON", "look", 3),
        ("j2", None, "clip", "a.mp4: is empty", None, 3),
        ("j4", None, "internal", "RuntimeError: two lines", None, 1),
    ]


def test_fail_fast_ends_with_the_first_failure() -> None:
    jobs = tuple(job(f"j{n}") for n in range(50))
    summary, results, failures = record(RunPlan(jobs, ()), Fake({"j2": ClipError("a", "b")}), fail_fast=True)
    assert [one["id"] for one in failures] == ["j2"] and [one["id"] for one in results] == ["j0", "j1"]
    assert summary.ended == 3 < summary.total
    fault = JobFault(1, None, JobError("x"))
    summary, results, failures = record(RunPlan(jobs, (fault, fault)), Fake(), fail_fast=True)
    assert (len(results), len(failures)) == (0, 1)


def test_missing_weights_end_the_run_and_are_no_failure_of_a_job() -> None:
    plan = RunPlan(tuple(job(f"j{n}") for n in range(9)), ())
    summary, _, failures = record(plan, Fake({"j0": WeightsError("no weights")}))
    assert [str(error) for error in failures] == ["no weights"] and summary.failures == 0


def test_the_digest_of_a_model_is_of_its_content_and_of_the_adapters_asked_for(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(tiny_model_folder, folder)
    card, _ = find_model(folder)

    def digest(*adapters: AdapterWish, own: bool = False) -> str:
        return model_digest(card, folder, LoadWish(engine=EngineWish(adapters=None if own else adapters)))

    own = digest(own=True)
    assert own == model_digest(card, tiny_model_folder, LoadWish())  # wherever it lies
    assert own == digest(AdapterWish("adapter")) == model_digest(replace(card, measured={"x": 1}), folder, LoadWish())
    assert len({own, digest(), digest(AdapterWish("adapter", 0.5))}) == 3
    assert digest() == digest(AdapterWish("adapter", 0.0))
    for name in ("vision/config.json", "language/tokenizer.json", "abstractor.safetensors"):
        with open(folder / name, "ab") as file:
            file.write(b" ")
        assert digest(own=True) != own, name
        own = digest(own=True)
