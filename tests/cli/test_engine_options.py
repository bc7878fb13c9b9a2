"""``--engine`` and its options as a shell gives them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.errors import ExitCode
from gpt4video_cli.weights.gguf_export import export_gguf


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A model folder with an adapter and a GGUF file beside its safetensors."""
    folder = tmp_path_factory.mktemp("model") / "both"
    shutil.copytree(tiny_model_folder, folder)
    export_gguf(folder / "language", folder / "language" / "model-f32.gguf", "f32")
    return folder


def test_one_answer_from_llama_cpp_says_so_and_is_quiet(gpt4video: Any, both: Path) -> None:
    common = ("chat", "-p", "What moves?", "--model", both, "--json", "--quiet", "--max-tokens", "8")
    answers = []
    for more in ((), ("--engine", "torch"), ("--adapter", "adapter:0.5", "--threads", "1")):
        done = gpt4video(*common, *more)
        assert (done.returncode, done.stderr) == (0, "")
        answers.append(json.loads(done.stdout))
    ours, theirs, half = answers
    assert ours["engine"] | {"file": None, "adapters": None} == {
        "name": "llama",
        "kind": "f32",
        "file": None,
        "reason": "no GPU, and a GGUF file is there",
        "adapters": None,
    }
    assert "transformers" not in ours["versions"] and "llama-cpp-python" in ours["versions"]
    assert theirs["engine"]["name"] == "torch" and ours["answer"] == theirs["answer"]
    assert [a["name"] for a in ours["engine"]["adapters"]] == ["adapter"]
    assert ours["adapter"] is not None and half["adapter"] is None, "named is only the model's own"
    assert [(a["name"], a["scale"]) for a in half["engine"]["adapters"]] == [("adapter", 0.5)]


def test_explain_and_refusals(gpt4video: Any, both: Path) -> None:
    done = gpt4video("chat", "--explain", "--json", "--model", both)
    plan = json.loads(done.stdout)
    assert plan["engine"]["kind"] == "f32" and plan["total"] == plan["devices"][0]["used"]
    assert [row["what"] for row in plan["rows"]][:3] == ["vision", "abstractor", "language, llama.cpp"]
    for options, code, said in (
        (("--engine", "llama:q4_0"), ExitCode.WEIGHTS, "--gguf q4_0"),
        (("--engine", "llama", "--gpu-layers", "3"), ExitCode.USAGE, "built without GPU support"),
        (("--adapter", "mould"), ExitCode.WEIGHTS, "no adapter 'mould'"),
        (("--threads", "0"), ExitCode.USAGE, "--threads is 0"),
    ):
        done = gpt4video("chat", "-p", "What moves?", "--quiet", "--model", both, *options)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr and done.stderr.count("\n") == 1
