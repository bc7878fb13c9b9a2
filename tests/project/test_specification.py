"""What pyproject.toml, constraints.txt, the Makefile and the check of a clean checkout promise."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]
BENCH = [Requirement(text) for text in PROJECT["optional-dependencies"]["bench"]]
# What the program uses where it is installed, and does without elsewhere.
OPTIONAL = [
    Requirement(text)
    for name, extra in PROJECT["optional-dependencies"].items()
    if name not in {"dev", "bench"}
    for text in extra
]
FIRST_PARTY = {"gpt4video_cli", "gpt4video_kernels", "model_cards"}
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "llama_cpp": "llama-cpp-python"}


def pins() -> dict[str, Version]:
    """Name to version of constraints.txt, which holds nothing but comments and ``name==version``."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert match, f"constraints.txt: {line!r} is not name==version"
            pinned[canonicalize_name(match[1])] = Version(match[2])
    return pinned


@pytest.mark.parametrize("requirement", RUNTIME + DEV + BENCH, ids=str)
def test_bounds_are_loose_and_admit_the_pin(requirement: Requirement) -> None:
    # pyproject.toml says why ray has an upper bound.
    assert {s.operator for s in requirement.specifier} == ({">=", "<"} if requirement.name == "ray" else {">="})
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_torch_stays_at_the_build_without_cuda_packages() -> None:
    assert str(pins()["torch"]) == "2.13.0"


def imported_names(folder: str) -> Iterator[tuple[Path, str]]:
    """Every file under ``folder`` with each top-level package that it imports, also inside functions."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield file, node.module.split(".")[0]


@pytest.mark.parametrize("folder", ["gpt4video_cli", "kernels", "model_cards", "tests", "benchmarks", "examples"])
def test_every_import_is_declared(folder: str) -> None:
    ours = folder in {"gpt4video_cli", "kernels", "model_cards"}
    requirements = RUNTIME + (OPTIONAL if ours else DEV) + (BENCH if folder == "benchmarks" else [])
    declared = {canonicalize_name(r.name) for r in requirements}
    known = (
        sys.stdlib_module_names
        | FIRST_PARTY
        | ({"tests", "benchmarks"} if folder in {"tests", "benchmarks"} else set())
    )
    undeclared = {
        f"{file.relative_to(ROOT)}: {name}"
        for file, name in imported_names(folder)
        if name not in known and canonicalize_name(DISTRIBUTIONS.get(name, name)) not in declared
    }
    assert not undeclared


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1].startswith("make test")


def make_plan(target: str) -> str:
    """What ``make`` would run for ``target`` in an environment that does not exist yet."""
    command = ["make", "--dry-run", "VENV=/nonexistent/venv", target]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_make_test_runs_every_check_in_a_fresh_environment() -> None:
    plan = make_plan("test")
    steps = ["-m venv", "--constraint constraints.txt", "ruff check", "ruff format --check", "-m mypy", "-m pytest"]
    places = [plan.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


def test_make_bench_installs_the_peers_and_measures_everything() -> None:
    plan = make_plan("bench")
    places = [plan.find(step) for step in ("-m venv", "'.[dev,bench]'", "-m benchmarks.run_all")]
    assert -1 not in places
    assert places == sorted(places)


def test_make_demo_asks_about_the_bundled_clip() -> None:
    plan = make_plan("demo")
    (clip,) = set(re.findall(r"\S+\.mp4\b", plan))
    assert (ROOT / clip).is_file()
    assert plan.count('?"') == 3
    assert "[dev]" not in plan
