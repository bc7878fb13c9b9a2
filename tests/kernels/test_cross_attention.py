"""Every way that runs on a CPU against the plain formula: odd sizes, groups, masks, dtypes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gpt4video_kernels import cross_attention as module
from gpt4video_kernels.cross_attention import choose_way, cross_attention, cross_attention_reference

WAYS = ("merged", "joined")


def segments(batch: int, queries: int, features: int, width: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k_features, v_features, k_queries, v_queries with 2 heads, strided as linear layers leave them."""
    torch.manual_seed(0)
    rows = (queries, features, features, queries, queries)
    drawn = [torch.randn(batch, n, 2, width, dtype=torch.float64).to(dtype).transpose(1, 2) for n in rows]
    return [tensor.requires_grad_() for tensor in drawn]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 2, 1, 4), (2, 10, 17, 8), (3, 64, 257, 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_ways_equal_the_formula(way: module.Way, groups: int, sizes: tuple[int, ...], masked: bool) -> None:
    inputs = segments(*sizes)
    batch, queries, features, _ = sizes
    mask = None
    if masked:
        mask = torch.rand(batch, features + queries) > 0.4
        mask[:, 0] = True
    fast = cross_attention(*inputs, mask, groups, way)
    # The reference computes in float32: compare at that precision.
    plain = cross_attention_reference(*inputs, mask, groups)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(fast)
    for a, b in zip(
        torch.autograd.grad((fast * weight).sum(), inputs),
        torch.autograd.grad((plain * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_like_the_formula(dtype: torch.dtype) -> None:
    exact = segments(2, 6, 40, 16)
    rounded = [tensor.detach().to(dtype) for tensor in exact]
    q, *others = (tensor.double() for tensor in rounded)
    expected = cross_attention(q, *others, None, 2, "joined")
    for way in WAYS:
        found = cross_attention(*rounded, None, 2, way)
        assert found.dtype == dtype
        assert (found - expected).abs().max() < 4 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("way", ["reference", *WAYS])
def test_masked_keys_have_no_say(way: module.Way) -> None:
    q, k_f, v_f, k_q, v_q = segments(1, 3, 6, 4, torch.float32)
    mask = torch.tensor([[True] * 4 + [False] * 2 + [True] * 3])
    short = cross_attention(q, k_f[:, :, :4], v_f[:, :, :4], k_q, v_q, way=way)
    torch.testing.assert_close(cross_attention(q, k_f, v_f, k_q, v_q, mask, way=way), short)
    assert not torch.allclose(cross_attention(q, k_f, v_f, k_q, v_q, way=way), short, atol=1e-3)


@pytest.mark.parametrize("hidden", ["features", "queries"])
def test_a_segment_may_be_hidden_altogether(hidden: str) -> None:
    """The log-sum-exp of no key is minus infinity, and its gradients are zero."""
    inputs = segments(2, 4, 9, 8)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, slice(0, 9) if hidden == "features" else slice(9, 13)] = False
    merged = cross_attention(*inputs, mask, 2, "merged")
    torch.testing.assert_close(merged, cross_attention(*inputs, mask, 2, "joined"))
    for a in torch.autograd.grad(merged.sum(), inputs[1:3] if hidden == "features" else inputs[3:]):
        assert not a[0].any() and a[1].any()


@pytest.mark.parametrize("way", ["reference", *WAYS])
def test_groups_are_as_if_each_were_alone(way: module.Way) -> None:
    q, k_f, v_f, k_q, v_q = segments(2, 6, 9, 8, torch.float32)
    together = cross_attention(q, k_f, v_f, k_q, v_q, groups=3, way=way)
    for i in range(0, 6, 2):
        own = (t[:, :, i : i + 2] for t in (k_q, v_q))
        torch.testing.assert_close(together[:, :, i : i + 2], cross_attention(q[:, :, i : i + 2], k_f, v_f, *own))


@pytest.mark.parametrize("way", WAYS)
def test_strides_are_free(way: module.Way) -> None:
    """The numbers of a row too may lie apart, which torch's own operator takes for granted."""
    inputs = [tensor.detach() for tensor in segments(2, 4, 300, 16, torch.float32)]
    apart = [tensor.mT.contiguous().mT.requires_grad_() for tensor in inputs]
    found = cross_attention(*apart, groups=2, way=way)
    plain = [tensor.clone().requires_grad_() for tensor in inputs]
    expected = cross_attention_reference(*plain, groups=2)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(2, 2, 16, 4).mT
    for a, b in zip(
        torch.autograd.grad(found, apart, weight), torch.autograd.grad(expected, plain, weight), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_way_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = segments(1, 2, 3, 16, torch.float32)
    with pytest.raises(RuntimeError, match=r"'triton' cannot run: .*(GPU|not installed)"):
        cross_attention(*inputs, way="triton")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="'triton' cannot run: the package triton is not installed"):
        cross_attention(*inputs, way="triton")
    with pytest.raises(RuntimeError, match="there are only auto, reference, joined, merged, triton"):
        cross_attention(*inputs, way="flash")
    elsewhere = [tensor.detach().to("meta") for tensor in inputs]
    with pytest.raises(RuntimeError, match="'merged' cannot run: it is for the CPU, the queries are on meta"):
        cross_attention(*elsewhere, way="merged")


def test_auto_takes_what_runs() -> None:
    q = torch.zeros(1, 2, 4, 16)
    assert choose_way(q, 10_000) == "merged"
    for dtype in (torch.float32, torch.bfloat16):
        assert choose_way(q.to("meta", dtype), 10_000) == "joined"


def test_wrong_shapes_are_refused() -> None:
    q, k_f, v_f, k_q, v_q = segments(1, 4, 3, 8, torch.float32)
    for wrong, said in (
        ((q, k_f, v_f[:, :, :2], k_q, v_q), r"\[1, 2, 2, 8\]"),
        ((q, k_f, v_f, k_q[:, :, :3], v_q), r"\[1, 2, 3, 8\]"),
        ((q, k_f, v_f, k_q, v_q, torch.ones(1, 6, dtype=torch.bool)), r"expected torch.bool \[1, 7\]"),
        ((q, k_f, v_f, k_q, v_q, torch.ones(1, 7)), "mask is torch.float32"),
        ((q, k_f, v_f, k_q, v_q, None, 3), "4 queries are not 3 equal groups"),
    ):
        with pytest.raises(ValueError, match=said):
            cross_attention(*wrong)
