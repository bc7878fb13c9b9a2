"""The visual encoder in a type of its own: near the exact one, planned, refused where it cannot be, never mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gpt4video_cli.errors import UsageError
from gpt4video_cli.model.checkpoint import Model, open_model
from gpt4video_cli.model.int8_linear import Int8Linear, quantise_linear_layers
from gpt4video_cli.model.model_sizes import Precision, measure_model
from gpt4video_cli.model.placement import LoadWish
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.weights.card import read_card

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("vision") / "model")


def opened(folder: Path, vision_dtype: str) -> Model:
    return open_model(folder, LoadWish("cpu", vision_dtype=vision_dtype))


@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_the_product_of_rounded_weights_and_inputs(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(48, 33, bias=bias).double()
    x = torch.randn(2, 70, 48)  # tokens in more than one piece
    x[0, 3] *= 1000  # a token of large numbers changes no other
    x[1, 2] = 0

    def rounded(values: torch.Tensor) -> torch.Tensor:
        scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        return torch.round(values / scale) * scale

    with torch.no_grad():
        found = Int8Linear(linear)(x)
        expected = rounded(x.double()) @ rounded(linear.weight).T
        expected = expected + (linear.bias if bias else 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(found[1], expected[1].float(), rtol=1e-5, atol=1e-5)


def test_every_linear_layer_is_replaced() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ModuleDict({"inner": nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))}))
    quantise_linear_layers(module)
    kinds = [type(part) for part in module.modules()]
    assert nn.Linear not in kinds and kinds.count(Int8Linear) == 2 and nn.LayerNorm in kinds


@pytest.mark.parametrize(("vision_dtype", "error"), [("bfloat16", 0.02), ("int8", 0.05)])
def test_features_are_near_the_exact_ones_and_the_abstractor_keeps_its_type(
    folder: Path, vision_dtype: str, error: float
) -> None:
    exact, model = opened(folder, "auto"), opened(folder, vision_dtype)
    features, expected = model.encode(FRAMES), exact.encode(FRAMES)
    assert features.dtype == expected.dtype == torch.float32  # what the abstractor computes in
    difference = float((features - expected).norm() / expected.norm())
    assert 1e-4 < difference < error  # it is another type, and no worse than that type must be
    together = model.embed_all([FRAMES, FRAMES[::-1].copy()])
    np.testing.assert_allclose(together[0], model.condense(features), rtol=1e-4, atol=1e-4)


def test_what_was_kept_of_one_type_is_never_given_for_another(folder: Path) -> None:
    digests = {kind: opened(folder, kind).encoder_digest for kind in ("auto", "float32", "bfloat16", "int8")}
    assert digests["auto"] == digests["float32"]
    assert len(set(digests.values())) == 3


def test_the_plan_counts_the_bytes_that_are_held(folder: Path) -> None:
    card = read_card(folder / "card.toml")
    for kind in ("float32", "bfloat16", "int8"):
        sizes = measure_model(card, folder, Precision("float32", "float32", kind))
        (planned,) = (part for part in sizes.parts if part.name == "vision")
        encoder = opened(folder, kind).visual_encoder
        held = [*encoder.parameters(), *encoder.buffers()]
        assert (planned.dtype, planned.bytes) == (kind, sum(t.numel() * t.element_size() for t in held))


def test_types_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="--vision-dtype is '4bit'; it must be one of auto, float32"):
        LoadWish(vision_dtype="4bit")
    with pytest.raises(UsageError, match="--vision-dtype int8 is for the CPU, but the device is mps"):
        LoadWish("mps", vision_dtype="int8")
    with pytest.raises(UsageError, match="the device is cuda"):
        LoadWish(vision_dtype="int8").check_device("cuda")
    assert LoadWish(vision_dtype="bf16").vision_dtype == "bfloat16"
