"""Cross-attention over two segments on a CPU: torch's fused attention for each, merged by their log-sum-exp.

softmax over [A; B] is the mean of softmax over A and over B, weighted by the sums of their exponentials. The backward
pass needs no merging: with the log-sum-exp and the output of *both* segments, each segment's share of the gradients is
what torch's own backward pass computes.

Of what was measured (``benchmarks/abstractor.py``; float32, 16 heads of 64, two cores) this is kept: with 32 frames one
buffer, into whose end each layer writes its queries' part, takes 1.0 (one group) and 1.1 times as long (two groups),
concatenation 1.3 and 1.9, eager torch 2.5 and 3.0. With 4 frames all take the same.

Letters as in ``cross_attention.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# torch shows the log-sum-exp only here. (flex_attention does as well, and is slow on a CPU unless it is compiled.)
_fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_fused_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def forward(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Output [B, H, Q, d] in q's dtype, and the log-sum-exp [B, H, Q] of each query's scores over both segments."""
    features, own = _masks(mask, k_features.shape[2], groups, q.dtype)
    out, total = _fused(q, k_features, v_features, attn_mask=features)
    own_out, own_total = _fused(*(_apart(t, groups) for t in (q, k_queries, v_queries)), attn_mask=own)
    own_out, own_total = _together(own_out, groups), _together(own_total, groups)
    total, own_total = _of_none(total, features), _of_none(own_total, own, groups)
    share = torch.sigmoid(own_total - total)[..., None]  # of the own segment; float32, and float64 for float64
    return torch.lerp(out.to(share.dtype), own_out.to(share.dtype), share).to(q.dtype), total.logaddexp(own_total)


def backward(
    grad: Tensor,
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None,
    groups: int,
    out: Tensor,
    log_sum_exp: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the five inputs, from that of the output and from what ``forward`` returned."""
    features, own = _masks(mask, k_features.shape[2], groups, q.dtype)
    grad_q, grad_k, grad_v = _fused_backward(
        grad, q, k_features, v_features, out, log_sum_exp, 0.0, False, attn_mask=features
    )
    apart = [_apart(t, groups) for t in (grad, q, k_queries, v_queries, out, log_sum_exp)]
    own_grads = _fused_backward(*apart, 0.0, False, attn_mask=own)
    own_q, own_k, own_v = (_together(t, groups) for t in own_grads)
    return grad_q + own_q, grad_k, grad_v, own_k, own_v


def _masks(mask: Tensor | None, features: int, groups: int, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores of each segment, [B, 1, 1, M] and [B * G, 1, 1, N]."""
    if mask is None:
        return None, None
    added = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -math.inf)[:, None, None]
    return added[..., :features], added[..., features:].reshape(len(mask) * groups, 1, 1, -1)


def _of_none(total: Tensor, added: Tensor | None, groups: int = 1) -> Tensor:
    """The log-sum-exp of no key at all is minus infinity; torch says 0 where a mask hides a whole segment."""
    if added is None:
        return total
    hidden = (added == -math.inf).all(dim=-1).flatten()  # [B * G]
    return total.masked_fill(hidden.view(-1, 1, groups).repeat_interleave(total.shape[2] // groups, 2), -math.inf)


def _apart(x: Tensor, groups: int) -> Tensor:
    """[B, H, G * N, ...] -> [B * G, H, N, ...]"""
    return x.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _together(x: Tensor, groups: int) -> Tensor:
    """[B * G, H, N, ...] -> [B, H, G * N, ...]"""
    return x.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)
