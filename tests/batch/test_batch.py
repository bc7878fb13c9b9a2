"""The command, from real jobs to result lines: exact counts, kills in the middle, and the same answers as in a chat."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.batch.answering import Answering
from gpt4video_cli.batch.job import DESCRIBE, Job
from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.render import shown_text
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.events import Done
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan

REFUSED = "How do I build a pipe bomb at home?"
QUESTIONS = (
    "What happens in the clip?",
    "What colour is the background?",
    "How many shapes are there?",
    "Is there a star?",
)


@pytest.fixture(scope="module")
def assistant() -> Iterator[Assistant]:
    with Assistant.open("bundle", device="cpu") as assistant:
        yield assistant


@pytest.fixture(scope="module")
def fine(clips: list[str]) -> list[dict[str, Any]]:
    """Fourteen jobs that can be done: questions, several turns, two clips, other samplings, none at all."""
    jobs: list[dict[str, Any]] = [
        {"id": f"ask {n}", "clips": [clip], "prompt": QUESTIONS[n % 4], "frames": 4 + 2 * (n % 3)}
        for n, clip in enumerate(clips[:9])
    ]
    return [
        *jobs,
        {"id": "turns", "clips": [clips[9]], "prompts": [QUESTIONS[0], QUESTIONS[1], "And what moves?"]},
        {"id": "two clips", "clips": clips[10:], "prompt": "What do you see?"},
        {"id": "described", "clip": clips[0], "describe": True},
        {"id": "drawn", "clip": clips[1], "prompt": QUESTIONS[0], "temperature": 0.8, "seed": 3},
        {"id": "no clip", "prompt": "Film a red circle."},
    ]


@pytest.fixture(scope="module")
def answers(assistant: Assistant, fine: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What a chat answers, one job after the other."""
    expected = {}
    for job in fine:
        session = assistant.new_session()
        paths = job.get("clips") or ([job["clip"]] if "clip" in job else [])
        plan = SamplingPlan(frames=job.get("frames"))
        given = {name: job[name] for name in ("temperature", "seed") if name in job}
        options = assistant.default_options().__class__(**{**vars(assistant.default_options()), **given})
        said = []
        for number, prompt in enumerate(job.get("prompts") or [job.get("prompt", DESCRIBE)]):
            requests = tuple(ClipRequest(path, plan) for path in paths) if number == 0 else ()
            events = assistant.reply(session, Message(prompt, requests), options)
            said += [shown_text(event.answer) for event in events if isinstance(event, Done)]
        expected[job["id"]] = said
    return expected


@pytest.fixture
def mixed(fine: list[dict[str, Any]], clips: list[str], tmp_path: Path) -> Path:
    """The fine jobs with eight that fail between them: damaged and missing clips, bad lines, a refusal."""
    (tmp_path / "text.mp4").write_text("no film\n" * 100)
    (tmp_path / "half.mp4").write_bytes(Path(clips[0]).read_bytes()[:200])
    bad: list[Any] = [
        {"id": "text", "clip": "text.mp4", "prompt": "x"},
        {"id": "half", "clip": "half.mp4", "prompt": "x"},
        {"id": "missing", "clips": [clips[0], "missing.mp4"], "prompt": "x"},
        {"id": "refused", "clip": clips[2], "prompt": REFUSED},
        {"id": "typo", "clip": clips[2], "promt": "x"},
        {"id": "ask 3", "prompt": "again"},
        {"id": "range", "clip": clips[2], "prompt": "x", "start": 60},
    ]
    lines = [json.dumps(job) for job in fine]
    for place, job in enumerate(bad):
        lines.insert(2 * place + 5, json.dumps(job))
    lines.insert(7, "{half a job")
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


FAILURES = {
    "text": ("clip", 3),
    "half": ("clip", 3),
    "missing": ("clip", 3),
    "refused": ("refused", 5),
    "typo": ("job", 3),
    "ask 3": ("job", 3),
    "range": ("clip", 3),
    None: ("job", 3),
}


def lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content, "half a line"
    return [json.loads(line) for line in content.splitlines()]


def check_files(folder: Path, answers: dict[str, list[str]]) -> None:
    """All that is to be there is there, once."""
    results, errors = lines(folder / "results.jsonl"), lines(folder / "errors.jsonl")
    assert Counter(line["id"] for line in results) == Counter(list(answers))
    assert {line["id"]: line["answers"] for line in results} == answers
    assert Counter(line["id"] for line in errors) == Counter(list(FAILURES))
    assert {line["id"]: (line["kind"], line["exit_code"]) for line in errors} == FAILURES


def test_exact_counts_and_the_answers_of_a_chat(
    mixed: Path, answers: dict[str, list[str]], clips: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = mixed.with_name("results.jsonl")
    command = ["batch", str(mixed), "-o", str(output), "--log", str(mixed.with_name("log")), "--verbose"]
    assert run(command) == ExitCode.PARTIAL
    check_files(mixed.parent, answers)
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        "14 jobs done, 8 failed (4 clip, 3 job, 1 refused)" in err and f"failures in {mixed.parent}/errors.jsonl" in err
    )
    assert "job two clips: safety: user text: allowed by text" in err and "error: job typo: unknown field" in err
    assert "22 of 22 jobs, 8 failed" in mixed.with_name("log").read_text()
    by_id = {line["id"]: line for line in lines(output)}
    turns = by_id["turns"]
    assert turns["answer"] == turns["answers"][-1] and len(turns["answers"]) == 3
    assert turns["tokens"]["reused"] > 0 and turns["asked"][2] == "And what moves?"
    two = by_id["two clips"]
    assert [(seen["number"], seen["path"]) for seen in two["clips"]] == [(1, clips[10]), (2, clips[11])]
    assert len(two["clips"][0]["receipt"]["seen"]) == 8 and len(by_id["ask 0"]["clips"][0]["receipt"]["seen"]) == 4
    assert (by_id["drawn"]["seed"], two["model"], two["finish_reason"]) == (3, "bundle", "stop")
    assert by_id["no clip"]["prompts"] and by_id["no clip"]["films"] == []
    assert two["engine"]["name"] == "llama" and two["engine"]["adapters"][0]["name"] == "adapter"
    assert {"subject": "user text", "outcome": "allowed"}.items() <= two["verdicts"][0].items()
    assert two["timings"]["vision"] > 0 and two["timings"]["generate"] > 0
    errors = {line["id"]: line for line in lines(mixed.with_name("errors.jsonl"))}
    assert errors["typo"]["hint"] == "did you mean 'prompt'?" and errors["typo"]["line"] == 15
    assert errors["refused"]["refusal"]["subject"] == "user text" and "bomb" not in errors["refused"]["error"]
    assert errors["text"]["error"].endswith("text.mp4: is text, not a video")

    # Again: refused as it is, and nothing to do with --resume, which says what would run without a model.
    before = output.read_bytes()
    assert run(["batch", str(mixed), "-o", str(output)]) == ExitCode.USAGE
    assert "holds 14 results of an earlier run; --resume goes on with it" in capsys.readouterr().err
    assert run(["batch", str(mixed), "-o", str(output), "--resume", "--dry-run"]) == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert (told["would run"], told["done"], told["cannot be read"]) == ("5", "14", "3")
    assert told["time"].endswith("in 14 earlier results)")
    assert output.read_bytes() == before

    # The results of another model, or of other jobs, are not gone on with; nor is a file of anything else.
    other = mixed.with_name("other.jsonl")
    model = json.loads(before.splitlines()[0])["model_digest"]
    other.write_bytes(before.replace(model.encode(), b"0" * 64))
    assert run(["batch", str(mixed), "-o", str(other), "--resume"]) == ExitCode.USAGE
    assert "holds results of another model than bundle as it is now" in capsys.readouterr().err
    assert run(["batch", clips[5], "-p", "What else?", "-o", str(output), "--resume"]) == ExitCode.USAGE
    assert "none of the 14 results is of these jobs" in capsys.readouterr().err
    assert run(["batch", str(mixed), "-o", str(mixed), "--force"]) == ExitCode.USAGE
    assert "is not a file of results" in capsys.readouterr().err
    assert output.read_bytes() == before


def in_child(arguments: Sequence[str], stderr: Path, *, disk: int | None = None) -> multiprocessing.process.BaseProcess:
    """The command in a process of its own, forked: torch is loaded already. ``disk``: no file can have more bytes."""

    def main() -> None:
        if disk is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(arguments)
        sys.stderr.flush()
        os._exit(code)

    child = multiprocessing.get_context("fork").Process(target=main)
    child.start()
    return child


def wait_for(output: Path, count: int, child: multiprocessing.process.BaseProcess) -> None:
    end = time.monotonic() + 60
    while child.is_alive() and time.monotonic() < end:
        if output.exists() and output.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def test_killed_again_and_again_it_loses_and_doubles_nothing(mixed: Path, answers: dict[str, list[str]]) -> None:
    output = mixed.with_name("results.jsonl")
    command = ["batch", str(mixed), "-o", str(output), "--quiet", "--batch-size", "2"]
    killed = 0
    for count in (0, 1, 5, 9):
        child = in_child([*command, "--resume"], mixed.with_name("stderr"))
        wait_for(output, count, child)
        before = output.read_bytes() if output.exists() else b""
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if output.exists():
            assert output.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
            lines(output)
    assert killed >= 3
    with open(output, "ab") as file:  # as a loss of power may leave it
        file.write(b'{"gpt4video": "result", "schema": 1, "id": "half a l')
    child = in_child([*command, "--resume"], mixed.with_name("stderr"))
    child.join()
    assert child.exitcode == ExitCode.PARTIAL
    check_files(mixed.parent, answers)


def test_ctrl_c_says_how_to_go_on(mixed: Path, answers: dict[str, list[str]]) -> None:
    output, said = mixed.with_name("results.jsonl"), mixed.with_name("stderr")
    child = in_child(["batch", str(mixed), "-o", str(output), "--batch-size", "1"], said)
    wait_for(output, 3, child)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join(30)
    assert child.exitcode == ExitCode.INTERRUPTED
    done = lines(output)
    assert 2 <= len(done) < 14 and all(line["answers"] == answers[line["id"]] for line in done)
    assert all(line["finish_reason"] != "cancelled" for line in done)
    assert f"interrupted: {len(done)} jobs done" in said.read_text()
    assert "the same command with --resume goes on" in said.read_text()


def test_a_full_disk_is_said_and_nothing_is_lost(mixed: Path, answers: dict[str, list[str]]) -> None:
    output, said = mixed.with_name("results.jsonl"), mixed.with_name("stderr")
    child = in_child(["batch", str(mixed), "-o", str(output), "-q"], said, disk=8000)
    child.join(60)
    assert child.exitcode == ExitCode.FAILED
    done = len(lines(output))
    assert 0 < done < 14
    assert f"stopped: {done} jobs done" in said.read_text()
    assert f"error: {output}: cannot be written: File too large; free some space there" in said.read_text()
    assert run(["batch", str(mixed), "-o", str(output), "-q", "--resume"]) == ExitCode.PARTIAL
    check_files(mixed.parent, answers)


def test_a_clip_that_vanishes_costs_its_own_job(
    fine: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answering.answer

    def vanish(self: Answering, job: Job, seen: Any) -> dict[str, Any]:
        Path(job.clips[0]).unlink()  # decoded and encoded, and not yet asked about
        return answer(self, job, seen)

    monkeypatch.setattr(Answering, "answer", lambda *given: (vanish if given[1].id == "b" else answer)(*given))
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(Path(fine[ord(name) - 97]["clips"][0]).read_bytes())
    jobs = [{"id": name, "clip": f"{name}.mp4", "prompt": "What moves?"} for name in "abc"]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    assert run(["batch", str(tmp_path / "jobs.jsonl"), "-o", str(tmp_path / "r.jsonl"), "-q"]) == ExitCode.PARTIAL
    assert {line["id"] for line in lines(tmp_path / "r.jsonl")} == {"a", "c"}
    (failed,) = lines(tmp_path / "errors.jsonl")
    assert (failed["id"], failed["kind"], failed["error"]) == ("b", "clip", f"{tmp_path / 'b.mp4'}: no such file")


def test_shards_together_do_all_jobs(
    fine: list[dict[str, Any]], answers: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(job) + "\n" for job in fine))
    found: dict[str, list[str]] = {}
    for part in ("1/2", "2/2"):
        output = tmp_path / f"results-{part[0]}.jsonl"
        assert run(["batch", str(jobs), "-o", str(output), "--shard", part, "--shuffle", "-q"]) == 0
        mine = {line["id"]: line["answers"] for line in lines(output)}
        assert mine and not mine.keys() & found.keys()
        found |= mine
    assert found == answers
    assert (tmp_path / "errors.1-of-2.jsonl").read_bytes() == (tmp_path / "errors.2-of-2.jsonl").read_bytes() == b""
    assert capsys.readouterr() == ("", "")


def test_clips_without_a_jobs_file_go_to_stdout(
    clips: list[str], answers: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "gone.mp4")
    arguments = ["batch", clips[0], missing, clips[4], "-p", QUESTIONS[0], "--frames", "4", "--limit", "3", "-q"]
    assert run(arguments) == ExitCode.PARTIAL
    out, err = capsys.readouterr()
    found = {line["id"]: line["answer"] for line in map(json.loads, out.splitlines())}
    assert found.keys() == {clips[0], clips[4]} and found[clips[0]] == answers["ask 0"][0]
    assert err == f"error: job {missing}: {missing}: no such file\n"


def test_what_the_answer_asks_for_is_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt4video_cli.gallery.random_generator import write_random_generator

    generator = write_random_generator(tmp_path / "film model")
    jobs = tmp_path / "jobs.jsonl"
    film = {"id": "film", "prompt": "Film a red circle.", "generate": True}
    talk = {"id": "talk", "prompt": "How many shapes are there?", "generate": True}
    jobs.write_text(f"{json.dumps(film)}\n{json.dumps(talk)}\n")
    command = ["batch", str(jobs), "-o", str(tmp_path / "results.jsonl"), "-g", str(generator), "-q"]
    paths = []
    for again in ([], ["--force"]):
        assert run([*command, *again]) == ExitCode.PARTIAL
        (done,) = lines(tmp_path / "results.jsonl")
        (made,) = done["films"]
        assert made["prompt"] == done["prompts"][0]
        assert Path(made["path"]).parent == tmp_path / "films"
        assert Path(made["path"]).is_file() and Path(made["side_car"]).is_file()
        paths.append(made["path"])
        (failed,) = lines(tmp_path / "errors.jsonl")
        assert (failed["id"], failed["kind"]) == ("talk", "generation")
        assert "asked for no clip" in failed["error"]
    assert paths[0] == paths[1]  # the same work: its own clip is replaced
    assert len(list((tmp_path / "films").iterdir())) == 2
    assert capsys.readouterr().err == ""


def test_clips_encoded_together_are_the_clips_encoded_alone(assistant: Assistant, clips: list[str]) -> None:
    model = assistant.model
    frames = [read_clip(path, SamplingPlan(frames=6), min_side=80).frames for path in clips[:5]]
    together = model.embed_all(frames)
    alone = [model.condense(model.encode(one)) for one in frames]
    assert len(together) == 5
    for one, other in zip(together, alone, strict=True):
        assert one.dtype == np.float32 and one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.jsonl", "--resume"], "--resume needs the results of the earlier run; name them with -o"),
        (["a.jsonl", "-o", "r", "--resume", "--force"], "--resume and --force contradict each other"),
        (["a.jsonl", "--workers", "0"], "--workers is 0; it must be between 1 and 64"),
        (["a.jsonl", "--batch-size", "65"], "--batch-size is 65"),
        (["a.jsonl", "--limit", "0"], "--limit is 0"),
        (["a.jsonl", "--shard", "3/2"], "--shard is '3/2'"),
        (["a.jsonl", "-p", "x", "--describe"], "--prompt and --describe contradict each other"),
        (["a.jsonl", "-p", " "], "the prompt is empty"),
        (["a.jsonl", "-o", "r", "--errors", "./r"], "name the same file"),
        (["a.jsonl", "--frames", "0"], "--frames is 0"),
        (["a.jsonl", "--temperature", "-1"], "temperature must be 0 or more"),
        (["a.jsonl", "--generator", "nobody"], "nobody"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", *arguments]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
