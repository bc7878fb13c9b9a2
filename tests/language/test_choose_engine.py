"""Which engine answers, with which file, and what is said of files that cannot be used."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import ExitCode, Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.language import choose_engine as module
from gpt4video_cli.language.choose_engine import choose_engine, find_gguf_files
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.language.gguf_header import read_gguf_header
from gpt4video_cli.language.llama_engine import LlamaEngine
from gpt4video_cli.language.llama_options import LlamaOptions
from gpt4video_cli.model import free_memory, llama_placement
from gpt4video_cli.model.checkpoint import open_model
from gpt4video_cli.model.free_memory import Device
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.model.tensor_headers import read_headers, read_json
from gpt4video_cli.weights.gguf_export import export_gguf

GPU = Device("cuda:0", 8 * 10**9, 8 * 10**9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A model folder with an adapter and two GGUF files. Do not change it."""
    folder = tmp_path_factory.mktemp("model") / "both"
    shutil.copytree(tiny_model_folder, folder)
    for kind in ("f32", "q8_0"):
        export_gguf(folder / "language", folder / "language" / f"model-{kind}.gguf", kind)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(made, tmp_path / "both"))


def wish(engine: str = "auto", **options: object) -> LoadWish:
    """Of an engine, on this machine unless it is said where."""
    return LoadWish(engine=EngineWish.parse(engine), **options)  # type: ignore[arg-type]


def chosen(folder: Path, wished: LoadWish) -> tuple[str, str | None]:
    choice = choose_engine(folder, "both", wished)
    return choice.name, None if choice.file is None else choice.file.kind


def test_auto_takes_the_most_exact_gguf_without_a_gpu_and_pytorch_else(
    made: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(made, wish(device="cpu")) == ("llama", "f32")
    assert chosen(made, wish("llama:q8_0")) == ("llama", "q8_0")
    assert chosen(made, wish("torch")) == ("torch", None)
    assert chosen(made, wish(device="cpu", dtype="bfloat16")) == ("torch", None)
    assert choose_engine(tiny_model_folder, "m", wish()).line() == "PyTorch (no GGUF file)"
    assert choose_engine(made, "m", wish(device="cpu")).line() == "llama.cpp f32 (no GPU, and a GGUF file is there)"
    monkeypatch.setattr(free_memory, "find_devices", lambda wanted: [GPU])
    assert choose_engine(made, "m", wish()).line() == "PyTorch (there is a GPU)"
    monkeypatch.setattr(module, "is_installed", lambda: False)
    assert chosen(made, wish()) == ("torch", None)


def test_of_several_files_the_most_exact_that_fits(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_room(free: int) -> None:
        host = Device("cpu", free + free_memory.RESERVE["cpu"], 10**10)
        monkeypatch.setattr(llama_placement, "main_memory", lambda: host)
        monkeypatch.setattr(llama_placement, "find_devices", lambda wanted: [host])

    needs = {
        file.kind: sum(row.bytes for row in llama_placement.place_llama("m", made, file, wish(device="cpu")).rows)
        for file in find_gguf_files(made)
    }
    assert list(needs) == ["f32", "q8_0"] and needs["f32"] > needs["q8_0"]
    with_room(needs["f32"])
    assert chosen(made, wish(device="cpu")) == ("llama", "f32")
    with_room(needs["f32"] - 1)
    assert chosen(made, wish(device="cpu")) == ("llama", "q8_0")
    with_room(needs["q8_0"] - 1)
    with pytest.raises(WeightsError, match="does not fit: it needs") as error:
        choose_engine(made, "both", wish(device="cpu"))
    assert "--context-length" in error.value.line()
    assert chosen(made, wish(device="cpu", context_length=64))[0] == "llama"


def test_it_answers_as_pytorch_does_with_and_without_its_adapter(made: Path) -> None:
    from gpt4video_cli.language.engine import EmbeddingSegment, TextSegment

    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    answers = []
    for engine in ("llama:f32", "torch"):
        for adapters in (None, ()):
            model = open_model(made, LoadWish("cpu", engine=replace(EngineWish.parse(engine), adapters=adapters)))
            embeddings = model.condense(model.encode(frames))
            segments = [EmbeddingSegment("k", embeddings), TextSegment("What happens?")]
            answers.append(np.asarray(model.engine.logits(segments)))  # type: ignore[attr-defined]
            assert [a.name for a in model.adapters] == (["adapter"] if adapters is None else [])
    assert np.abs(answers[0] - answers[2]).max() < 5e-5 and np.abs(answers[1] - answers[3]).max() < 5e-5
    assert np.abs(answers[0] - answers[1]).max() > 0.01, "the adapter does something"


# --- bad input ----------------------------------------------------------------------------------------------------


def refused(folder: Path, wished: LoadWish) -> Gpt4VideoError:
    """What is said when the model is opened and its engine loaded."""
    with pytest.raises(Gpt4VideoError) as error:
        _ = open_model(folder, wished).engine
    assert "\n" not in error.value.line()
    return error.value


def test_no_gguf_file_names_the_command(folder: Path) -> None:
    error = refused(folder, wish("llama:q4_k_m"))
    assert error.exit_code == ExitCode.WEIGHTS
    assert "no GGUF file of kind q4_k_m, but f32, q8_0" in error.line()
    for file in find_gguf_files(folder):
        file.path.unlink()
    error = refused(folder, wish("llama"))
    assert error.exit_code == ExitCode.WEIGHTS
    assert error.line().endswith("gpt4video models export random --gguf q8_0")


def test_files_of_other_weights(folder: Path) -> None:
    weights = folder / "language" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\0\0\0\0"
    weights.write_bytes(content)
    assert choose_engine(folder, "m", wish(device="cpu")).line() == "PyTorch (the GGUF file was made of other weights)"
    assert "was made of other weights" in refused(folder, wish("llama")).line()


def with_number(path: Path, key: str, value: int) -> None:
    """Overwrite a 32 bit number of a GGUF file's metadata."""
    content = bytearray(path.read_bytes())
    at = content.index(key.encode()) + len(key) + 4
    content[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def renamed(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "another width": (lambda path: with_number(path, "llama.embedding_length", 128), "embeddings are 128 wide.* 64"),
    "another architecture": (lambda path: renamed(path, b"llama", b"qwen2"), "architecture is 'qwen2'"),
    "no number of layers": (
        lambda path: renamed(path, b"llama.block_count", b"llama.block_xxxxx"),
        "no llama.block_count",
    ),
    "header cut": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "damaged or incomplete"),
    "weights cut": (
        lambda path: path.write_bytes(path.read_bytes()[:-5000]),
        "llama.cpp cannot load it: .*bounds|cannot",
    ),
    "no GGUF file": (lambda path: path.write_bytes(b"PK\3\4" * 100), "not a GGUF file"),
    "another version": (lambda path: path.write_bytes(b"GGUF\x09\0\0\0" + bytes(100)), "GGUF version 9"),
    "empty": (lambda path: path.write_bytes(b""), "not a GGUF file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(folder: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, said = BAD[case]
    for file in find_gguf_files(folder):
        file.path.unlink() if file.kind != "f32" else spoil(file.path)
    error = refused(folder, wish("llama"))
    assert error.exit_code == ExitCode.WEIGHTS and str(folder) in str(error)
    import re

    assert re.search(said, error.line()), error.line()
    assert capfd.readouterr().err == ""


def test_another_vocabulary(folder: Path, tmp_path: Path, language_writer: Callable[..., Path]) -> None:
    other = export_gguf(language_writer(tmp_path / "other"), tmp_path / "model-f32.gguf", "f32")
    with pytest.raises(WeightsError, match=r"its vocabulary has \d+ tokens"):
        LlamaEngine.load(other, folder / "language")


def test_every_cut_of_a_header_is_told(made: Path, tmp_path: Path) -> None:
    content = (made / "language" / "model-f32.gguf").read_bytes()
    header = read_gguf_header(made / "language" / "model-f32.gguf")
    assert (header.width, header.architecture, header.context_length) == (64, "llama", 512)
    assert header.parameters == sum(tensor.numbers for tensor in read_headers(made / "language"))
    assert header.vocabulary == read_json(made / "language" / "config.json")["vocab_size"]
    path = tmp_path / "cut.gguf"
    for length in range(0, 6000, 97):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            read_gguf_header(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "lama"}, "--engine is 'lama'"),
        ({"engine": "llama:"}, "--engine is 'llama:'"),
        ({"engine": "torch:q8_0"}, "only llama has kinds"),
        ({"engine": "llama", "dtype": "bfloat16"}, "--dtype bfloat16 and --engine llama contradict"),
        ({"engine": "llama", "offload": True}, "--offload is an option of the PyTorch engine"),
        ({"llama": {"threads": 600}}, "--threads is 600"),
        ({"llama": {"gpu_layers": -2}}, "--gpu-layers is -2"),
        ({"llama": {"kv_type": "q4"}}, "--kv-type is 'q4'"),
        ({"llama": {"flash_attention": "yes"}}, "--flash-attention is 'yes'"),
        ({"llama": {"kv_type": "q8_0", "flash_attention": "off"}}, "contradict"),
        ({"engine": "torch", "llama": {"threads": 2}}, "--threads is an option of the llama.cpp engine"),
        ({"engine": "llama", "device": "cpu", "llama": {"gpu_layers": 3}}, "--device cpu and --gpu-layers 3"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        llama = LlamaOptions(**options.pop("llama", {}))  # type: ignore[arg-type]
        engine = EngineWish.parse(str(options.pop("engine", "auto")), llama)
        LoadWish(engine=engine, **options)  # type: ignore[arg-type]


def test_what_this_installation_cannot_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = EngineWish(llama=LlamaOptions(threads=2))
    with pytest.raises(UsageError, match=r"--threads .*PyTorch was chosen: --dtype bfloat16"):
        choose_engine(folder, "m", LoadWish("cpu", "bfloat16", engine=threads))
    layers = EngineWish("llama", llama=LlamaOptions(gpu_layers=4))
    error = refused(folder, LoadWish(engine=layers))
    assert error.exit_code == ExitCode.USAGE and "built without GPU support" in error.line()
    narrow = EngineWish("llama", "f32", llama=LlamaOptions(kv_type="q8_0"))
    assert "--kv-type q8_0 needs heads" in refused(folder, LoadWish(engine=narrow)).line()
    error = refused(folder, wish("llama", context_length=513))
    assert error.exit_code == ExitCode.USAGE and "512" in error.line()
    monkeypatch.setattr(module, "is_installed", lambda: False)
    error = refused(folder, wish("llama"))
    assert error.exit_code == ExitCode.USAGE and "pip install llama-cpp-python" in error.line()


def test_contexts_shorter_than_the_number_of_conversations(made: Path) -> None:
    from gpt4video_cli.language.engine import GenerationStats, SamplingOptions, TextSegment

    engine = open_model(made, wish("llama:f32", context_length=3)).engine
    stats = GenerationStats()
    ids = list(engine.generate([TextSegment("a")], SamplingOptions(), cache=engine.new_cache(), stats=stats))
    assert len(ids) + stats.prompt_tokens <= 3


def test_adapters_by_name_and_path(folder: Path, tmp_path: Path) -> None:
    from gpt4video_cli.cli.engine_options import adapter_lines, change_adapters
    from gpt4video_cli.language.adapters import AdapterWish

    shutil.copytree(folder / "adapter", folder / "adapters" / "mild")
    shutil.copytree(folder / "adapter", tmp_path / "elsewhere")
    model = open_model(folder, wish("llama:f32"))
    assert [str(a) for a in model.engine.adapters] == ["adapter"]
    assert adapter_lines(model)[:2] == ["adapter: in force, scale 1", "mild: off"]
    change_adapters(model, "mild:0.5")
    assert [str(a) for a in model.adapters] == ["adapter", "mild:0.5"]
    change_adapters(model, "adapter:0")
    assert [str(a) for a in model.adapters] == ["mild:0.5"]
    change_adapters(model, str(tmp_path / "elsewhere"))
    assert len(model.adapters) == 2
    change_adapters(model, "off")
    assert model.adapters == () and adapter_lines(model)[0] == "adapter: off"
    with pytest.raises(WeightsError, match="no adapter 'mould'") as error:
        change_adapters(model, "mould")
    assert "adapter, mild" in error.value.line()
    torch_model = open_model(folder, LoadWish("cpu", engine=EngineWish("torch", adapters=(AdapterWish("mild", 0.5),))))
    assert [str(a) for a in torch_model.engine.adapters] == ["mild:0.5"]
    change_adapters(model, "mild")
    made = model.adapters[0].path
    assert made.suffix == ".gguf"
    with pytest.raises(UsageError, match="PyTorch reads PEFT folders"):
        torch_model.use_adapters([AdapterWish(str(made))])


def test_neither_torch_nor_transformers_is_imported_for_llama_cpp(made: Path) -> None:
    """And a program that ends while its model is being loaded by another thread ends with its own exit code."""
    code = (
        "import sys, threading\n"
        "import numpy as np\n"
        "from gpt4video_cli.language.engine import *\n"
        "from gpt4video_cli.language.engine_wish import EngineWish\n"
        "from gpt4video_cli.model.checkpoint import open_model\n"
        "from gpt4video_cli.model.placement import LoadWish\n"
        f"open_once = lambda: open_model({str(made)!r}, LoadWish('cpu', engine=EngineWish('llama', adapters=())))\n"
        "engine = open_once().engine\n"
        "prompt = [EmbeddingSegment('k', np.ones((4, 64), np.float32)), TextSegment('What moves?')]\n"
        "stats = GenerationStats()\n"
        "list(engine.generate(prompt, SamplingOptions(max_tokens=4), cache=engine.new_cache(), stats=stats))\n"
        "assert stats.new_tokens\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules], flush=True)\n"
        "open_once().warm()\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (3, "[]\n", "")
