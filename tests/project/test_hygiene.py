"""Rules of the repository that a reader could check by eye: sizes, imports, and nothing of one machine in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "gpt4video_cli", ROOT / "kernels" / "gpt4video_kernels", ROOT / "model_cards"]
SOURCES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".jsonl", ".in", ".cfg", ".yml", ".yaml", ".sh", ".csv", ""}
MOST_LINES = 400

# What belongs to one machine: its paths, its package index, folders outside the checkout.
PRIVATE = re.compile(
    r"(?<![\w.~}\])])/(?:home|root|work|Users|opt)/\w"  # an absolute path
    r"|\.\.[/]shared\b|(?<!\w)[.]library[/]"
    r"|pypi[.]org|pythonhosted[.]org|(?:extra-)?index-url|find-links",
)


def repository_files() -> list[Path]:
    """The files that are or could be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_every_folder_with_modules_is_a_package() -> None:
    assert [f.parent for f in SOURCES if not (f.parent / "__init__.py").is_file()] == []


def test_no_drawer_is_called_utils() -> None:
    assert [
        f
        for f in SOURCES
        if {"utils", "util", "helpers", "core", "misc", "common"} & {f.stem, *f.relative_to(ROOT).parts}
    ] == []


def test_nothing_of_one_machine_is_committed() -> None:
    found = []
    for file in repository_files():
        if file.suffix not in TEXT or file == Path(__file__).resolve():
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
            if match := PRIVATE.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("see /" + "work/main/x.py", True),
        ('"/' + 'home/me/clip.mp4"', True),
        ("--extra-index" + "-url x", True),
        ("../" + "shared/clips", True),
        ("https://example.org/home/page", False),
        ("{folder}/" + "work/x", False),
        ("teamwork/home", False),
    ],
)
def test_private_pattern(line: str, private: bool) -> None:
    assert bool(PRIVATE.search(line)) is private


def run_python(code: str) -> dict[str, list[str]]:
    """Run ``code`` in a fresh interpreter from the root; its last line of output is JSON."""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'kernels')!r}]\n"
    seen = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert seen.returncode == 0, seen.stderr
    result: dict[str, list[str]] = json.loads(seen.stdout.splitlines()[-1])
    return result


def test_every_module_imports_and_prints_nothing() -> None:
    names = []
    for file in SOURCES:
        base = ROOT / "kernels" if "gpt4video_kernels" in file.parts else ROOT
        parts = file.relative_to(base).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    code = (
        "import contextlib, importlib, io, json, traceback\n"
        "failed, printed = [], io.StringIO()\n"
        f"for name in {names!r}:\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(printed):\n"
        "            importlib.import_module(name)\n"
        "    except BaseException:\n"
        "        failed.append(name + ': ' + traceback.format_exc(limit=-1))\n"
        "print(json.dumps({'failed': failed, 'printed': printed.getvalue().splitlines()}))"
    )
    assert run_python(code) == {"failed": [], "printed": []}


HEAVY = ["torch", "transformers", "diffusers", "peft", "llama_cpp", "av", "accelerate", "tokenizers", "huggingface_hub"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], *([name, "--help"] for name in ("chat", "probe", "doctor", "generate", "batch"))],
)
def test_command_line_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Without arguments: importing the command line alone."""
    code = (
        "import contextlib, io, json\n"
        "import gpt4video_cli.cli.app as app\n"
        f"arguments = {arguments!r}\n"
        "if arguments:\n"
        "    sys.argv = ['gpt4video', *arguments]\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):\n"
        "        app.main()\n"
        "    assert 'Usage' in printed.getvalue(), printed.getvalue()\n"
        f"print(json.dumps({{'loaded': [n for n in {HEAVY!r} if n in sys.modules]}}))"
    )
    assert run_python(code) == {"loaded": []}
