"""The abstractor as its formulas stand, which is what it is compared with: every layer norms the features, joins them
with the queries, projects all of them to keys and values and attends; in the paper's layout for each kind of query.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.model.abstractor import Abstractor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries [B, H, Q, d], keys and values [B, H, K, d] -> [B, H, Q, d]."""


def eager_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equation (1), a step at a time."""
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1) @ v


def plain_abstractor(abstractor: Abstractor, features: Tensor, attention: Attention = eager_attention) -> Tensor:
    """Equations (2)-(4) with the abstractor's own weights: features [B, T, 1+P, D], T > 1 -> [B, N (+1), D_llm]."""
    config = abstractor.config
    count = torch.full((1,), features.shape[1], device=features.device)
    seen = abstractor.with_frame_positions(features, None).flatten(1, 2)
    learned = [abstractor.spatial_queries, abstractor.temporal_queries]
    if config.joint_queries:
        learned = [torch.cat(learned)]
    condensed = []
    for queries in (of_kind.expand(len(features), -1, -1) for of_kind in learned):
        for layer in abstractor.layers:
            x, normed = layer.norm_queries(queries), layer.norm_features(seen)  # type: ignore[operator]
            joined = torch.cat([x, normed], dim=1)
            q, k, v = (
                project(of).unflatten(-1, (config.heads, -1)).transpose(1, 2)
                for project, of in ((layer.query, x), (layer.key, joined), (layer.value, joined))
            )
            x = x + layer.out(attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[operator]
            y = layer.norm_mlp(x)  # type: ignore[operator]
            queries = x + layer.down(layer.inner_norm(F.silu(layer.gate(y)) * layer.up(y)))  # type: ignore[operator]
        condensed.append(queries)
    spatial, temporal = condensed if len(condensed) == 2 else condensed[0].chunk(2, dim=1)
    return abstractor.project(spatial, temporal, count)
