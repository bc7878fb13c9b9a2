"""Laws of the abstractor: the paper's equations written out, padding, order of frames, strict files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, load_abstractor, save_abstractor
from gpt4video_kernels.cross_attention import cross_attention_reference

SIZES = {"width": 32, "output_width": 24, "queries": 5, "layers": 2, "heads": 4, "mlp_width": 48}
LAYOUTS = {
    "paper": AbstractorConfig.paper(**SIZES),
    "trained_here": AbstractorConfig.trained_here(**SIZES, frame_positions=6),
    "mplug_owl_video": AbstractorConfig.mplug_owl_video(**SIZES),
    "everything": AbstractorConfig.mplug_owl_video(**SIZES, frame_positions=3, shared_projection=True),
}


def make(config: AbstractorConfig) -> Abstractor:
    torch.manual_seed(0)
    abstractor = Abstractor(config).eval().requires_grad_(False)
    for parameter in abstractor.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return abstractor


def clip(batch: int = 1, frames: int = 4) -> Tensor:
    return torch.randn(batch, frames, 7, 32, generator=torch.Generator().manual_seed(1))


def norm(module: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, module.eps)


def test_paper_layout_is_equations_2_to_4() -> None:
    """Written out for one clip, with the concatenation [F_v; Q] of the paper and the plain formula (1)."""
    abstractor = make(LAYOUTS["paper"])
    features = clip()

    def cross_attention_encoder(queries: Tensor) -> Tensor:
        x = queries
        for layer in abstractor.layers:
            q = norm(layer.norm_queries, x)
            both = torch.cat([norm(layer.norm_features, features[0].flatten(0, 1)), q])
            heads = []
            for part in torch.arange(32).split(8):
                scores = layer.query(q)[:, part] @ layer.key(both)[:, part].T / 8**0.5
                heads.append(scores.softmax(-1) @ layer.value(both)[:, part])
            x = q + layer.out(torch.cat(heads, dim=-1))
            y = norm(layer.norm_mlp, x)
            x = x + layer.down(norm(layer.inner_norm, F.silu(layer.gate(y)) * layer.up(y)))
        return x

    f_s = cross_attention_encoder(abstractor.spatial_queries)
    f_t = cross_attention_encoder(abstractor.temporal_queries)
    expected = (f_s + f_t) @ abstractor.projection.weight.T + abstractor.projection.bias
    torch.testing.assert_close(abstractor(features)[0], expected, atol=1e-4, rtol=1e-4)


def test_joint_queries_see_each_other_and_separate_ones_do_not() -> None:
    for name, coupled in (("paper", False), ("mplug_owl_video", True)):
        abstractor = make(replace(LAYOUTS[name], shared_projection=False))
        abstractor.temporal_projection.weight.zero_()
        abstractor.temporal_projection.bias.zero_()
        before = abstractor(clip())
        abstractor.temporal_queries.add_(torch.randn(5, 32))
        assert torch.equal(abstractor(clip()), before) != coupled, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_count(layout: str) -> None:
    config = LAYOUTS[layout]
    out = make(config)(clip(batch=2))
    assert out.shape == (2, config.tokens, 24)
    assert config.tokens == 5 + config.end_token
    if config.end_token:
        assert torch.equal(out[0, -1], make(config).end_token)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded_batch_equals_each_clip_alone(layout: str) -> None:
    abstractor = make(LAYOUTS[layout])
    features = clip(batch=3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    padded = abstractor(features, mask)
    for row, frames in enumerate((4, 2, 1)):
        alone = abstractor(features[row : row + 1, :frames])[0]
        torch.testing.assert_close(padded[row], alone, atol=2e-5, rtol=2e-5)
    assert not torch.allclose(abstractor(features)[1], padded[1], atol=1e-3)  # the mask does something


def test_one_frame_skips_temporal_queries_only_as_in_the_reference() -> None:
    for name, skipped in (("mplug_owl_video", True), ("paper", False)):
        abstractor = make(LAYOUTS[name])
        one, several = abstractor(clip(frames=1)), abstractor(clip())
        abstractor.temporal_queries.add_(1)
        assert torch.equal(abstractor(clip(frames=1)), one) == skipped, name
        assert not torch.equal(abstractor(clip()), several), name


def test_order_of_frames_counts_only_with_frame_positions() -> None:
    for name, ordered in (("paper", False), ("trained_here", True)):
        abstractor = make(LAYOUTS[name])
        difference = (abstractor(clip()) - abstractor(clip().flip(1))).abs().max()
        assert (difference > 1e-3) == ordered, name


def test_frame_positions_spread_over_the_clip() -> None:
    abstractor = make(LAYOUTS["trained_here"])
    table = abstractor.frame_positions
    added = abstractor.with_frame_positions(torch.zeros(1, 6, 7, 32), None)
    torch.testing.assert_close(added[0, :, 3], table)  # as many frames as positions: one each
    added = abstractor.with_frame_positions(torch.zeros(1, 3, 7, 32), None)
    torch.testing.assert_close(added[0, :, 0], table.unflatten(0, (3, 2)).mean(dim=1))  # halfway between two
    many = abstractor.with_frame_positions(torch.zeros(1, 50, 7, 32), None)[0, :, 0]
    torch.testing.assert_close(many[0], table[0])
    torch.testing.assert_close(many[-1], table[-1])


def test_precomputed_keys_and_values_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    abstractor = make(LAYOUTS["paper"])
    features = clip()
    pieces = list(abstractor.feature_keys_values(features.flatten(1, 2)))
    spatial, temporal = abstractor.attend(pieces, (1, 4, 7), None)
    assert torch.equal(abstractor.project(spatial, temporal, torch.tensor([4])), abstractor(features))
    fast = abstractor(features)
    monkeypatch.setattr("gpt4video_cli.model.abstractor.cross_attention", cross_attention_reference)
    torch.testing.assert_close(abstractor(features), fast, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folded_weights_give_the_same_numbers(layout: str) -> None:
    """Norm's scale and shift folded into all layers' weights, against norm and projection of each layer."""
    abstractor = make(LAYOUTS[layout])
    features = clip(batch=2).flatten(1, 2)
    together = abstractor.feature_keys_values(features)
    for fast, plain in zip(together, abstractor.feature_keys_values_reference(features), strict=True):
        for a, b in zip(fast, plain, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["paper", "everything"])
def test_training_with_folded_weights_gives_the_same_gradients(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    abstractor = make(LAYOUTS[layout]).double().requires_grad_(True)
    features = clip(batch=2).double().requires_grad_(True)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    wanted = [features, *abstractor.parameters()]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(abstractor(features, mask).square().sum(), wanted)

    fast = gradients()
    monkeypatch.setattr(Abstractor, "feature_keys_values", Abstractor.feature_keys_values_reference)
    for found, expected in zip(fast, gradients(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def test_folded_weights_never_outlive_the_weights() -> None:
    """Whatever way the weights change, the answer is that of an abstractor which never saw the old ones."""
    abstractor, other = make(LAYOUTS["paper"]), make(LAYOUTS["paper"])
    other.layers[1].key.weight.mul_(-1)
    other.layers[0].norm_features.bias.add_(1)
    other_weights = {name: value.clone() for name, value in other.state_dict().items()}
    first, second = abstractor(clip()), other(clip())
    assert not torch.allclose(first, second, atol=1e-2)

    abstractor.load_state_dict(other_weights)
    assert torch.equal(abstractor(clip()), second)
    abstractor.load_state_dict(make(LAYOUTS["paper"]).state_dict(), assign=True)
    assert torch.equal(abstractor(clip()), first)
    abstractor.layers[1].key.weight = torch.nn.Parameter(other_weights["layers.1.key.weight"], requires_grad=False)
    abstractor.layers[0].norm_features.bias.data = other_weights["layers.0.norm_features.bias"]
    assert torch.equal(abstractor(clip()), second)

    half = abstractor.half()(clip())
    assert half.dtype == torch.float16
    again = abstractor.float()(clip())  # from the rounded weights, not from those of before
    assert not torch.equal(again, second)
    fresh = make(LAYOUTS["paper"])
    fresh.load_state_dict(abstractor.state_dict())
    assert torch.equal(again, fresh(clip()))

    abstractor.requires_grad_(True)
    torch.optim.SGD(abstractor.parameters(), lr=0.1).step(lambda: _loss(abstractor))  # trained, and frozen again
    abstractor.requires_grad_(False)
    fresh.load_state_dict(abstractor.state_dict())
    assert not torch.equal(abstractor(clip()), again)
    assert torch.equal(abstractor(clip()), fresh(clip()))


def _loss(abstractor: Abstractor) -> float:
    loss = abstractor(clip()).square().mean()
    loss.backward()
    return loss.item()


def test_inference_mode_may_come_at_any_time() -> None:
    abstractor = make(LAYOUTS["paper"])
    with torch.inference_mode():
        first = abstractor(clip())
    features = clip().requires_grad_(True)
    abstractor(features).sum().backward()  # with the folded weights that were made above
    assert features.grad is not None and bool(features.grad.any())
    with torch.inference_mode():
        inside = make(LAYOUTS["paper"])
        torch.testing.assert_close(inside(clip()), first)
        inside.layers[1].key.weight.mul_(-1)
        assert not torch.allclose(inside(clip()), first, atol=1e-2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded_is_the_same(layout: str, tmp_path: Path) -> None:
    abstractor = make(LAYOUTS[layout])
    path = tmp_path / "abstractor.safetensors"
    save_abstractor(abstractor, path)
    again = load_abstractor(path, device="cpu")
    assert again.config == abstractor.config
    assert torch.equal(again(clip()), abstractor(clip()))
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["gpt4video.abstractor"])
    assert header == {"format_version": 1, "config": asdict(abstractor.config)}


def test_files_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "abstractor.safetensors"
    save_abstractor(make(LAYOUTS["paper"]), path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    (name, header), *rest = metadata.items()
    assert not rest

    def refused(said: str) -> None:
        with pytest.raises(WeightsError) as error:
            load_abstractor(path, device="cpu")
        assert said in str(error.value) and str(path) in str(error.value)

    save_file({k: v for k, v in tensors.items() if k != "projection.bias"}, path, metadata)
    refused("projection.bias is missing")
    save_file({**tensors, "end_token": torch.ones(24)}, path, metadata)
    refused("end_token is unexpected")
    save_file({**tensors, "spatial_queries": torch.ones(6, 32)}, path, metadata)
    refused("spatial_queries has shape [6, 32], expected [5, 32]")
    save_file(tensors, path, {name: header.replace('"format_version": 1', '"format_version": 99')})
    refused("format 99")
    save_file(tensors, path, {name: header.replace('"heads"', '"hats"')})
    refused("hats, heads")
    save_file(tensors, path, {})
    refused("not an abstractor file")
    path.unlink()
    refused("file is missing")


def test_impossible_sizes_are_refused() -> None:
    for wrong in ({"heads": 5}, {"queries": 0}, {"frame_positions": -1}):
        with pytest.raises(WeightsError, match=next(iter(wrong))):
            replace(LAYOUTS["paper"], **wrong)
