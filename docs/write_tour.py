"""Writes ``docs/tour.md``: ``python docs/write_tour.py [FILE]`` runs what the tour shows and keeps what came.

Commands run in an empty folder with the demonstration clip, with the bundled models and without a network; the
conversation is held in a pseudo-terminal. Takes one to three minutes. Paths that would name this machine are
replaced, and what is too long is cut, where the page says so. pexpect comes with the extra ``dev``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pexpect

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 80
MOST_LINES = 14
PROMPT = r"\n(?:\d+ clips?)?> "
FILM_IT = r"film it\? .*: "


@dataclass(frozen=True)
class Run:
    """A line for a shell. ``most``: so many lines of what it prints are shown. ``code``: the exit code it must have."""

    line: str
    most: int = MOST_LINES
    code: int = 0


@dataclass(frozen=True)
class Talk:
    """A conversation at a terminal: what is typed, and what the program shows when it waits for the next line."""

    line: str
    typed: tuple[tuple[str, str], ...] = field(default=())
    most: int = 100


STEPS: list[str | Run | Talk] = [
    """# A tour

Everything here was run, with the small models that ship with the program, on their demonstration clip. They know
simple shapes and nothing else; the full model answers the same commands. What stands after `$` was typed, the rest is
what came.

## What is here
""",
    Run("gpt4video doctor --quick | tail -n 40", most=12),
    "What a clip is, and what of it a model looks at:\n",
    Run("gpt4video probe demo.mp4"),
    Run("gpt4video frames demo.mp4 --frames 4"),
    "## One question\n\nThe answer goes to stdout, everything else to stderr.\n",
    Run('gpt4video chat demo.mp4 -p "What shape is the object?"'),
    Run('gpt4video chat demo.mp4 -p "In which direction does the circle move?" --json | tr "," "\\n" | head -n 4'),
    "The next question may refer to what was said: every conversation is kept.\n",
    Run('gpt4video chat --last -p "What colour is the circle?" --quiet'),
    """## A conversation

A person talks at a terminal. This was typed with `--plain`, which draws nothing and suits screen readers; without it
the line is edited, completed with Tab and coloured. Here the model asks for a clip, which is filmed and asked about.
""",
    Talk(
        "gpt4video chat demo.mp4 --plain",
        (
            ("What shape is the object?", PROMPT),
            ("Make it blue.", FILM_IT),
            ("y", PROMPT),
            ("In video 2: What colour is the circle?", PROMPT),
            ("/frames", PROMPT),
            ("/undo", PROMPT),
            ("/generate a red circle moving left", PROMPT),
            ("/save talk.json", PROMPT),
            ("/exit", ""),
        ),
    ),
    "## Coming back\n",
    Run("gpt4video sessions list"),
    Run(
        "gpt4video sessions show $(gpt4video sessions list --json | grep -o '2[0-9]*-[0-9a-f-]*' | head -n 1)", most=10
    ),
    Run("gpt4video replay talk.json --check", most=6),
    "`gpt4video chat --resume` lists the last conversations and asks which one to go on with.\n\n## Clips from text\n",
    Run('gpt4video generate --raw "a green square moving up on a white background" --seed 3 -o square.mp4'),
    Run("gpt4video frames square.mp4 -o sheet.png"),
    "## Many clips\n",
    Run('gpt4video batch demo.mp4 square.mp4 gone.mp4 -p "What colour is the object?" -o results.jsonl', code=6),
    Run('grep -o \'"answer": *"[^"]*"\' results.jsonl'),
    Run("cat errors.jsonl", most=4),
    "## What is refused\n\nBoth what is asked and what would be filmed is judged. The exit code says so.\n",
    Run('gpt4video generate --raw "a man is tortured and beheaded, blood everywhere"', code=5),
    Run('gpt4video safety check "What moves in this clip?"'),
]


def main(arguments: list[str]) -> int:
    """Write the tour to the file that is named, else beside this one."""
    target = Path(arguments[0]) if arguments else ROOT / "docs" / "tour.md"
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve() / "tour"
        here.mkdir()
        shutil.copy(ROOT / "gpt4video_cli" / "bundle" / "clips" / "demo.mp4", here)
        text = "\n".join(_written(here, _environment(here)))
    target.write_text(f"<!-- Written by: python docs/write_tour.py -->\n\n{text}", encoding="utf-8")
    return 0


def _environment(here: Path) -> dict[str, str]:
    """A person without settings, for whom ``gpt4video`` is this checkout."""
    programs = here.parent / "bin"
    programs.mkdir()
    (programs / "gpt4video").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpt4video_cli "$@"\n')
    (programs / "gpt4video").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name in ("LANG", "LC_ALL", "OMP_NUM_THREADS")}
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
        "HOME": str(here.parent),
        "GPT4VIDEO_HOME": str(here.parent / "home"),
        "HF_HUB_OFFLINE": "1",
        "TERM": "xterm",
        "COLUMNS": str(COLUMNS),
    }


def _written(here: Path, environment: dict[str, str]) -> Iterator[str]:
    for step in STEPS:
        if isinstance(step, str):
            yield step
            continue
        shown = _run(step, here, environment) if isinstance(step, Run) else _talk(step, here, environment)
        lines = [_without_places(line, here).rstrip() for line in shown.splitlines()]
        if len(lines) > step.most:
            lines[step.most :] = [f"[... {len(lines) - step.most} more lines, cut here ...]"]
        yield "\n".join(["```console", f"$ {step.line}", *lines, "```\n"])


def _run(step: Run, here: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", step.line],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != step.code:
        raise SystemExit(f"{step.line}: exit code {done.returncode}, not {step.code}\n{done.stdout}")
    return done.stdout + (f"[exit code {step.code}]\n" if step.code else "")


def _talk(step: Talk, here: Path, environment: dict[str, str]) -> str:
    program = pexpect.spawn(
        "bash", ["-c", step.line], cwd=here, env=environment, dimensions=(50, COLUMNS), timeout=120, encoding="utf-8"
    )
    said: list[str] = []

    def wait(pattern: str) -> None:
        program.expect(pattern or pexpect.EOF)
        said.append(program.before + (program.after if pattern else ""))

    try:
        wait(PROMPT)
        for text, then in step.typed:
            program.sendline(text)
            wait(then)
    finally:
        program.close(force=True)
    if program.exitstatus:
        raise SystemExit(f"{step.line}: exit code {program.exitstatus}\n{''.join(said)}")
    return "".join(said).replace("\r\n", "\n")


def _without_places(line: str, here: Path) -> str:
    for place, name in ((here, "~/tour"), (here.parent, "~"), (ROOT, "..."), (Path(sys.prefix), "...")):
        line = line.replace(str(place), name)
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
