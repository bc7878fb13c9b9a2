"""What ``models import`` refuses, in one line each, and that nothing half-made is left."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode, Gpt4VideoError, InputError, UsageError, WeightsError
from gpt4video_cli.weights import convert_staging
from gpt4video_cli.weights.convert import import_weights

Change = Callable[[Path], None]


@pytest.fixture
def source(tmp_path: Path, tiny_language_folder: Path) -> Path:
    """A LLaMA folder to be spoilt."""
    return Path(shutil.copytree(tiny_language_folder, tmp_path / "llama"))


@pytest.fixture
def lora(tmp_path: Path, tiny_adapter_folder: Path) -> Path:
    """An adapter to be spoilt."""
    return Path(shutil.copytree(tiny_adapter_folder, tmp_path / "lora"))


def change_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(file)), file)


def change_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and the one line of an error."""
    code = run(["models", "import", *map(str, words)])
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
    return code, shown.err


def test_the_command_line(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    code, line = command(capsys, source, "--format", "gguf", "-o", new)
    assert code == ExitCode.USAGE and "known: mplug-owl-video, hf-clip, hf-llama, peft" in line
    code, line = command(capsys, tmp_path / "nowhere", "--format", "hf-llama", "-o", new)
    assert code == ExitCode.INPUT and "no such file or folder" in line
    code, line = command(capsys, source, "--format", "hf-llama", "-o", new, "--dtype", "int8")
    assert code == ExitCode.USAGE and "--dtype" in line
    code, line = command(capsys, source, "--format", "hf-llama", "-o", new, "--shard-size", "0")
    assert code == ExitCode.USAGE and "--shard-size" in line
    code, line = command(capsys, source, "--format", "hf-clip", "-o", new)
    assert code == ExitCode.WEIGHTS and "config.json: model type is 'llama'" in line
    code, line = command(capsys, source, "--format", "peft", "-o", new)
    assert code == ExitCode.WEIGHTS and "adapter_model" in line
    assert not new.exists()
    assert run(["models", "import", str(source), "--format", "hf-llama", "-o", str(new), "-q"]) == 0
    assert capsys.readouterr() == (f"{new / 'language'}\n", "")
    code, line = command(capsys, source, "--format", "hf-llama", "-o", new)
    assert code == ExitCode.USAGE and "exists and is not empty" in line
    code, line = command(capsys, source, "--format", "mplug-owl-video", "-o", source)
    assert code == ExitCode.USAGE and "exists and is not empty" in line


def cut(file: str, keep: float) -> Change:
    def change(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * keep)])

    return change


def pickled(change: Change, **options: Any) -> Change:
    """The same weights as a pickle first."""

    def both(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin", **options)
        (folder / "model.safetensors").unlink()
        change(folder)

    return both


def replaced(content: bytes) -> Change:
    return pickled(lambda folder: (folder / "pytorch_model.bin").write_bytes(content) and None)


def saved(value: Any) -> Change:
    return pickled(lambda folder: torch.save(value, folder / "pytorch_model.bin"))


def index(value: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(value))

    return change


WORDS = "model.embed_tokens.weight"
SPOILT: dict[str, tuple[Change, str]] = {
    "truncated safetensors": (cut("model.safetensors", 0.7), r"model\.safetensors: not a readable safetensors file"),
    "truncated header": (cut("model.safetensors", 0.001), r"model\.safetensors: not a readable safetensors file"),
    "truncated pickle": (pickled(cut("pytorch_model.bin", 0.7)), r"\.bin: cannot be read as a PyTorch checkpoint"),
    "truncated old pickle": (
        pickled(cut("pytorch_model.bin", 0.7), _use_new_zipfile_serialization=False),
        r"\.bin: cannot be read as",
    ),
    "empty pickle": (replaced(b""), r"\.bin: cannot be read as a PyTorch checkpoint"),
    "a web page": (replaced(b"<html>not found</html>"), r"\.bin: cannot be read as plain weights"),
    "a pointer": (replaced(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "is a Git LFS pointer"),
    "a list": (saved([torch.ones(2)]), "something other than named tensors"),
    "a module": (saved({"model": torch.nn.Linear(2, 2)}), "is not plain weights: it holds torch.nn"),
    "a sparse tensor": (saved({WORDS: torch.eye(4).to_sparse()}), f"tensor {WORDS} is quantised, sparse"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"neither model\.safetensors nor"),
    "a shard is missing": (index({"weight_map": {WORDS: "model-1.safetensors"}}), r"model-1\.safetensors: file is mis"),
    "an index elsewhere": (index({"weight_map": {WORDS: "a/../../x.safetensors"}}), "which is not beside it"),
    "an empty index": (index({}), "no weight_map"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), r"config\.json: file is missing"),
    "half a configuration": (cut("config.json", 0.5), r"config\.json: cannot be read as JSON"),
    "another width": (
        lambda folder: change_json(folder / "config.json", hidden_size=80),
        r"tensor lm_head\.weight has shape \[\d+, 64\], expected \[\d+, 80\] \(and \d+ more",
    ),
    "more layers": (
        lambda folder: change_json(folder / "config.json", num_hidden_layers=3),
        r"tensor model\.layers\.2\.input_layernorm\.weight is missing \(and 8 more",
    ),
    "fewer layers": (
        lambda folder: change_json(folder / "config.json", num_hidden_layers=1),
        r"tensor model\.layers\.1\.\S+ is unexpected \(and 8 more",
    ),
    "a size in words": (
        lambda folder: change_json(folder / "config.json", hidden_size="wide"),
        "which is not a number",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_checkpoint(tmp_path: Path, source: Path, name: str) -> None:
    change, said = SPOILT[name]
    change(source)
    with pytest.raises(WeightsError, match=said) as caught:
        import_weights(source, "hf-llama", tmp_path / "new")
    assert "\n" not in caught.value.line() and caught.value.exit_code == ExitCode.WEIGHTS
    assert not (tmp_path / "new").exists()


def test_numbers_too_large_for_float16(tmp_path: Path, source: Path) -> None:
    change_tensors(source / "model.safetensors", lambda tensors: {**tensors, WORDS: tensors[WORDS] * 1e6})
    with pytest.raises(WeightsError, match=rf"tensor {WORDS} has numbers too large for float16"):
        import_weights(source, "hf-llama", tmp_path / "new", dtype=torch.float16)
    assert not (tmp_path / "new").exists()


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
ADAPTERS: dict[str, tuple[Change, str]] = {
    "another width": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: {**t, A: torch.ones(4, 80)}),
        r"model\.layers\.0\.self_attn\.q_proj is for input width 80, the language model's has 64",
    ),
    "another output width": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: {**t, B: torch.ones(80, 4)}),
        r"model\.layers\.0\.self_attn\.q_proj is for output width 80, the language model's has 64",
    ),
    "a layer too many": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: {**t, A.replace(".0.", ".7."): t[A] * 1}),
        r"has no layer model\.layers\.7\.self_attn\.q_proj",
    ),
    "a layer too few": (
        lambda f: change_tensors(
            f / "adapter_model.safetensors", lambda t: {k: v for k, v in t.items() if ".layers.1." not in k}
        ),
        r"tensor base_model\.model\.model\.layers\.1\.\S+\.lora_A\.weight is missing",
    ),
    "half a pair": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: {k: v for k, v in t.items() if k != B}),
        rf"tensor {B} is missing",
    ),
    "another rank": (
        lambda f: change_json(f / "adapter_config.json", r=8),
        r"has A \[4, \d+\] and B \[\d+, 4\], adapter_config\.json says rank 8",
    ),
    "another kind": (lambda f: change_json(f / "adapter_config.json", peft_type="IA3"), "only LoRA"),
    "no tensor of LoRA": (
        lambda f: change_tensors(f / "adapter_model.safetensors", lambda t: {**t, "model.x": torch.ones(1)}),
        r"tensor model\.x is unexpected",
    ),
}


@pytest.mark.parametrize("first", ["language", "adapter"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_for_another_base(
    tmp_path: Path, source: Path, lora: Path, tiny_adapter_folder: Path, name: str, first: str
) -> None:
    change, said = ADAPTERS[name]
    new = tmp_path / "new"
    if first == "language":
        import_weights(source, "hf-llama", new)
        change(lora)
        with pytest.raises(WeightsError, match=said):
            import_weights(lora, "peft", new)
        assert not (new / "adapter").exists()
        import_weights(tiny_adapter_folder, "peft", new)  # the right one goes in
        return
    new.mkdir()
    change(lora)
    shutil.copytree(lora, new / "adapter")  # as if it had been imported before its base
    with pytest.raises(WeightsError, match=said):
        import_weights(source, "hf-llama", new)
    assert not (new / "language").exists()


def test_a_full_disk_is_seen_before(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(Gpt4VideoError, match=r"the disk has 0\.0 GB left") as caught:
        import_weights(source, "hf-llama", tmp_path / "new")
    assert "free some space" in caught.value.line()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(convert_staging.os, "fsync", refuse)
    with pytest.raises(Gpt4VideoError, match="cannot be written") as caught:
        import_weights(source, "hf-llama", tmp_path / "new")
    assert ("free some space" in caught.value.line()) == (number == errno.ENOSPC)
    assert caught.value.exit_code == ExitCode.FAILED
    assert not (tmp_path / "new").exists()


def test_no_folder_can_be_made_there(tmp_path: Path, source: Path) -> None:
    with pytest.raises(Gpt4VideoError, match="cannot be written"):
        import_weights(source, "hf-llama", source / "config.json" / "new")


IMPORT = "from gpt4video_cli.weights.convert import import_weights\nimport os, sys\n"


def python(code: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    path = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'kernels')!r}]\n"
    command = [sys.executable, "-c", path + IMPORT + code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def test_a_real_limit_of_the_file_system(tmp_path: Path, source: Path) -> None:
    code = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)\n"
    code += "import_weights(sys.argv[1], 'hf-llama', sys.argv[2])"
    done = python(code, source, tmp_path / "new")
    assert "cannot be written: File too large" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "new").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_a_killed_run_leaves_no_model_and_the_next_one_clears_up(tmp_path: Path, source: Path) -> None:
    code = "import_weights(sys.argv[1], 'hf-llama', sys.argv[2], shard_bytes=100_000,\n"
    code += "    progress=lambda done, total: done * 2 > total and os.kill(os.getpid(), 9))"
    new = tmp_path / "new"
    done = python(code, source, new)
    assert done.returncode == -signal.SIGKILL
    left = list(new.iterdir())
    assert len(left) == 1 and left[0].name.startswith(".gpt4video-import-") and any(left[0].iterdir())
    import_weights(source, "hf-llama", new)
    assert [path.name for path in new.iterdir()] == ["language"]


def test_one_that_is_at_work_is_left_alone(tmp_path: Path, source: Path) -> None:
    """Two imports into one folder: neither takes the other's unfinished work for a leftover; the later one loses."""

    def other(done: int, total: int) -> None:
        if not (tmp_path / "new" / "language").exists():
            import_weights(source, "hf-llama", tmp_path / "new")

    with pytest.raises(UsageError, match="appeared meanwhile"):
        import_weights(source, "hf-llama", tmp_path / "new", progress=other)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["language"]


def test_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        import_weights(tmp_path / "nothing", "hf-llama", tmp_path / "new")
