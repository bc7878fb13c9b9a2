"""The benchmark that kills a batch again and again: it runs, and it notices what must not be."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mixed_jobs import Mixed, check, run_mixed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_mixed_jobs_killed_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_mixed(argparse.Namespace(jobs=[30], kills=2, real=None, seed=1), tmp_path)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["jobs"], figures["results"], figures["failed"]) == (30, 15, {"clip": 12, "refused": 3})
    assert len(figures["killed_at"]) == 2


LATE = "decoding did not end within 10 s and was stopped"
RESULTS = [{"id": "a", "key": "k", "answers": ["yes"]}, {"id": "b", "key": "l", "answers": ["no"]}]
ERRORS = [{"id": "bad 0", "kind": "clip", "error": LATE}, {"id": "bad 1", "kind": "clip", "error": LATE}]


@pytest.mark.parametrize(
    ("results", "errors", "code"),
    [
        (RESULTS[:1], ERRORS, 6),  # one lost
        ([*RESULTS, RESULTS[0]], ERRORS, 6),  # one twice
        ([RESULTS[0], RESULTS[0]], ERRORS, 6),
        (RESULTS, ERRORS[:1], 6),
        (RESULTS, [*ERRORS, ERRORS[0]], 6),
        (RESULTS, [ERRORS[0], {**ERRORS[1], "kind": "internal"}], 6),
        (RESULTS, [ERRORS[0], {**ERRORS[1], "error": "is empty"}], 6),  # it did not hang
        (RESULTS, ERRORS, 0),
    ],
)
def test_what_must_not_be_is_noticed(tmp_path: Path, results: list[Any], errors: list[Any], code: int) -> None:
    mixed = Mixed(tmp_path / "jobs.jsonl", 2, {"bad 0": "clip", "bad 1": "clip"})

    def write(some: list[Any], others: list[Any]) -> None:
        for name, lines in (("results", some), ("errors", others)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write(RESULTS, ERRORS)
    assert check(tmp_path, mixed, 6) == {"a": ("k", ["yes"]), "b": ("l", ["no"])}
    write(results, errors)
    with pytest.raises(SystemExit):
        check(tmp_path, mixed, code)
