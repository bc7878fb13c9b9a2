"""RESULTS.md from results.json, and from nothing else.

python -m benchmarks.results_page [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import aligned, tables
from gpt4video_cli.whole_file import write_whole

VERSION = 1
"""Of results.json."""
PAGE = "RESULTS.md"


def page(results: dict[str, Any]) -> str:
    """The page, in Markdown."""
    if results["version"] != VERSION:
        raise SystemExit(f"results.json has version {results['version']}, this program reads version {VERSION}")
    machine = results["hardware"]
    has = ", ".join([*machine["instructions"], *machine["GPUs"]]) or "none of the instructions that matter here"
    about = f"{machine['processor']}, {machine['cores']} cores ({has}), {machine['memory GB']} GB, {machine['system']}"
    lines = [
        "# Results of the benchmarks",
        "",
        "Made by `make bench` from `results.json`; do not edit. Ratios count, seconds are this machine's: a ratio is",
        "the peer's time to ours in the same round, the median of the rounds with the least and the most of them, so",
        "above 1 ours is faster and below 1 the peer is.",
        "",
        f"- Machine: {about}",
        f"- Date: {results['date']}; commit {results['commit'] or 'unknown'}; {results['seconds']} s in all",
        "- Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    ]
    if results["quick"]:
        lines.append("- **These are the smallest sizes, which show that everything runs and say nothing about speed.**")
    lines += ["", "## Where a peer wins", "", *_peers_that_win(results["benchmarks"])]
    for found in results["benchmarks"]:
        head = [
            "",
            f"## {found['name']}",
            "",
            found["title"].replace("``", "`"),
            "",
            f"`{found['command']}`, {found['seconds']} s",
            "",
        ]
        lines += [*head, *tables(found)]
        while lines[-1] == "":
            lines.pop()
    if results["skipped"]:
        lines += ["", "## Not measured", "", *(f"- {row['name']}: {row['why']}" for row in results["skipped"])]
    return "\n".join(lines) + "\n"


def _peers_that_win(benchmarks: list[dict[str, Any]]) -> list[str]:
    """Of all ratios to others those below 1, the lowest first."""
    lost = [
        (found["name"], row)
        for found in benchmarks
        for row in found["ratios"]
        if row["median"] < 1 and not row["peer"].startswith("ours")
    ]
    lost.sort(key=lambda pair: pair[1]["median"])
    rows = [
        {"benchmark": name, **{key: row[key] for key in ("case", "of", "ours", "peer")}, "ratio": row}
        for name, row in lost
    ]
    return aligned(rows) if rows else ["In none of the cases below."]


def write_page(results: Path) -> None:
    """Write the page beside the results."""
    write_whole(results.with_name(PAGE), page(json.loads(results.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    write_page((Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent) / "results.json")
