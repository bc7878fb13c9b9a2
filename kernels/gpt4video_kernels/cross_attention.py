"""Attention of a few learned queries over many visual features plus the queries themselves.

Equations (1)-(3) of GPT4Video (arXiv 2311.16511): softmax(Q K^T / sqrt(d)) V with K and V from ``[F_v; Q]``. Keys and
values arrive as two segments, because the features' part is the same for every group of queries (and for every later
question about the same clip), while the queries' part is small and changes from layer to layer.

Letters: B batch, H heads, N queries, M visual features (T * (1+P)), d width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_attention_reference(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Plain formula, in float32 whatever the inputs' dtype; what every fast path is compared with.

    q, k_queries, v_queries: [B, H, N, d]; k_features, v_features: [B, H, M, d]; all of one floating dtype.
    mask: bool [B, M + N], True where a key may be looked at (features first), or None for all. Each row needs a True.
    Returns [B, H, N, d] in q's dtype.

    Attention sees a set, so the order of the keys is free. The queries' come first here, as in mPLUG-Owl's code, so
    that float32 rounds as it does there: another order moves the outputs of six layers by up to 2e-5 of their largest.
    """
    keys = torch.cat([k_queries, k_features], dim=2).float()
    values = torch.cat([v_queries, v_features], dim=2).float()
    scores = q.float() @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        features = k_features.shape[2]
        allowed = torch.cat([mask[:, features:], mask[:, :features]], dim=1)
        scores = scores.masked_fill(~allowed[:, None, None, :], -math.inf)
    return (scores.softmax(dim=-1) @ values).to(q.dtype)


def cross_attention(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """The default fast path: torch's fused attention over the joined segments. Arguments as in the reference."""
    keys = torch.cat([k_features, k_queries], dim=2)
    values = torch.cat([v_features, v_queries], dim=2)
    allowed = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=allowed)
