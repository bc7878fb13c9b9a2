"""Wrong usage: one line on stderr, nothing on stdout, the right exit code, and at once."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode

USAGE, INPUT, WEIGHTS = ExitCode.USAGE, ExitCode.INPUT, ExitCode.WEIGHTS
CASES: list[tuple[list[str], int, str]] = [
    (["chat", "--frmaes", "3"], USAGE, "--frames"),
    (["chta"], USAGE, "did you mean 'chat'"),
    (["chat", "--frames", "many", "-p", "x"], USAGE, "--frames"),
    (["chat", "--frames", "0", "-p", "x"], USAGE, "--frames is 0"),
    (["chat", "--frames", "4", "--fps", "1", "-p", "x"], USAGE, "--frames and --fps"),
    (["chat", "--at", "1,2", "--start", "1", "-p", "x"], USAGE, "--at and --start"),
    (["chat", "--at", "1,zwei", "-p", "x"], USAGE, "'zwei'"),
    (["chat", "--start", "5", "--end", "1:0x", "-p", "x"], USAGE, "--end"),
    (["chat", "--start", "5", "--end", "5", "-p", "x"], USAGE, "--end"),
    (["chat", "--sampling", "exakt", "-p", "x"], USAGE, "--sampling"),
    (["chat", "--temperature", "-1", "-p", "x"], USAGE, "temperature"),
    (["chat", "--temperature", "nan", "-p", "x"], USAGE, "--temperature"),
    (["chat", "--top-p", "1.5", "-p", "x"], USAGE, "top-p"),
    (["chat", "--seed", "-4", "-p", "x"], USAGE, "--seed"),
    (["chat", "--stop", "", "-p", "x"], USAGE, "--stop"),
    (["chat", "--device", "tpu", "-p", "x"], USAGE, "--device"),
    (["chat", "--dtype", "int3", "-p", "x"], USAGE, "--dtype"),
    (["chat", "--offload", "--device", "cpu", "-p", "x"], USAGE, "--offload"),
    (["chat", "--offload", "--dtype", "4bit", "-p", "x"], USAGE, "--offload and --dtype 4bit"),
    (["chat", "--context-length", "1", "-p", "x"], USAGE, "--context-length is 1"),
    (["generate", "--dtype", "8bit", "x"], USAGE, "--dtype"),
    (["chat", "--time-limit", "0", "-p", "x"], USAGE, "--time-limit"),
    (["chat", "-p", "  "], USAGE, "prompt is empty"),
    (["chat"], USAGE, "prompt is empty"),
    (["chat", "missing.mp4", "-p", "x"], INPUT, "missing.mp4: no such file"),
    (["chat", ".", "-p", "x"], INPUT, "is a folder"),
    (["chat", "empty.mp4", "-p", "x"], INPUT, "empty.mp4: is empty"),
    (["chat", "-m", "no-such-model", "-p", "x"], WEIGHTS, "no-such-model"),
    (["chat", "bad\x1b[2J\nname.mp4", "-p", "x"], INPUT, "bad name.mp4: no such file"),
    (["probe", "missing.mp4"], INPUT, "missing.mp4: no such file"),
    (["probe"], USAGE, "CLIP"),
]


@pytest.mark.parametrize(("arguments", "code", "part"), CASES, ids=lambda value: repr(value) if value else None)
def test_one_line(
    arguments: list[str],
    code: int,
    part: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.mp4").touch()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert part in err
    assert "\x1b" not in err


def test_wrong_usage_loads_no_torch_and_is_said_on_stderr(environment: dict[str, str], tmp_path: Path) -> None:
    """All cases again in one fresh process: nothing heavy is imported for any of them."""
    (tmp_path / "empty.mp4").touch()
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        f"codes = [run(arguments) for arguments in {[case[0] for case in CASES]!r}]\n"
        "heavy = [name for name in ('torch', 'transformers', 'peft', 'diffusers') if name in sys.modules]\n"
        "print(json.dumps([codes, heavy]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    codes, heavy = json.loads(done.stdout)
    assert codes == [case[1] for case in CASES]
    assert heavy == []
    assert len(done.stderr.splitlines()) == len(CASES)


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"\x00\x00\x00\x18ftypmp42", "not text"), (b"\xff\xfe", "not text"), (b"a" * (2 << 20), "longer")],
)
def test_what_is_piped_must_be_a_question(gpt4video: Any, content: bytes, part: str) -> None:
    done = gpt4video("chat", stdin=content)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert part in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chat", "missing.mp4", "-p", "x", "--debug"]) == INPUT
    assert "Traceback" in capsys.readouterr().err
    assert run(["chat", "missing.mp4", "-p", "x"]) == INPUT
    assert "Traceback" not in capsys.readouterr().err


def test_an_unexpected_error_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def explode(path: str) -> None:
        raise RuntimeError("boom\x1b[31m")

    monkeypatch.setattr("gpt4video_cli.cli.chat.sniff", explode)
    assert run(["chat", "x.mp4", "-p", "x"]) == ExitCode.FAILED
    assert capsys.readouterr().err == "error: RuntimeError: boom; run again with --debug to see where\n"
