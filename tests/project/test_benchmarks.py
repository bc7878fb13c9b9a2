"""What the benchmarks share, the command that runs them all, and the page that is made of their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import Report, Times, spread, take_turns
from benchmarks.results_page import page, write_page
from benchmarks.run_all import ENTRIES, RESULTS, Entry, run, run_all

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    results = json.loads((FOLDER / RESULTS).read_text(encoding="utf-8"))
    assert (FOLDER / "RESULTS.md").read_text(encoding="utf-8") == page(results)


def test_every_benchmark_that_reports_is_run() -> None:
    reporting = {file.stem for file in FOLDER.glob("*.py") if " Report(" in file.read_text(encoding="utf-8")}
    assert {entry.name for entry in ENTRIES} == reporting - {"report"}


def test_ways_take_turns_and_each_round_begins_with_another() -> None:
    calls: list[str] = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=2, warm=1)
    assert "".join(calls) == "abcbcacab"
    assert {name: (len(found.wall), len(found.cpu)) for name, found in times.items()} == dict.fromkeys("abc", (2, 2))


def reported() -> Report:
    report = Report("kernel", quick=True)
    times = {"ours": Times((1.0, 2.0, 1.0)), "plain": Times((3.0, 4.0, 5.0)), "fast": Times((0.5, 1.6, 0.4))}
    report.times("T=4", times, ours="ours")
    report.row("T=4", "ours", megabytes=12.3456789)
    report.row("accuracy", "int8", error=0.01, plan={"vision": 1.50001, "kinds": ["a|b", "c"]})
    report.note("A note.")
    report.skip("CUDA", "no GPU")
    return report


def test_a_ratio_is_taken_in_each_round_and_then_the_median(capsys: pytest.CaptureFixture[str]) -> None:
    reported().finish()
    *_, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    against = {row["peer"]: row for row in found["ratios"]}
    assert against["plain"].items() >= {"ours": "ours", "median": 3.0, "least": 2.0, "most": 5.0, "rounds": 3}.items()
    assert against["fast"]["median"] == 0.5
    assert spread([3.14159265, 1.0])["median"] == 2.071  # four figures
    assert found["hardware"]["cores"] >= 1 and found["versions"]["torch"]


def results(**changes: Any) -> dict[str, Any]:
    found = {**reported().as_dict(), "title": "A kernel.", "command": "python -m benchmarks.kernel", "seconds": 3}
    about = {"version": 1, "date": "2026-01-02", "commit": "abc", "quick": False, "seconds": 9}
    machine = {key: found[key] for key in ("hardware", "versions")}
    return {**about, **machine, "benchmarks": [found], "skipped": [{"name": "frames", "why": "failed: x"}], **changes}


def test_the_page_says_where_a_peer_wins_and_what_was_not_measured(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(json.dumps(results()))
    write_page(tmp_path / RESULTS)
    made = (tmp_path / "RESULTS.md").read_text()
    lost, rest = made.split("## Where a peer wins")[1].split("## kernel")
    assert "fast" in lost and "0.5 (0.4 to 0.8)" in lost and "plain" not in lost
    assert "3 (2 to 5)" in rest and "12.35" in rest and "- A note." in rest and "- Not measured: CUDA: no GPU." in rest
    assert "vision 1.5, kinds a\\|b, c" in rest
    assert "- frames: failed: x" in rest and "smallest sizes" not in made
    assert "smallest sizes" in page(results(quick=True))
    with pytest.raises(SystemExit, match="version 2"):
        page(results(version=2))


def test_what_fails_hangs_or_comes_too_late_is_noted_and_stops_nothing() -> None:
    assert "No module named" in run(Entry("nothing"), quick=False, limit=60)["why"]
    assert run(Entry("startup"), quick=False, limit=0.3)["why"] == "did not end within 0.3 s"
    late = run_all((Entry("nothing"),), quick=True, minutes=0.1)
    assert late["benchmarks"] == [] and late["skipped"] == [
        {"name": "nothing", "why": "no time was left of 0.1 minutes"}
    ]
