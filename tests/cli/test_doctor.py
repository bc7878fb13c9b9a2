"""The doctor looks without breaking, and without loading what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

import pytest

from gpt4video_cli import __version__
from gpt4video_cli.cli import doctor
from gpt4video_cli.cli.app import run


def test_json_and_text_agree_with_what_is_installed(gpt4video: Any, environment: dict[str, str]) -> None:
    done = gpt4video("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["missing"] else 0)
    assert done.stderr == ""
    assert report["program"] == __version__
    assert report["packages"]["torch"] == metadata.version("torch")
    assert report["ffmpeg"]["libavcodec"]
    assert report["devices"][0]["name"] == "cpu"
    assert report["cpu"]["threads"] == 1  # OMP_NUM_THREADS of these tests
    assert report["engines"]["torch"] is True
    assert report["folders"]["data"]["path"] == environment["GPT4VIDEO_HOME"]
    generators = {generator["name"]: generator for generator in report["generators"]}
    assert "gpt4video models pull zeroscope-v2-576w" in generators["zeroscope-v2-576w"]["problem"]
    assert "bundle-film" in generators
    guards = {guard["name"]: guard for guard in report["guards"]}
    assert guards["text"]["installed"] and not guards["toxic-bert"]["installed"]
    (bundle,) = [model for model in report["models"] if model["name"] == "bundle"]
    assert [(file["kind"], file["path"].endswith(".gguf")) for file in bundle["gguf"]] == [("f16", True)]
    assert all(file["bytes"] > 1e6 for file in bundle["gguf"])
    text = "\n".join(doctor.as_lines(report))
    assert metadata.version("transformers") in text
    assert "    GGUF f16" in text and "  toxic-bert            not installed" in text


def test_quick_imports_no_models(environment: dict[str, str]) -> None:
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        "run(['doctor', '--quick'])\n"
        "heavy = ['torch', 'transformers', 'diffusers', 'peft', 'llama_cpp']\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_what_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", [*doctor.REQUIRED, ("no-such-package", "no_such_package", "nothing works")])
    monkeypatch.setattr(doctor, "OPTIONAL", [*doctor.OPTIONAL, ("nor-this", "nor_this", "little is lost")])
    assert run(["doctor", "--quick"]) == 1
    out, err = capsys.readouterr()
    assert "missing: no-such-package is not installed: nothing works" in out
    assert "note: nor-this is not installed: little is lost" in out
    assert "everything needed is here" not in out
    assert err == ""


def test_a_broken_torch_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("libtorch.so: no such file")

    monkeypatch.setattr(doctor, "_devices", broken)
    assert any("libtorch.so" in text for text in doctor.examine()["missing"])
