"""The fast path against the plain formula, odd sizes and masks included."""

from __future__ import annotations

import pytest
import torch

from gpt4video_kernels.cross_attention import cross_attention, cross_attention_reference


@pytest.mark.parametrize(("batch", "queries", "features", "width"), [(1, 1, 1, 4), (2, 5, 17, 8), (3, 64, 257, 16)])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_path_equals_the_formula(batch: int, queries: int, features: int, width: int, masked: bool) -> None:
    torch.manual_seed(0)
    q, k_q, v_q = (torch.randn(batch, 2, queries, width, dtype=torch.float64) for _ in range(3))
    k_f, v_f = (torch.randn(batch, 2, features, width, dtype=torch.float64) for _ in range(2))
    mask = None
    if masked:
        mask = torch.rand(batch, features + queries) > 0.4
        mask[:, -1] = True
    inputs = [tensor.requires_grad_() for tensor in (q, k_f, v_f, k_q, v_q)]
    fast = cross_attention(*inputs, mask)
    # The reference computes in float32: compare at that precision.
    plain = cross_attention_reference(*inputs, mask)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    for a, b in zip(
        torch.autograd.grad(fast.square().sum(), inputs), torch.autograd.grad(plain.square().sum(), inputs), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_masked_keys_have_no_say() -> None:
    torch.manual_seed(0)
    q, k_q, v_q = (torch.randn(1, 2, 3, 4) for _ in range(3))
    k_f, v_f = (torch.randn(1, 2, 6, 4) for _ in range(2))
    mask = torch.tensor([[True] * 4 + [False] * 2 + [True] * 3])
    short = [k_f[:, :, :4], v_f[:, :, :4], k_q, v_q]
    for attend in (cross_attention, cross_attention_reference):
        torch.testing.assert_close(attend(q, k_f, v_f, k_q, v_q, mask), attend(q, *short))
        assert not torch.allclose(attend(q, k_f, v_f, k_q, v_q), attend(q, *short), atol=1e-3)
