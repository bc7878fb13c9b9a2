"""Help pages come at once and cost nothing."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import pytest

from gpt4video_cli import __version__

HEAVY = ["torch", "transformers", "diffusers", "peft", "llama_cpp", "av", "numpy", "PIL", "rich", "prompt_toolkit"]
PAGES = [["--help"], ["--version"], *([name, "--help"] for name in ("chat", "generate", "batch", "probe", "doctor"))]
MOST_SECONDS = 0.6
"""Of CPU time, as a busy machine stretches the other. The program's own promise is 0.3 s on an idle one."""


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_help_loads_nothing_heavy(page: list[str], environment: dict[str, str]) -> None:
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        f"code = run({page!r})\n"
        f"print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
    assert done.stderr == ""


def test_help_is_fast(environment: dict[str, str]) -> None:
    seconds = []
    for _ in range(5):
        start = os.times()
        command = [sys.executable, "-m", "gpt4video_cli", "chat", "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
        end = os.times()
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
        assert "--prompt" in shown
    print(f"median of `chat --help`: {statistics.median(seconds):.3f} s of CPU")
    assert statistics.median(seconds) < MOST_SECONDS


def test_every_option_of_chat_is_explained(gpt4video) -> None:  # type: ignore[no-untyped-def]
    page = gpt4video("chat", "--help", COLUMNS="200").stdout
    for line in page[page.index("Options:") :].splitlines()[1:]:
        assert len(line.split("  ", 3)) >= 3, f"no explanation: {line}"


def test_version(gpt4video) -> None:  # type: ignore[no-untyped-def]
    done = gpt4video("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gpt4video {__version__}\n", "")
