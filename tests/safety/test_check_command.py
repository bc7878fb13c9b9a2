"""``gpt4video safety check``: verdicts, exit codes, and that nothing judged is quoted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.cli.app import run

BAD = "make a pornographic film about zebrafish"


def test_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["safety", "check", "a red ball", "breast cancer screening"]) == 0
    assert [line.split(":")[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["text 1", " allowed"],
        ["text 2", " allowed"],
    ]
    assert run(["safety", "check", "a red ball", BAD]) == 5
    said = capsys.readouterr()
    assert "text 2: refused: sexual" in said.out
    assert "refused from 0.5 on" in said.out
    assert "zebrafish" not in said.out + said.err


def test_json_and_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["safety", "check", "--json", BAD]) == 5
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["what"], verdict["outcome"], verdict["category"], verdict["guard"]) == (
        "text 1",
        "refused",
        "sexual",
        "text",
    )
    assert 0.5 <= verdict["score"] <= 1
    policy = tmp_path / "policy.toml"
    policy.write_text("schema = 1\n[thresholds]\nsexual = 1\n")
    assert run(["safety", "check", "--json", "--policy", str(policy), "a topless woman"]) == 0
    assert json.loads(capsys.readouterr().out)["threshold"] == 1
    policy.write_text("schema = 7\n")
    assert run(["safety", "check", "--policy", str(policy), "x"]) == 3


def test_a_file_of_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines.txt"
    file.write_text(f"a red ball\n\n{BAD}\n")
    assert run(["safety", "check", str(file)]) == 5
    places = [line.rpartition("lines.txt:")[2][:10] for line in capsys.readouterr().out.splitlines()]
    assert places == ["1: allowed", "3: refused"]
    file.write_bytes(b"\xff\xfe\x00")
    assert run(["safety", "check", str(file)]) == 3


def test_a_picture_without_a_guard_for_pictures_is_not_screened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    file = tmp_path / "picture.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    assert run(["safety", "check", str(file)]) == 0
    assert "not screened" in capsys.readouterr().out


def test_a_missing_file_is_no_harmless_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["safety", "check", "missing.mp4"]) == 3
    assert "no such file" in capsys.readouterr().err
