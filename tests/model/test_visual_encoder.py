"""Our Vision Transformer against transformers' CLIPVisionModel, in both directions, and what must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.visual_encoder import (
    VisualEncoder,
    VisualEncoderConfig,
    load_visual_encoder,
    save_visual_encoder,
)

SMALL = VisualEncoderConfig(width=48, layers=3, heads=4, mlp_width=100, patch_size=14, image_size=56)


def shake(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a value of its own, norms and biases too, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = VisualEncoder(SMALL)
    shake(encoder)
    save_visual_encoder(encoder, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": 14, "image_size": 56},
        {"hidden_size": 30, "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 16, "image_size": 72},
        {"hidden_size": 32, "num_attention_heads": 8, "num_hidden_layers": 1, "patch_size": 8, "hidden_act": "gelu"},
    ],
)
def test_equals_transformers(tmp_path: Path, sizes: dict[str, int]) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(1)
    config = CLIPVisionConfig(**{"intermediate_size": 96, "image_size": 32, "layer_norm_eps": 1e-3, **sizes})
    theirs = CLIPVisionModel(config).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    pixels = torch.randn(3, 3, config.image_size, config.image_size)
    norm = next(module for name, module in theirs.named_modules() if name.endswith("post_layernorm"))
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state
        plain = load_visual_encoder(tmp_path, device="cpu")(pixels)
        normed = load_visual_encoder(tmp_path, device="cpu", final_norm=True)(pixels)
        assert expected.abs().max() > 0.5
        assert (plain - expected).abs().max() < 1e-5
        assert (normed - norm(expected)).abs().max() < 1e-5
        assert (normed - plain).abs().max() > 0.1


def test_transformers_opens_what_we_save(folder: Path) -> None:
    from transformers import CLIPVisionModel

    theirs, report = CLIPVisionModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        ours = load_visual_encoder(folder, device="cpu")(pixels)
        assert (theirs.eval()(pixels).last_hidden_state - ours).abs().max() < 1e-5


def test_frames_of_a_clip_are_encoded_one_by_one(folder: Path) -> None:
    encoder = load_visual_encoder(folder, device="cpu")
    pixels = torch.randn(2, 3, 3, 56, 56)
    features = encoder(pixels)
    assert features.shape == (2, 3, 17, 48)
    torch.testing.assert_close(features[1, 2], encoder(pixels[1, 2:])[0])


def test_local_temporal_sees_neighbours_but_not_for_one_frame() -> None:
    torch.manual_seed(0)
    config = VisualEncoderConfig(
        width=16, layers=2, heads=2, mlp_width=32, patch_size=8, image_size=16, local_temporal=True
    )
    encoder = VisualEncoder(config).eval()
    shake(encoder)
    clip = torch.randn(1, 5, 3, 16, 16)
    changed = clip.clone()
    changed[:, 4] += 1
    with torch.no_grad():
        difference = (encoder(clip) - encoder(changed)).abs().amax(dim=(0, 2, 3))
        # Two layers of three taps: a change in frame 4 reaches frame 2, not frame 1.
        assert (difference[2:] > 1e-4).all() and (difference[:2] == 0).all()
        one = encoder(clip[:, :1])
        encoder.encoder["layers"][0].temporal.taps.add_(1)
        torch.testing.assert_close(encoder(clip[:, :1]), one, atol=0, rtol=0)
    with pytest.raises(ValueError, match="needs clips"):
        encoder(clip[0])


def test_loads_the_vision_half_of_a_whole_clip(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.final_layer_norm.weight"] = torch.ones(3)
    tensors["logit_scale"] = torch.ones(())
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(tensors, whole / "model.safetensors")
    config = {"model_type": "clip", "vision_config": json.loads((folder / "config.json").read_text())}
    (whole / "config.json").write_text(json.dumps(config))
    pixels = torch.randn(1, 3, 56, 56)
    ours = load_visual_encoder(whole, device="cpu")(pixels)
    torch.testing.assert_close(ours, load_visual_encoder(folder, device="cpu")(pixels))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("vision_model.post_layernorm.bias"), "post_layernorm.bias is missing"),
        (lambda t: t.update({"vision_model.surprise": torch.ones(1)}), "surprise is unexpected"),
        (
            lambda t: t.update({"vision_model.pre_layrnorm.bias": torch.ones(7)}),
            "pre_layrnorm.bias has shape [7], expected [48]",
        ),
    ],
)
def test_wrong_tensors_are_named(folder: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        load_visual_encoder(folder, device="cpu")
    assert said in str(error.value)
    assert str(folder / "model.safetensors") in str(error.value)


def test_broken_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_visual_encoder(folder, device="cpu")
    (folder / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_visual_encoder(folder, device="cpu")
    with pytest.raises(WeightsError, match="file is missing"):
        load_visual_encoder(folder / "nowhere", device="cpu")


def test_dtype_is_chosen(folder: Path) -> None:
    assert load_visual_encoder(folder, device="cpu").post_layernorm.weight.dtype == torch.float32
    half = load_visual_encoder(folder, device="cpu", dtype="bf16")
    pixels = torch.randn(1, 3, 56, 56)
    features = half(pixels)
    assert features.dtype == torch.bfloat16
    exact = load_visual_encoder(folder, device="cpu")(pixels)
    assert (features - exact).abs().max() < 0.05 * exact.abs().max()
