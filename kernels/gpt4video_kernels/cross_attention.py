"""Attention of a few learned queries over many visual features plus the queries themselves.

Equations (1)-(3) of GPT4Video (arXiv 2311.16511): softmax(Q K^T / sqrt(d)) V with K and V from ``[F_v; Q]``. Keys and
values arrive as two segments, because the features' part is the same for every group of queries (and for every later
question about the same clip), while the queries' part is small and changes from layer to layer. No way but the joined
one puts them together.

Letters: B batch, H heads, G groups of queries, N queries of a group, Q = G * N, M visual features (T * (1+P)), d width
of a head.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Way = Literal["auto", "reference", "joined", "merged", "triton"]


def cross_attention_reference(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    """Plain formula, in float32 whatever the inputs' dtype; what every fast path is compared with.

    q, k_queries, v_queries: [B, H, Q, d]; k_features, v_features: [B, H, M, d]; all of one floating dtype.
    mask: bool [B, M + Q], True where a key may be looked at (features first), or None for all. Each row needs a True.
    groups: the queries are so many equal blocks; each sees all features, and of the queries only its own block.
    Returns [B, H, Q, d] in q's dtype.

    Attention sees a set, so the order of the keys is free. The queries' come first here, as in mPLUG-Owl's code, so
    that float32 rounds as it does there: another order moves the outputs of six layers by up to 2e-5 of their largest.
    """
    keys = torch.cat([k_queries, k_features], dim=2).float()
    values = torch.cat([v_queries, v_features], dim=2).float()
    scores = q.float() @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
    allowed = _allowed(q, k_features.shape[2], mask, groups)
    if allowed is not None:
        features = k_features.shape[2]
        scores = scores.masked_fill(~torch.cat([allowed[..., features:], allowed[..., :features]], -1), -math.inf)
    return (scores.softmax(dim=-1) @ values).to(q.dtype)


def cross_attention(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None = None,
    groups: int = 1,
    way: Way = "auto",
) -> Tensor:
    """The reference's result by the fastest way that can run; its first seven arguments, differentiable once.

    way: ``auto`` chooses by device, dtype and size; ``merged`` is torch's fused attention over each segment on a CPU,
    merged by their log-sum-exp; ``triton`` our own kernels; ``joined`` torch's fused attention over the concatenation,
    which runs everywhere. A way that cannot run raises RuntimeError, which says why; wrong shapes raise ValueError.
    """
    _check(q, k_features, v_features, k_queries, v_queries, mask, groups)
    if way == "auto":
        way = choose_way(q, k_features.shape[2])
    elif (reason := why_not(way, q)) is not None:
        raise RuntimeError(f"cross_attention: {way!r} cannot run: {reason}")
    if way == "reference":
        return cross_attention_reference(q, k_features, v_features, k_queries, v_queries, mask, groups)
    if way == "joined":
        return _joined(q, k_features, v_features, k_queries, v_queries, mask, groups)
    segments = _triton_kernels() if way == "triton" else _merged_segments()
    # Both read the numbers of a row as neighbours, and neither can tell where they are not; other strides are free.
    inputs = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k_features, v_features, k_queries, v_queries))
    result: Tensor = _TwoSegments.apply(segments, *inputs, mask, groups)
    return result


def choose_way(q: Tensor, features: int) -> Way:
    """What ``auto`` takes for queries [B, H, Q, d] over so many features.

    On a CPU always ``merged``, for the reason that ``cross_attention_cpu.py`` gives. On a GPU the kernels of this
    package are taken for half precision and for four frames of 256 patches or more: below that a GPU waits for
    launches, of which torch's attention needs fewer, and float32 takes them three products for one. That border is
    reasoned, not measured: no GPU was at hand.
    """
    if q.device.type == "cpu":
        return "merged"
    if q.dtype in (torch.float16, torch.bfloat16) and features >= 1024 and why_not("triton", q) is None:
        return "triton"
    return "joined"


def why_not(way: Way, q: Tensor) -> str | None:
    """Why ``way`` cannot take queries like q [B, H, Q, d], or None if it can."""
    if way == "merged":
        return None if q.device.type == "cpu" else f"it is for the CPU, the queries are on {q.device}"
    if way == "triton":
        if find_spec("triton") is None:
            return "the package triton is not installed"
        return _triton_kernels().why_not(q)  # type: ignore[no-any-return]
    return None if way in get_args(Way) else f"there are only {', '.join(get_args(Way))}"


def _merged_segments() -> ModuleType:
    from gpt4video_kernels import cross_attention_cpu

    return cross_attention_cpu


def _triton_kernels() -> ModuleType:
    from gpt4video_kernels import cross_attention_triton  # triton is neither always installed nor quick to import

    return cross_attention_triton


class _TwoSegments(torch.autograd.Function):
    """A way's ``forward`` and ``backward``, of which the latter recomputes the scores from their log-sum-exp."""

    @staticmethod
    def forward(ctx: Any, way: ModuleType, q: Tensor, *rest: Any) -> Tensor:
        *segments, mask, groups = rest
        out, log_sum_exp = way.forward(q, *segments, mask, groups)
        ctx.save_for_backward(q, *segments, mask, out, log_sum_exp)
        ctx.way, ctx.groups = way, groups
        return out  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask, out, log_sum_exp = ctx.saved_tensors
        return (None, *ctx.way.backward(grad, *inputs, mask, ctx.groups, out, log_sum_exp), None, None)


def _joined(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None,
    groups: int,
) -> Tensor:
    keys = torch.cat([k_features, k_queries], dim=2)
    values = torch.cat([v_features, v_queries], dim=2)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=_allowed(q, k_features.shape[2], mask, groups))


def _allowed(q: Tensor, features: int, mask: Tensor | None, groups: int) -> Tensor | None:
    """bool [B or 1, 1, Q or 1, M + Q]: which query may look at which key (features first); None: all at all."""
    seen = None if mask is None else mask[:, None, None, :]
    if groups == 1:
        return seen
    queries = q.shape[2]
    group = torch.arange(queries, device=q.device) // (queries // groups)
    own = torch.ones(queries, features + queries, dtype=torch.bool, device=q.device)
    own[:, features:] = group[:, None] == group
    return own[None, None] if seen is None else own & seen


def _check(
    q: Tensor, k_features: Tensor, v_features: Tensor, k_queries: Tensor, v_queries: Tensor, mask: Tensor | None, n: int
) -> None:
    batch, heads, queries, width = q.shape
    features = (batch, heads, k_features.shape[2], width)
    if k_features.shape != features or v_features.shape != features or {k_queries.shape, v_queries.shape} != {q.shape}:
        found = ", ".join(str(list(t.shape)) for t in (q, k_features, v_features, k_queries, v_queries))
        raise ValueError(f"cross_attention: shapes {found} do not fit [B, H, Q, d], 2 x [B, H, M, d], 2 x [B, H, Q, d]")
    if n < 1 or queries % n:
        raise ValueError(f"cross_attention: {queries} queries are not {n} equal groups")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (batch, features[2] + queries)):
        expected = [batch, features[2] + queries]
        raise ValueError(f"cross_attention: mask is {mask.dtype} {list(mask.shape)}, expected torch.bool {expected}")
