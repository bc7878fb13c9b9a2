"""``chat --explain``: a plan on stdout, and nothing is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import ExitCode
from gpt4video_cli.model.assembly import write_assembly
from gpt4video_cli.model.free_memory import main_memory


def test_the_bundle_on_a_cpu(gpt4video: Any) -> None:
    done = gpt4video("chat", "--explain", "--device", "cpu", "--dtype", "bf16", "--context-length", "256")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.partition("\n\n")[0].splitlines()
    assert head.split() == ["part", "parameters", "type", "place", "GB"]
    assert [row.split("  ")[0] for row in rows][:3] == ["vision", "abstractor", "language, embeddings"]
    assert any(row.startswith("keys and values, 256 positions") and "bfloat16" in row for row in rows)
    assert rows[-1].startswith("total")
    assert "cpu: " in done.stdout and " GB free" in done.stdout


def test_json_counts_every_parameter(gpt4video: Any, tiny_model_folder: Path) -> None:
    from safetensors import safe_open

    done = gpt4video("chat", "--explain", "--json", "--device", "cpu", "--model", tiny_model_folder)
    plan = json.loads(done.stdout)
    stored = 0
    for path in tiny_model_folder.rglob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118
                count = 1
                for side in file.get_slice(name).get_shape():
                    count *= side
                stored += count
    assert sum(row["parameters"] for row in plan["rows"]) == stored
    assert plan["total"] == plan["devices"][0]["used"] <= plan["devices"][0]["free"]
    assert plan["context_length"] == 512 and plan["device_map"] == {}


def test_it_loads_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """A full-size model whose files are hollow: no torch, no weights, no question from stdin, and a little memory."""
    folder = write_assembly(tmp_path / "7b", layers=2, hollow=True)
    code = (
        "import json, sys\n"
        "from gpt4video_cli.cli.app import run\n"
        f"code = run(['chat', '--explain', '--device', 'cpu', '--model', {str(folder)!r}])\n"
        "heavy = [name for name in ('torch', 'transformers', 'safetensors', 'av', 'numpy') if name in sys.modules]\n"
        "read = next(int(line.split()[1]) for line in open('/proc/self/io') if line.startswith('rchar'))\n"
        "print(json.dumps([code, heavy, read]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    code_, heavy, read = json.loads(done.stdout.splitlines()[-1])
    assert (code_, heavy) == (0, [])
    assert read < 20_000_000, "bytes read, the program's own files included; the weights have 2 GB"
    assert "303,179,776" in done.stdout and "81,534,976" in done.stdout


def test_what_does_not_fit_is_refused_alike_with_and_without_explain(gpt4video: Any, tmp_path: Path) -> None:
    layers = 2 * main_memory().total // 404_766_720 + 1
    folder = write_assembly(tmp_path / "huge", layers=layers, hollow=True)
    common = ["chat", "--device", "cpu", "--dtype", "bfloat16", "--model", folder]
    for more in (["--explain"], ["-p", "What is it?", "--quiet"]):
        done = gpt4video(*common, *more)
        assert (done.returncode, done.stdout) == (ExitCode.WEIGHTS, "")
        assert "does not fit: it needs" in done.stderr and done.stderr.count("\n") == 1


def test_a_narrower_type_answers(gpt4video: Any, tiny_model_folder: Path) -> None:
    done = gpt4video(
        "chat", "--device", "cpu", "--dtype", "bf16", "--context-length", "300", "-m", tiny_model_folder, "-p", "Hello?"
    )
    assert done.returncode == 0, done.stderr
