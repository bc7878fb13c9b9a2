"""The public mPLUG-Owl-video format: imported by the command and run, it must give what the reference gave.

``tests/data/mplug-owl-video-small`` was made by running the reference (X-PLUG/mPLUG-Owl) with random weights in
float32. Those weights amplify rounding (outputs of the abstractor reach 60, and the same formulas in float64 differ
from the reference's float32 by 0.003), so each stage is compared on the reference's own input, and the chain of all
stages in proportion to its largest value.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.abstractor import Abstractor, load_abstractor
from gpt4video_cli.model.visual_encoder import load_visual_encoder
from gpt4video_cli.weights.card import read_card
from gpt4video_cli.weights.convert import import_weights
from gpt4video_kernels.cross_attention import cross_attention_reference

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "data" / "mplug-owl-video-small"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, in small shards."""
    target = tmp_path_factory.mktemp("converted") / "owl"
    command = [sys.executable, "-m", "gpt4video_cli", "models", "import", str(SOURCE), "--format", "mplug-owl-video"]
    command += ["--output", str(target), "--shard-size", "0.0003"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert len(list((target / "language").glob("model-0000?-of-00003.safetensors"))) == 3
    return target


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(SOURCE / "expected.safetensors")


@pytest.fixture(scope="module")
def language(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    model, report = LlamaForCausalLM.from_pretrained(folder / "language", output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(language: Any, video: Tensor, ids: Tensor) -> Tensor:
    with torch.no_grad():
        words = language.get_input_embeddings()(ids)
        return language(inputs_embeds=torch.cat([video, words], dim=1)).logits


def test_vision(folder: Path, expected: dict[str, Tensor]) -> None:
    encoder = load_visual_encoder(folder / "vision", device="cpu")
    features = encoder(expected["pixel_values"].transpose(1, 2))  # ours is [B, T, 3, S, S]
    assert (features - expected["vision_last_hidden_state"]).abs().max() < 1e-4


def test_abstractor(folder: Path, expected: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    abstractor = load_abstractor(folder / "abstractor.safetensors", device="cpu")
    theirs = expected["abstractor_last_hidden_state"]
    fast = abstractor(expected["vision_last_hidden_state"])
    assert (fast - theirs).abs().max() < 1e-4 * theirs.abs().max()
    # In float64, and not by the plain formulas, which are in float32 whatever they are given.
    exact = load_abstractor(folder / "abstractor.safetensors", device="cpu").double()(
        expected["vision_last_hidden_state"].double()
    )
    # How near float32 comes is the processor's business: the plain formulas, which round as theirs do, differ from them
    # by nothing on one machine and by 5e-4 on another. But they are as near to the exact result as theirs are.
    monkeypatch.setattr("gpt4video_cli.model.abstractor.cross_attention", cross_attention_reference)
    monkeypatch.setattr(Abstractor, "feature_keys_values", Abstractor.feature_keys_values_reference)
    plain = abstractor(expected["vision_last_hidden_state"])
    their_error = (theirs - exact).abs().max()
    assert their_error < 1e-4 * theirs.abs().max()
    assert (plain - exact).abs().max() < 1.5 * their_error
    assert (plain - theirs).abs().max() < their_error


def test_logits(language: Any, expected: dict[str, Tensor]) -> None:
    ours = logits(language, expected["abstractor_last_hidden_state"], expected["input_ids"])
    assert (ours - expected["logits"]).abs().max() < 1e-4


def test_from_pixels_to_logits(folder: Path, language: Any, expected: dict[str, Tensor]) -> None:
    encoder = load_visual_encoder(folder / "vision", device="cpu")
    abstractor = load_abstractor(folder / "abstractor.safetensors", device="cpu")
    video = abstractor(encoder(expected["pixel_values"].transpose(1, 2)))
    theirs = expected["abstractor_last_hidden_state"]
    assert (video - theirs).abs().max() < 1e-4 * theirs.abs().max()
    ours = logits(language, video, expected["input_ids"])
    # Softmax and norms of the language model amplify the abstractor's rounding a little further.
    assert (ours - expected["logits"]).abs().max() < 5e-4 * expected["logits"].abs().max()
    assert torch.equal(ours.argmax(-1), expected["logits"].argmax(-1))


def test_card_says_how_to_use_it(folder: Path) -> None:
    card = read_card(folder / "card.toml")
    assert (card.template, card.final_norm, card.frames) == ("mplug-owl", True, 4)


def test_tokenizer_files_come_along(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(SOURCE, source)
    (source / "tokenizer.model").write_bytes(b"vocabulary")
    converted = import_weights(source, "mplug-owl-video", tmp_path / "owl")
    assert (converted / "language" / "tokenizer.model").read_bytes() == b"vocabulary"


@pytest.mark.parametrize(
    "name",
    [
        "vision_model.encoder.layers.1.temporal.conv.bias",
        "vision_model.encoder.layers.0.self_attn.query_key_value.weight",
        "abstractor.vit_eos",
        "query_tokens",
        "language_model.model.layers.1.mlp.up_proj.weight",
    ],
)
def test_every_tensor_is_accounted_for(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copyfile(SOURCE / "config.json", source / "config.json")
    tensors = torch.load(SOURCE / "pytorch_model.bin", weights_only=True)
    target = tmp_path / "owl"

    def refused(changed: dict[str, Tensor], said: str) -> None:
        torch.save(changed, source / "pytorch_model.bin")
        with pytest.raises(WeightsError, match=said):
            import_weights(source, "mplug-owl-video", target)
        assert sorted(tmp_path.iterdir()) == [source]  # and nothing beside it

    refused({k: v for k, v in tensors.items() if k != name}, rf"tensor {name} is missing$")
    refused({**tensors, f"{name}.more": tensors[name]}, rf"tensor {name}\.more is unexpected$")
    shape = list(tensors[name].shape)
    refused({**tensors, name: torch.ones(3, 5)}, re.escape(f"tensor {name} has shape [3, 5], expected {shape}"))
    both = {k: v for k, v in tensors.items() if k not in (name, "abstractor.visual_fc.bias")}
    refused(both, r"is missing \(and 1 more such problems\)")
    refused({**tensors, "somewhere.else": torch.ones(3)}, r"somewhere\.else is unexpected")


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    shutil.copyfile(SOURCE / "config.json", tmp_path / "config.json")
    torch.save({"query_tokens": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: is not plain weights: it holds exec,"):
        import_weights(tmp_path, "mplug-owl-video", tmp_path / "owl")
    assert not (tmp_path / "ran").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin"):
        import_weights(tmp_path, "mplug-owl-video", tmp_path / "owl")
    shutil.copyfile(SOURCE / "pytorch_model.bin", tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"config\.json"):
        import_weights(tmp_path, "mplug-owl-video", tmp_path / "owl")
