"""What loading really takes equals the plan, nothing is held twice, and what cannot fit is refused before loading."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.engine import EmbeddingSegment, GenerationStats, SamplingOptions, TextSegment
from gpt4video_cli.language.llama_folder import load_llama
from gpt4video_cli.language.torch_engine import CHUNK, TorchEngine
from gpt4video_cli.model.assembly import write_assembly
from gpt4video_cli.model.checkpoint import FRAMES_AT_ONCE, Model, open_model
from gpt4video_cli.model.free_memory import main_memory
from gpt4video_cli.model.model_sizes import EYES_AT_ONCE, POSITIONS_AT_ONCE, measure_model
from gpt4video_cli.model.placement import LoadWish, plan_model
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.model.strict_load import read_safetensors, write_safetensors
from gpt4video_cli.model.visual_encoder import load_visual_encoder
from gpt4video_cli.training.memory import LiveBytes
from gpt4video_cli.weights.card import read_card


def held(module: torch.nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [False, True])
def test_every_part_takes_what_the_plan_says(tmp_path: Path, dtype: str, adapter: bool) -> None:
    model = open_model(write_random_model(tmp_path / "m", adapter=adapter), LoadWish("cpu", dtype))
    assert isinstance(model.engine, TorchEngine) and model.placement is not None
    planned = {part.name: part.bytes for part in model.placement.sizes.parts}
    assert held(model.visual_encoder) == planned["vision"]
    assert held(model.abstractor) == planned["abstractor"]
    kept_apart = planned["adapter"] if adapter and dtype == "bfloat16" else 0  # in 32 bits it is merged
    assert held(model.engine.model) == planned["language"] + kept_apart


def test_the_cache_and_the_working_memory_stay_below_the_plan(tmp_path: Path) -> None:
    """What is live is counted tensor by tensor, while the context is filled to its end, and while a clip is encoded."""
    folder = write_random_model(tmp_path / "m", width=256, context_length=2048)
    model = open_model(folder, LoadWish("cpu"))
    assert model.placement is not None and isinstance(model.engine, TorchEngine)
    sizes, engine = model.placement.sizes, model.engine
    cache = engine.new_cache()
    segments = [EmbeddingSegment("k", torch.randn(2000, 256))]
    with torch.inference_mode(False), LiveBytes() as live:
        stats, options = GenerationStats(), SamplingOptions(max_tokens=40, temperature=1.0)
        list(engine.generate(segments, options, cache=cache, stats=stats))
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.past.layers)
    assert kept == sizes.cache * len(cache.units) // sizes.context
    assert kept < live.peak
    assert live.peak <= sizes.cache + sizes.working + segments[0].embeddings.nbytes
    assert live.peak > 0.5 * (sizes.cache + sizes.working), "the plan does not ask for twice what is needed"
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    many = measure_model(replace(model.card, frames=16), folder, sizes.precision)
    with LiveBytes() as live:
        model.embed(frames)
    assert live.peak <= many.working


def test_the_formulas_know_how_much_is_done_at_once() -> None:
    assert (EYES_AT_ONCE, POSITIONS_AT_ONCE) == (FRAMES_AT_ONCE, CHUNK)


def test_a_shorter_context_is_kept(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "m", context_length=512)
    short = open_model(folder, LoadWish("cpu", context_length=100))
    assert short.engine.context_length == 100 and short.placement is not None
    assert open_model(folder, LoadWish("cpu")).engine.context_length == 512
    with pytest.raises(UsageError, match="between 2 and the model's 512"):
        open_model(folder, LoadWish("cpu", context_length=513))


def answer(model: Model) -> torch.Tensor:
    assert isinstance(model.engine, TorchEngine)
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 60, 3), dtype=np.uint8)
    return model.engine.logits([TextSegment("<s>", trusted=True), EmbeddingSegment("k", model.embed(frames))])


def shard(folder: Path) -> None:
    """Cut ``model.safetensors`` into three."""
    tensors, metadata = read_safetensors(folder / "model.safetensors")
    names = {name: f"model-{number % 3}.safetensors" for number, name in enumerate(tensors)}
    for file in sorted(set(names.values())):
        write_safetensors(folder / file, {n: t.clone() for n, t in tensors.items() if names[n] == file}, metadata)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def test_sharded_folders_load_and_are_planned_alike(tmp_path: Path) -> None:
    whole, cut = write_random_model(tmp_path / "a"), write_random_model(tmp_path / "b")
    shard(cut / "vision")
    shard(cut / "language")
    ours, theirs = open_model(cut, LoadWish("cpu")), open_model(whole, LoadWish("cpu"))
    assert ours.placement is not None and theirs.placement is not None
    assert ours.placement.rows == theirs.placement.rows
    # Tensors begin elsewhere in their files, and sums of unaligned numbers round differently.
    torch.testing.assert_close(answer(ours), answer(theirs), rtol=1e-4, atol=1e-4)
    (cut / "vision" / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-1\.safetensors: file is missing"):
        open_model(cut, LoadWish("cpu"))
    with pytest.raises(WeightsError, match=r"model-1\.safetensors: file is missing"):
        load_visual_encoder(cut / "vision", device="cpu")


def test_a_device_map_changes_no_answer(tiny_language_folder: Path) -> None:
    names = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
    ids = torch.tensor([[1, 5, 9, 11]])
    plain = load_llama(tiny_language_folder, device="cpu", dtype=torch.float32)
    mapped = load_llama(tiny_language_folder, device="cpu", dtype=torch.float32, device_map=dict.fromkeys(names, "cpu"))
    with torch.no_grad():
        torch.testing.assert_close(mapped(ids).logits, plain(ids).logits, rtol=0, atol=0)
    with pytest.raises(UsageError, match="not in both"):
        load_llama(tiny_language_folder, device="cpu", dtype=torch.float32, four_bit=True, eight_bit=True)


def test_what_cannot_fit_is_refused_before_loading(tmp_path: Path) -> None:
    """A hollow model with twice as many layers as this machine has memory for."""
    layers = 2 * main_memory().total // 404_766_720 + 1
    folder = write_assembly(tmp_path / "huge", layers=layers, hollow=True)
    with pytest.raises(WeightsError, match="does not fit: it needs") as caught:
        Assistant.open(str(folder), device="cpu", dtype="bfloat16")
    assert "cpu has" in str(caught.value) and caught.value.hint


def test_a_file_that_is_cut_short_is_told_before_loading(tmp_path: Path) -> None:
    folder = write_random_model(tmp_path / "m")
    weights = folder / "language" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="is cut short"):
        plan_model(read_card(folder / "card.toml"), folder, LoadWish("cpu"))
    weights.write_bytes(b"{}")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        plan_model(read_card(folder / "card.toml"), folder, LoadWish("cpu"))


LOAD = """
import json, sys, threading, time
import torch
import transformers.models.llama.modeling_llama, transformers.modeling_utils
from gpt4video_cli.language.torch_engine import CHUNK, TorchEngine
from gpt4video_cli.model.checkpoint import open_model
from gpt4video_cli.model.placement import LoadWish

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

model = open_model(sys.argv[1], LoadWish("cpu", "bfloat16"))
peak, end = [0], threading.Event()
def watch():
    while not end.wait(0.002):
        peak[0] = max(peak[0], status("RssAnon"))
before, all_before = status("RssAnon"), status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
thread = threading.Thread(target=watch); thread.start()
for part in (model.visual_encoder, model.abstractor, model.engine.model):
    for parameter in part.parameters():
        parameter.sum()  # what is only mapped is read now
end.set(); thread.join()
planned = model.placement.sizes.weights
print(json.dumps([(peak[0] - before) / planned, (status("VmHWM") - all_before) / planned, planned]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(("stored", "most_own", "most"), [("BF16", 0.1, 1.1), ("F32", 1.1, 3.1)])
def test_there_is_no_second_copy_in_memory(tmp_path: Path, stored: str, most_own: float, most: float) -> None:
    """0.87 GB of weights (hollow files read as zeros): memory of its own, and with the mapped files, which the system
    takes back when memory is short. As stored: nothing but the files. From 32 bits: one copy in 16, and the files."""
    small = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 16}
    folder = write_assembly(
        tmp_path / "m", layers=4, stored=stored, hollow=True, language={**small, "vocab_size": 1000}
    )
    done = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=True)
    own, everything, planned = json.loads(done.stdout.splitlines()[-1])
    print(f"{stored}: {planned / 1e9:.2f} GB planned, {own:.3f} of it own memory, {everything:.3f} with mapped files")
    assert planned > 0.8e9
    assert own < most_own and everything < most
    assert everything > 0.95, "it was read"


@pytest.mark.parametrize("dtype", ["8bit", "4bit"])
def test_narrow_weights_take_what_the_plan_says(tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("bitsandbytes")
    folder = write_random_model(tmp_path / "m", width=256, adapter=True)
    model, exact = open_model(folder, LoadWish("cpu", dtype)), open_model(folder, LoadWish("cpu", "float32"))
    assert isinstance(model.engine, TorchEngine) and model.placement is not None
    assert any("lora" in name for name, _ in model.engine.model.named_parameters()), "never merged into narrow weights"
    taken = 0
    for name, parameter in model.engine.model.named_parameters():
        if "lora" not in name:
            taken += parameter.nbytes
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                taken += sum(t.nbytes for t in state.as_dict().values() if isinstance(t, torch.Tensor))
            if (scales := getattr(parameter, "SCB", None)) is not None:
                taken += scales.nbytes
    planned = next(part.bytes for part in model.placement.sizes.parts if part.name == "language")
    assert taken == pytest.approx(planned, rel=0.02)
    near = torch.nn.functional.cosine_similarity(answer(model), answer(exact), dim=0)
    assert near > 0.9
