"""Cross-attention over two segments on a GPU: streaming softmax, split over the keys, forward and backward.

A clip has 64 to 128 queries of 16 heads, so one program for each block of queries would leave most of a GPU idle. The
features are therefore split: each program streams through one part of the keys (Flash-Decoding, Dao et al. 2023), and
a second small kernel merges the partial outputs by their log-sum-exp; the queries' own segment belongs to the last
part. The backward pass recomputes the scores from the log-sum-exp (FlashAttention-2, Dao, arXiv 2307.08691): one
program for each block of keys gives the gradients of keys and values, one for each part those of the queries, which
are summed. Nothing is added up atomically, so results do not differ from run to run.

**No GPU was at hand.** Results, masks, odd sizes, dtypes and gradients were checked in Triton's interpreter
(``tests/kernels``), and the kernels compile for compute capabilities 8.0 and 9.0. Block sizes, warps and splits are
reasoned, not measured.

Letters as in ``cross_attention.py``; S parts of the keys.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from gpt4video_kernels.cross_attention_kernels import (
    forward_kernel,
    keys_backward_kernel,
    merge_kernel,
    queries_backward_kernel,
)

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Plan:
    """How the work is cut: sizes of blocks, parts of the features (each ``part`` keys, a multiple of ``block_k``)."""

    block_q: int
    block_k: int
    block_d: int
    splits: int
    part: int
    warps: int
    stages: int


def choose_plan(queries: int, features: int, pairs: int, width: int, element: int, processors: int) -> Plan:
    """The cut for B * H = ``pairs`` heads of ``width`` numbers of ``element`` bytes, on so many multiprocessors.

    Blocks are at least 16, the smallest that tl.dot takes. Twice as many programs as multiprocessors are wanted, so
    that one computes while another waits for memory; a part has at least four blocks of keys, else writing its partial
    output (float32) costs as much as reading its keys. Blocks of float32 are half as long, and wide tiles are loaded
    one at a time, so that all fits into the 99 KiB of shared memory of consumer GPUs.
    """
    block_d = max(16, triton.next_power_of_2(width))
    block_k = 64 if element == 2 else 32
    block_q = min(block_k, max(16, triton.next_power_of_2(queries)))
    wanted = -(-2 * processors // (pairs * -(-queries // block_q)))
    splits = max(1, min(wanted, features // (4 * block_k)))
    part = -(-features // (splits * block_k)) * block_k
    return Plan(
        block_q=block_q,
        block_k=block_k,
        block_d=block_d,
        splits=-(-features // part),
        part=part,
        warps=4 if block_d <= 64 else 8,
        stages=2 if element * block_d <= 128 else 1,
    )


def why_not(q: Tensor) -> str | None:
    """Why the kernels cannot take queries like q [B, H, Q, d], or None if they can."""
    if q.dtype not in _DTYPES:
        return f"it computes in float32, bfloat16 and float16, not in {q.dtype}"
    if not 16 <= q.shape[-1] <= 128:
        return f"heads must be 16 to 128 wide, these are {q.shape[-1]}"
    if triton.knobs.runtime.interpret:
        return None
    if q.device.type != "cuda":
        return f"it needs a GPU, the queries are on {q.device} (TRITON_INTERPRET=1 interprets it, very slowly)"
    if torch.version.hip is None and torch.cuda.get_device_capability(q.device) < (8, 0):
        return f"{torch.cuda.get_device_name(q.device)} is older than compute capability 8.0"
    return None


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; in the interpreter, where it does not matter, 4."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def forward(
    q: Tensor,
    k_features: Tensor,
    v_features: Tensor,
    k_queries: Tensor,
    v_queries: Tensor,
    mask: Tensor | None,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """Output [B, H, Q, d] in q's dtype, and the log-sum-exp (base 2, float32) [B, H, Q] of each query's scores."""
    inputs = (q, k_features, v_features, k_queries, v_queries)
    batch, heads, queries, width = q.shape
    plan, shared = _cut(q, k_features, mask, groups)
    out = _like(q, queries)
    sums = q.new_empty(batch, heads, queries, dtype=torch.float32)
    partial, partial_sums = out[None], sums[None]
    if plan.splits > 1:
        partial = _like(q, queries, plan.splits)
        partial_sums = sums.new_empty(plan.splits, *sums.shape)
    blocks = (batch * heads, triton.cdiv(queries, plan.block_q))
    sizes = {"BLOCK_Q": plan.block_q, "BLOCK_D": plan.block_d, "num_warps": plan.warps}
    with _on(q):
        forward_kernel[(*blocks, plan.splits)](
            *inputs, shared["mask"], partial, partial_sums,
            *(stride for t in inputs for stride in t.stride()[:3]), shared["mask_b"], *partial.stride()[:4],
            heads, queries, k_features.shape[2], queries // groups, plan.part, shared["scale"],
            D=width, BLOCK_K=plan.block_k, num_stages=plan.stages, **shared["constants"], **sizes,
        )  # fmt: skip
        if plan.splits > 1:
            merge_kernel[blocks](
                partial, partial_sums, out, sums, partial.stride(0), *out.stride()[:3], heads, queries, plan.splits,
                D=width, **sizes,
            )  # fmt: skip
    return out, sums


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
    inputs = (q, k_features, v_features, k_queries, v_queries)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()  # as the inputs are
    batch, heads, queries, width = q.shape
    plan, shared = _cut(q, k_features, mask, groups)
    delta = (grad.float() * out.float()).sum(dim=-1).contiguous()  # [B, H, Q]
    group, scale = queries // groups, shared["scale"]
    sizes = {
        "D": width,
        "BLOCK_Q": plan.block_q,
        "BLOCK_K": plan.block_k,
        "BLOCK_D": plan.block_d,
        "num_warps": plan.warps,
        "num_stages": 1,
    }
    dq = _like(q, queries, plan.splits)
    found = []
    with _on(q):
        queries_backward_kernel[(batch * heads, triton.cdiv(queries, plan.block_q), plan.splits)](
            *inputs, shared["mask"], grad, log_sum_exp, delta, dq,
            *(stride for t in inputs for stride in t.stride()[:3]), shared["mask_b"],
            *grad.stride()[:3], *dq.stride()[:4],
            heads, queries, k_features.shape[2], group, plan.part, scale,
            **shared["constants"], **sizes,
        )  # fmt: skip
        for own, (k, v) in enumerate((inputs[1:3], inputs[3:5])):
            keys = k.shape[2]
            dk, dv = _like(k, keys), _like(v, keys)
            seen = shared["mask"][:, k_features.shape[2] :] if own and mask is not None else shared["mask"]
            keys_backward_kernel[(batch * heads, triton.cdiv(keys, plan.block_k))](
                inputs[0], k, v, seen, grad, log_sum_exp, delta, dk, dv,
                *(stride for t in (inputs[0], k, v) for stride in t.stride()[:3]), shared["mask_b"],
                *grad.stride()[:3], *dk.stride()[:3],
                heads, queries, keys, group, scale, 1 / math.sqrt(width),
                OWN=bool(own), **shared["constants"], **sizes,
            )  # fmt: skip
            found += [dk, dv]
    dk, dv, dk_own, dv_own = found
    return (dq.sum(dim=0) / math.sqrt(width)).to(q.dtype), dk, dv, dk_own, dv_own


def _cut(q: Tensor, k_features: Tensor, mask: Tensor | None, groups: int) -> tuple[Plan, dict[str, Any]]:
    """The plan, and what all kernels take."""
    batch, heads, queries, width = q.shape
    plan = choose_plan(queries, k_features.shape[2], batch * heads, width, q.element_size(), processors(q.device))
    seen = q if mask is None else mask.contiguous().view(torch.uint8)  # q: a pointer that is never read
    constants = {"HAS_MASK": mask is not None, "PRECISION": "tf32"}
    if q.dtype == torch.float32:
        # TF32 alone rounds to 10 bits; three products of it are as exact as float32. AMD's compiler lacks them.
        constants["PRECISION"] = "tf32x3" if torch.version.hip is None else "ieee"
    scale = math.log2(math.e) / math.sqrt(width)
    return plan, {"mask": seen, "mask_b": seen.stride(0), "scale": scale, "constants": constants}


def _like(x: Tensor, rows: int, splits: int | None = None) -> Tensor:
    """Empty [B, H, rows, d] where the heads of a row are neighbours, as linear layers want it; or float32 [S, ...]."""
    batch, heads, _, width = x.shape
    if splits is None:
        return x.new_empty(batch, rows, heads, width).transpose(1, 2)
    return x.new_empty(splits, batch, rows, heads, width, dtype=torch.float32).transpose(2, 3)


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Kernels start on the current device, which need not be the tensors'."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
