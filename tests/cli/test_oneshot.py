"""One answer for a shell script, from real processes and a real (tiny, random) model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.terminal import clean
from gpt4video_cli.errors import ExitCode


@pytest.fixture(scope="module")
def plain(gpt4video: Any, random_model: Path, clip: Path) -> subprocess.CompletedProcess[str]:
    return gpt4video("chat", clip, "-p", "What is seen?", "-m", random_model, "--max-tokens", "12", "--show-receipt")


@pytest.fixture(scope="module")
def as_json(gpt4video: Any, random_model: Path, clip: Path) -> tuple[subprocess.CompletedProcess[str], Any]:
    options = ["--json", "--max-tokens", "12", "--quiet", "--seed", "7", "--no-cache"]
    done = gpt4video("chat", clip, "-m", random_model, *options, stdin="What is seen?\n")
    return done, json.loads(done.stdout)


def test_only_the_answer_is_on_stdout(plain: subprocess.CompletedProcess[str]) -> None:
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.endswith("\n")
    assert plain.stdout == plain.stdout.strip() + "\n"
    assert "red square.mp4" not in plain.stdout
    assert "\x1b" not in plain.stdout + plain.stderr
    assert "\r" not in plain.stdout + plain.stderr


def test_receipts_and_notes_are_on_stderr(plain: subprocess.CompletedProcess[str], clip: Path) -> None:
    assert f"saw {clip}: 4 frames of 2.00 s at 0.20 0.70 1.20 1.70 s (exact)" in plain.stderr
    assert "not screened: user clip (no guard for frames is installed)" in plain.stderr
    assert "cut at 12 tokens" in plain.stderr


def test_json_and_stdin_give_the_same_answer(
    plain: subprocess.CompletedProcess[str], as_json: tuple[subprocess.CompletedProcess[str], Any]
) -> None:
    done, answer = as_json
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert answer["answer"] == plain.stdout.strip()


def test_json_holds_everything(as_json: tuple[subprocess.CompletedProcess[str], Any], clip: Path) -> None:
    done, answer = as_json
    assert done.stderr == ""  # --quiet
    assert set(answer) == {
        *("answer", "prompts", "films", "refusal", "clips", "notices", "finish_reason", "tokens", "timings"),
        *("model", "engine", "adapter", "seed", "verdicts", "versions"),
    }
    (seen,) = answer["clips"]
    assert seen["path"] == str(clip)
    assert seen["receipt"]["seen"] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    assert (answer["model"], answer["adapter"], answer["seed"]) == ("random", None, 7)
    assert answer["finish_reason"] == "length"
    tokens = answer["tokens"]
    assert (tokens["new"], tokens["reused"], tokens["evaluated"]) == (12, 0, tokens["prompt"])
    timings = answer["timings"]
    for stage in ("imports", "weights", "decode", "vision", "first_token", "total"):
        assert timings[stage] > 0, stage
    assert timings["first_token"] < timings["total"]


def test_a_file_that_is_no_video_is_told_before_the_model_is_loaded(
    gpt4video: Any, random_model: Path, text_clip: Path
) -> None:
    start = time.perf_counter()
    done = gpt4video("chat", text_clip, "-p", "x", "-m", random_model)
    assert time.perf_counter() - start < 10
    assert (done.returncode, done.stdout) == (ExitCode.INPUT, "")
    assert done.stderr == f"error: {text_clip}: is text, not a video\n"


def test_the_reader_of_a_pipe_may_go_away(environment: dict[str, str], random_model: Path) -> None:
    command = [sys.executable, "-m", "gpt4video_cli", "chat", "-p", "hello", "-m", str(random_model), "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == ExitCode.FAILED


def test_ctrl_c_ends_it_with_130(environment: dict[str, str], random_model: Path) -> None:
    command = [sys.executable, "-m", "gpt4video_cli", "chat", "-p", "hello", "-m", str(random_model)]
    command += ["-q", "--max-tokens", "2000", "--temperature", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith(b"\n")
        assert process.stderr.read() == b""
        assert process.wait(60) == ExitCode.INTERRUPTED


def test_a_prompt_longer_than_the_context(random_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt4video_cli.cli.app import run

    assert run(["chat", "-p", "word " * 5000, "-m", str(random_model), "-q"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: the message needs")
    assert err.count("\n") == 1


def test_two_clips_and_own_times(random_model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt4video_cli.cli.app import run

    options = ["--at", "0.5", "--at", "0:01,1.5", "--sampling", "keyframe", "--json", "--max-tokens", "3", "-q"]
    assert run(["chat", str(clip), str(clip), "-p", "compare", "-m", str(random_model), *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [seen["number"] for seen in answer["clips"]] == [1, 2]
    receipt = answer["clips"][0]["receipt"]
    assert (receipt["mode"], receipt["requested"]) == ("keyframe", [0.5, 1.0, 1.5])


def test_the_same_seed_gives_the_same_answer(random_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt4video_cli.cli.app import run

    answers = []
    for seed in ("1", "1", "2"):
        assert run(["chat", "-p", "hello", "-m", str(random_model), "--temperature", "2", "--seed", seed, "-q"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]
    assert all(answer == clean(answer) for answer in answers)
