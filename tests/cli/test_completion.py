"""What the shell offers after TAB: the right names, soon, and without loading a model library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4video_cli.saved_prompt import PromptStore
from gpt4video_cli.session import Session
from gpt4video_cli.session_store import SessionStore

HEAVY = ["torch", "transformers", "diffusers", "peft", "llama_cpp", "av", "numpy", "PIL", "rich", "prompt_toolkit"]
MOST_SECONDS = 0.9
"""Of CPU time for all lines of the test in one process, Python's own start among them; 0.4 where it was measured."""


def test_names_are_offered_at_once(environment: dict[str, str], tmp_path: Path) -> None:
    kept = SessionStore(tmp_path / "sessions").keep(Session(), None).id
    PromptStore(tmp_path / "templates").keep("colours", "What colours are there?")
    (tmp_path / "config.toml").write_text("this is not TOML")  # completing must not stumble over it
    lines = {
        "gpt4video templ": ["templates"],
        "gpt4video chat --templ": ["--template"],
        "gpt4video chat clip.mp4 --template ": ["colours"],
        "gpt4video chat --resume ": [kept],
        "gpt4video config show fr": ["frames"],
        "gpt4video sessions show ": [kept],
        "gpt4video chat -m bun": ["bundle"],
        "gpt4video generate -g zeroscope-v2-x": ["zeroscope-v2-xl"],
        "gpt4video models pull toxic": ["toxic-bert"],
        "gpt4video chat --policy st": ["standard", "strict"],
        "gpt4video chat --no-guard fr": ["frames"],
        "gpt4video chat --model ./": [],  # files are the shell's business
    }
    code = (
        "import contextlib, io, json, os, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        "found = {}\n"
        f"for line in {list(lines)!r}:\n"
        "    os.environ['COMP_WORDS'], os.environ['COMP_CWORD'] = line, str(len(line.split(' ')) - 1)\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):\n"
        "        run([])\n"
        "    found[line] = said.getvalue().split()\n"
        f"print(json.dumps([found, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    own = {"GPT4VIDEO_HOME": str(tmp_path), "_GPT4VIDEO_COMPLETE": "complete_bash"}
    before = os.times()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, **own}, check=True)
    after = os.times()
    found, loaded = json.loads(done.stdout)
    assert (found, loaded, done.stderr) == (lines, [], "")
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{len(lines)} completions in one process: {seconds:.3f} s of CPU")
    assert seconds < MOST_SECONDS


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_shell_completes_once_it_is_installed(environment: dict[str, str], tmp_path: Path) -> None:
    """``--install-completion`` in a new home, then what bash does at a TAB."""
    program = tmp_path / "bin" / "gpt4video"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpt4video_cli "$@"\n')
    program.chmod(0o755)
    script = (
        "gpt4video --install-completion bash >&2 || gpt4video --install-completion >&2\n"
        "source ~/.bashrc\n"
        "COMP_WORDS=(gpt4video chat --model bun); COMP_CWORD=3\n"
        "$(complete -p gpt4video | sed 's/.*-F \\([^ ]*\\) .*/\\1/') gpt4video\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    own = {"HOME": str(tmp_path), "PATH": f"{program.parent}{os.pathsep}{environment['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, env={**environment, **own}, cwd=tmp_path
    )
    assert done.stdout == "bundle\n", done.stderr
    assert "installed" in done.stderr
