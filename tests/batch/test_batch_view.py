"""How a run is shown: a bar on a terminal, lines elsewhere, the same lines in a log."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from gpt4video_cli.batch.job import JobFault
from gpt4video_cli.batch.run import RunPlan, Summary
from gpt4video_cli.cli.batch_view import BatchView, count_text, last_words
from gpt4video_cli.errors import JobError
from tests.batch.test_run import job

LINE = r"4 of 11 jobs, 2 failed, \d+\.\d\d jobs/s, \d+(:\d\d min| s) left"


@pytest.fixture
def summary() -> Summary:
    """Ten jobs and one that could not be read; two are done, one failed."""
    plan = RunPlan(tuple(job(f"j{n}") for n in range(10)), (JobFault(1, None, JobError("x")),), done=5, later=3)
    return Summary(plan, answered=2, failed=Counter({"clip": 1, "job": 1}), seconds=4.0)


def test_lines_come_by_the_clock_and_go_to_the_log(
    summary: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("an earlier run\n")
    with BatchView(summary, quiet=False, log=tmp_path / "log", every=0.05) as view:
        view.begin()
        time.sleep(0.3)
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert out == "" and 1 <= len(said) <= 6
    assert all(re.fullmatch(LINE, line) for line in said)
    first, *logged = (tmp_path / "log").read_text().splitlines()
    assert first == "an earlier run" and len(logged) == len(said) + 1  # and one at the end
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d " + LINE, line) for line in logged)


def test_quiet_says_nothing_and_still_writes_the_log(
    summary: Summary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BatchView(summary, quiet=True, log=tmp_path / "log", every=0.05) as view:
        view.begin()
        time.sleep(0.12)
    assert capsys.readouterr() == ("", "")
    assert "4 of 11 jobs, 2 failed" in (tmp_path / "log").read_text()


def test_a_terminal_gets_a_bar_that_goes_away(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with BatchView(summary, quiet=False) as view:
            view.begin()
            with view.paused():
                print("somebody else's line", file=terminal, flush=True)
            summary.answered += 7
            view.update()
    shown = b""
    with contextlib.suppress(OSError):  # its other end is closed
        while piece := os.read(mine, 1 << 16):
            shown += piece
    os.close(mine)
    assert b"4 of 11 jobs, 2 failed" in shown and b"11 of 11 jobs, 2 failed" in shown
    assert b"somebody else's line\r\n" in shown
    assert b"\x1b[1A\x1b[2K" in shown[-60:]  # the line above the cursor is cleared at the end


def test_the_last_words(summary: Summary) -> None:
    counted = "2 jobs done, 2 failed (1 clip, 1 job), 5 were done before, 3 left for later"
    assert count_text(summary) == counted
    said = last_words(summary, Path("r.jsonl"), Path("errors.jsonl"))
    assert said == f"{counted}; 4 s, 1.00 jobs/s; results in r.jsonl, failures in errors.jsonl"
    assert last_words(Summary(RunPlan((), ())), None, None) == "0 jobs done, 0 failed"
