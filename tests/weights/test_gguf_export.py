"""Language models as GGUF: llama.cpp computes from the file what PyTorch computes from the folder."""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4video_cli.errors import Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.language.tokenizer import Tokenizer
from gpt4video_cli.model.assembly import write_weights
from gpt4video_cli.weights import convert_shards, convert_source, gguf_file, gguf_quantise
from gpt4video_cli.weights.gguf_export import KINDS, export_gguf
from gpt4video_cli.weights.llama_layout import llama_shapes
from tests.weights.gguf_reading import BUNDLE, SIZES, logits, write_llama

IDS = [1, 5, 17, 80, 33, 33, 9, 64, 2, 7, 90, 12] * 8
LANGUAGE = BUNDLE / "language"


def torch_logits(folder: Path, ids: list[int]) -> np.ndarray:
    from gpt4video_cli.language.llama_folder import load_llama

    with torch.no_grad():
        return load_llama(folder, device="cpu", dtype=torch.float32)(torch.tensor([ids])).logits[0].numpy()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("gguf") / "llama")


@pytest.fixture(scope="module")
def bundle_answer() -> tuple[list[int], np.ndarray]:
    text = "<s>###Human: What colour is the circle that moves to the left? ###AI: The circle is red and it moves up."
    ids = Tokenizer.load(LANGUAGE).encode(text, trusted=True)
    return ids, torch_logits(LANGUAGE, ids)


ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA_3 = ROPE | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"head_dim": 32, "tie_word_embeddings": True},
        {"num_key_value_heads": None, "rope_theta": 500000.0, "rms_norm_eps": 0.1},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": LLAMA_3},
        {"rope_parameters": ROPE | {"rope_type": "yarn"}},
        {"rope_parameters": ROPE | {"rope_type": "yarn", "beta_fast": 32, "attention_factor": 1.5}},
    ],
    ids=["grouped", "wide heads, tied", "all heads", "linear", "llama3", "yarn", "yarn with its factor"],
)
def test_logits_are_those_of_the_folder(tmp_path: Path, sizes: dict[str, Any]) -> None:
    folder = write_llama(tmp_path / "llama", **sizes)
    made = export_gguf(folder, tmp_path / "model.gguf", "f32")
    assert np.abs(logits(made, IDS) - torch_logits(folder, IDS)).max() < 1e-3


@pytest.mark.parametrize(
    ("kind", "largest"), [("f32", 1e-3), ("f16", 0.015), ("bf16", 0.1), ("q8_0", 0.4), ("q4_k_m", 2.5)]
)
def test_logits_of_the_bundle(
    tmp_path: Path, bundle_answer: tuple[list[int], np.ndarray], kind: str, largest: float
) -> None:
    ids, expected = bundle_answer
    difference = np.abs(logits(export_gguf(LANGUAGE, tmp_path / "model.gguf", kind), ids) - expected)
    assert difference.max() < largest, "of logits up to 17"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_tensors_are_those_of_the_shards(tmp_path: Path, llama: Path, kind: str) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    folder = shutil.copytree(llama, tmp_path / "shards")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{number % 3 + 1:05}-of-00003.safetensors" for number, name in enumerate(sorted(tensors))}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in places if places[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = {
        tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in GGUFReader(export_gguf(folder, tmp_path / "model.gguf", kind)).tensors
    }
    assert len(found) == len(tensors)
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    plain = {"token_embd": "model.embed_tokens", "output": "lm_head", "blk.1.ffn_down": "model.layers.1.mlp.down_proj"}
    for ours, theirs in plain.items():
        assert torch.equal(found[f"{ours}.weight"], tensors[f"{theirs}.weight"].to(dtype).float())
    norm = "model.layers.1.post_attention_layernorm.weight"
    assert torch.equal(found["blk.1.ffn_norm.weight"], tensors[norm]), "norms stay float32"
    for ours, theirs, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        weight = tensors[f"model.layers.0.self_attn.{theirs}.weight"].to(dtype).float()
        half = weight.shape[0] // heads // 2
        order = [head * 2 * half + n + side for head in range(heads) for n in range(half) for side in (0, half)]
        assert torch.equal(found[f"blk.0.{ours}.weight"], weight[order])


def test_metadata_says_what_it_is_and_where_it_comes_from(tmp_path: Path) -> None:
    import hashlib

    from gguf import GGUFReader

    from gpt4video_cli.weights.locate import find_model

    card, _ = find_model("bundle")
    fields = GGUFReader(export_gguf(LANGUAGE, tmp_path / "model.gguf", "f16", card=card)).fields
    said = {name: field.contents() for name, field in fields.items() if not name.startswith("tokenizer.ggml.t")}
    digest = hashlib.sha256((LANGUAGE / "model.safetensors").read_bytes()).hexdigest()
    expected = {
        "general.name": "bundle",
        "general.license": card.licence,
        "llama.embedding_length": 192,
        "llama.block_count": 5,
        "llama.attention.key_length": 32,
        "llama.context_length": 1024,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.pre": "gpt-2",
        "gpt4video.base.embedding_length": 192,
        "gpt4video.adapter_merged": False,
    }
    assert {name: said.get(name) for name in expected} == expected
    assert f"{digest}  model.safetensors" in said["gpt4video.source"].splitlines()


def test_a_quantised_file_is_smaller_and_says_what_did_not_fit(tmp_path: Path, llama: Path) -> None:
    from gguf import GGUFReader

    notes: list[str] = []
    done: list[tuple[int, int]] = []
    made = export_gguf(
        llama, tmp_path / "model.gguf", "Q4_K_M", tell=notes.append, progress=lambda *at: done.append(at)
    )
    types = [tensor.tensor_type.name for tensor in GGUFReader(made).tensors if len(tensor.shape) > 1]
    assert set(types) <= {"Q5_0", "Q8_0", "F16"}, "no row has 256 numbers"
    assert any(re.search(r"rows of a multiple of 256 numbers: 16 of 16 matrices became ", note) for note in notes)
    assert [*tmp_path.iterdir()] == [made], "the file that was quantised is gone"
    assert done == sorted(done) and done[-1][0] == done[-1][1]


def test_an_existing_file_is_replaced_only_when_told(tmp_path: Path, llama: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_text("mine")
    with pytest.raises(UsageError, match=r"model\.gguf: exists"):
        export_gguf(llama, target)
    assert target.read_text() == "mine"
    export_gguf(llama, target, force=True)
    assert target.read_bytes()[:4] == b"GGUF"
    with pytest.raises(UsageError, match="is a folder"):
        export_gguf(llama, tmp_path, force=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=["Ctrl-C", "full disk"])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_what_breaks_off_leaves_nothing(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, kind: str, error: BaseException
) -> None:
    def broken(*arguments: Any) -> Any:
        yield next(pieces(*arguments))
        raise error

    pieces = gguf_file.pieces
    monkeypatch.setattr(gguf_file, "pieces", broken)
    with pytest.raises((KeyboardInterrupt, Gpt4VideoError), match=r"No space left|^$"):
        export_gguf(llama, tmp_path / "model.gguf", kind)
    assert not [*tmp_path.iterdir()]


def test_ctrl_c_ends_the_quantising_process(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[Any] = []

    class Popen(gguf_quantise.subprocess.Popen):  # type: ignore[name-defined, misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            children.append(self)

    def stop(done: int, total: int) -> None:
        if children:
            raise KeyboardInterrupt

    monkeypatch.setattr(gguf_quantise.subprocess, "Popen", Popen)
    with pytest.raises(KeyboardInterrupt):
        export_gguf(llama, tmp_path / "model.gguf", "q8_0", progress=stop)
    assert children[0].returncode == -9
    assert not [*tmp_path.iterdir()]


def test_llama_cpp_s_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "plain.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(WeightsError, match="could not quantise to q8_0: bad GGUF version"):
        gguf_quantise.quantise(tmp_path / "plain.gguf", tmp_path / "small.gguf", "q8_0")


def _no_llama(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(SIZES | {"model_type": "qwen2"}))


def _config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(SIZES | values)) and None


def _shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    places = dict.fromkeys(llama_shapes(SIZES), "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _too_large(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 1e6
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_llama, "model type is 'qwen2', only 'llama'"),
        (_shard_missing, r"model-00001-of-00002\.safetensors is missing"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"no tokenizer\.json and no tokenizer\.model"),
        (_config(vocab_size=97), r"tensor .* has shape \[96, 64\], expected \[97, 64\]"),
        (_config(num_hidden_layers=3), r"tensor model\.layers\.2\..* is missing"),
        (_config(hidden_act="gelu"), "hidden_act is 'gelu'"),
        (_config(rope_scaling={"rope_type": "linear"}), "factor of the rotary embeddings is None"),
        (_config(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "rotary embeddings of type 'dynamic'"),
        (_config(rope_parameters=ROPE | {"rope_type": "yarn", "beta_slow": 2}), "rotary embeddings with beta_slow 2"),
        (_too_large, "tensor lm_head.weight has numbers too large for float16; write bf16 or f32"),
    ],
)
def test_a_folder_that_cannot_be_exported(
    tmp_path: Path, llama: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(llama, tmp_path / "llama")
    spoil(folder)
    with pytest.raises(WeightsError) as error:
        export_gguf(folder, tmp_path / "out" / "model.gguf")
    assert re.search(message, error.value.line())
    assert not [*tmp_path.glob("out/*")]


def test_an_unknown_kind_names_those_like_it(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(UsageError) as error:
        export_gguf(llama, tmp_path / "model.gguf", "q4_km")
    assert "did you mean q4_k_m" in error.value.line()
    with pytest.raises(UsageError) as error:
        export_gguf(llama, tmp_path / "model.gguf", "zip")
    assert ", ".join(KINDS) in error.value.line()


def test_kinds_have_llama_cpp_s_numbers() -> None:
    import llama_cpp

    for kind, number in gguf_quantise.QUANTISED.items():
        assert getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}") == number


def test_without_llama_cpp_only_quantised_kinds_fail(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4video_cli.weights.gguf_export.is_installed", lambda: False)
    monkeypatch.setattr(gguf_quantise, "is_installed", lambda: False)
    with pytest.raises(UsageError, match="quantising needs llama-cpp-python"):
        export_gguf(llama, tmp_path / "model.gguf", "q8_0")
    assert export_gguf(llama, tmp_path / "model.gguf", "f16").is_file()


def test_a_disk_that_is_too_small_is_told_before(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("gpt4video_cli.weights.convert_staging.shutil.disk_usage", lambda place: usage)
    with pytest.raises(Gpt4VideoError, match=r"the disk has 0\.0 GB left"):
        export_gguf(llama, tmp_path / "model.gguf")
    assert not [*tmp_path.iterdir()]


def test_memory_does_not_grow_with_the_model(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_source, "MAPPED_AT_ONCE", 16 * 2**20)
    monkeypatch.setattr(convert_shards, "_PIECE", 2**20)
    sizes = {**SIZES, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 5}
    folder = write_llama(tmp_path / "llama", num_hidden_layers=1)
    (folder / "config.json").write_text(json.dumps(sizes))
    write_weights(folder / "model.safetensors", llama_shapes(sizes), {}, "BF16", None)
    export_gguf(llama, tmp_path / "first.gguf", "f32")  # what is imported and set up once
    peak, stop = [resident()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = export_gguf(folder, tmp_path / "model.gguf", "f32")
    finally:
        stop.set()
        watcher.join()
    assert made.stat().st_size > 300e6
    assert max(peak) - peak[0] < 110e6, f"{(max(peak) - peak[0]) / 1e6:.0f} MB"


def resident() -> int:
    """Bytes of this process's memory, pages of mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
