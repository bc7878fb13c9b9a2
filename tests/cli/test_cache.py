"""``gpt4video cache``, ``--no-cache``, and a question about a kept clip, which needs neither decoder nor torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.clip_cache import ClipCache
from gpt4video_cli.errors import ExitCode

pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def model(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that llama.cpp can answer for."""
    from gpt4video_cli.weights.gguf_export import export_gguf

    folder = Path(shutil.copytree(random_model, tmp_path_factory.mktemp("gguf") / "random"))
    export_gguf(folder / "language", folder / "language" / "model-f32.gguf", "f32")
    return folder


def ask(model: Path, clip: Path, *options: str) -> list[str]:
    return [
        "chat",
        str(clip),
        "-p",
        "What moves?",
        "-m",
        str(model),
        "--engine",
        "llama",
        "--max-tokens",
        "6",
        *options,
    ]


@pytest.fixture
def answer(model: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Of a first question, which keeps the clip."""
    assert run(ask(model, clip, "--json", "-q")) == ExitCode.DONE
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_a_kept_clip_needs_no_torch_and_no_decoder(
    model: Path, clip: Path, answer: dict[str, Any], own_home: Path
) -> None:
    assert answer["timings"]["decode"] > 0 and answer["timings"]["vision"] > 0 and "torch" in answer["versions"]
    code = (
        "import subprocess, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        "def refuse(*arguments, **options):\n"
        "    raise AssertionError('a process was started')\n"
        "subprocess.Popen = refuse\n"
        f"code = run({ask(model, clip, '--json', '-q')!r})\n"
        "heavy = {'torch', 'transformers', 'av', 'PIL', 'huggingface_hub.file_download'} & set(sys.modules)\n"
        "print(code, sorted(heavy), file=sys.stderr)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])},
        timeout=90,
    )
    assert done.stderr.split(None, 1) == ["0", "[]\n"]
    kept = json.loads(done.stdout)
    assert (kept["timings"]["decode"], kept["timings"]["vision"]) == (0.0, 0.0)
    assert "torch" not in kept["versions"] and "llama-cpp-python" in kept["versions"]
    for same in ("answer", "tokens", "finish_reason"):
        assert kept[same] == answer[same]
    assert kept["clips"][0]["receipt"] == answer["clips"][0]["receipt"]


def test_no_cache(model: Path, clip: Path, answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = ClipCache().clips()
    assert len(before) == 1
    assert run(ask(model, clip, "--json", "-q", "--no-cache")) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["timings"]["decode"] > 0 and told["timings"]["vision"] > 0
    assert told["answer"] == answer["answer"]
    assert ClipCache().clips() == before
    ClipCache().clear()
    assert run(ask(model, clip, "-q", "--no-cache")) == ExitCode.DONE
    assert ClipCache().clips() == []


def test_ls_prune_and_clear(
    model: Path, clip: Path, answer: dict[str, Any], own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ClipCache().clips()[0].bytes
    assert run(["cache", "ls"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    head, row = out.splitlines()
    assert head.split() == ["USED", "SIZE", "FRAMES", "MODEL", "CLIP"]
    assert row.split(None, 5)[0] == "now" and row.endswith(f"random  {clip}")
    assert err == f"1 clip, {size / 1000:.1f} kB of 1.0 GB in {own_home / 'clips'}\n"

    assert run(["cache", "ls", "--json"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["bytes"], told["limit"], told["folder"]) == (size, 10**9, str(own_home / "clips"))
    (entry,) = told["clips"]
    assert entry.pop("used_seconds_ago") < 600
    assert entry == {"path": str(clip), "model": "random", "frames": 4, "bytes": size}

    assert run(["cache", "prune", "--older-than", "30d", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"dropped": 0, "bytes": 0}
    (file,) = (own_home / "clips").iterdir()
    os.utime(file, (time.time() - 31 * 86400,) * 2)
    run(["cache", "ls"])
    assert capsys.readouterr().out.splitlines()[1].startswith("31 d")
    assert run(["cache", "clear"]) == ExitCode.USAGE
    assert "--yes" in capsys.readouterr().err and file.exists()
    assert run(["cache", "prune", "--older-than", "30d"]) == ExitCode.DONE
    assert capsys.readouterr().err == f"dropped 1 clip, {size / 1000:.1f} kB\n"
    assert not file.exists()


def test_an_empty_cache(capsys: pytest.CaptureFixture[str], own_home: Path) -> None:
    assert run(["cache", "ls"]) == ExitCode.DONE
    assert capsys.readouterr().out == ""
    for command in (["clear", "--yes", "--json"], ["prune", "--max-size", "0", "--json"]):
        assert run(["cache", *command]) == ExitCode.DONE
        assert json.loads(capsys.readouterr().out) == {"dropped": 0, "bytes": 0}
    assert not (own_home / "clips").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["prune", "--max-size", "lots"], "--max-size is 'lots'"),
        (["prune", "--older-than", "30"], "--older-than is '30'"),
        (["prune", "--older-than", "-3d"], "--older-than is '-3d'"),
    ],
)
def test_wrong_options(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", *options]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_a_limit_that_is_no_size(
    model: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT4VIDEO_CACHE_SIZE", "plenty")
    assert run(ask(model, clip)) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("error: GPT4VIDEO_CACHE_SIZE is 'plenty'")
