"""Runs ``triton_laws.py``: in Triton's interpreter, and where there is a GPU, on it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

LAWS = Path(__file__).with_name("triton_laws.py")
ROOT = Path(__file__).resolve().parents[2]


def run_laws(**changes: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | changes
    command = [sys.executable, "-m", "pytest", str(LAWS), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.skipif(find_spec("triton") is None, reason="triton has no packages for this system")
def test_in_the_interpreter() -> None:
    run_laws(TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton has no packages for this system")
def test_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT / "kernels")}
    command = [sys.executable, str(LAWS.with_name("compile_for_gpus.py"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    run_laws()
