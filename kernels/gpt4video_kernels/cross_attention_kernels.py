"""The kernels behind ``cross_attention_triton.py``, which says how they share the work.

Letters as in ``cross_attention.py``; S parts of the keys. A tensor's strides are called by its letters, ``q_b`` for one
clip further in q; the last stride is 1 everywhere. Logarithms and exponentials are of base 2, which GPUs have.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(base, rows, row_stride, row_ok, D: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
    """[rows, BLOCK_D] of a matrix whose columns are neighbours; zero where there is none."""
    column = tl.arange(0, BLOCK_D)
    ok = row_ok[:, None] & (column < D)[None, :]
    return tl.load(base + rows[:, None] * row_stride + column[None, :], mask=ok, other=0.0)


@triton.jit
def _seen(mask_row, column, inside, HAS_MASK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which of the keys exist and may be looked at."""
    if HAS_MASK:
        inside = inside & (tl.load(mask_row + column, mask=inside, other=0) != 0)
    return inside


@triton.jit
def _look(q, k, v, seen, acc, top, total, scale, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """One more block of keys: the running output, largest score and sum of exponentials of each query."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(seen, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    safe = tl.where(new_top == float("-inf"), 0.0, new_top)  # no key seen so far
    p = tl.exp2(scores - safe[:, None])
    before = tl.exp2(top - safe)
    acc = acc * before[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    return acc, new_top, total * before + tl.sum(p, 1)


@triton.jit
def _finish(acc, top, total):  # type: ignore[no-untyped-def]
    """Output and log-sum-exp of what was seen; zeros and minus infinity where no key was."""
    none = total == 0.0
    divisor = tl.where(none, 1.0, total)
    return acc / divisor[:, None], tl.where(none, float("-inf"), top + tl.log2(divisor))


@triton.jit
def _own_bounds(first, BLOCK: tl.constexpr, queries, group):  # type: ignore[no-untyped-def]
    """The rows of the groups to which the rows from ``first`` belong: [low, high)."""
    last = tl.minimum(first + BLOCK, queries) - 1
    return first // group * group, (last // group + 1) * group


@triton.jit
def forward_kernel(  # type: ignore[no-untyped-def]
    q, kf, vf, ko, vo, mask, out, log_sum_exp,
    q_b, q_h, q_n, kf_b, kf_h, kf_n, vf_b, vf_h, vf_n, ko_b, ko_h, ko_n, vo_b, vo_h, vo_n, mask_b,
    out_s, out_b, out_h, out_n,
    heads, queries, features, group, part, scale,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of BLOCK_Q queries over one part of the keys. Grid: B * H, blocks of queries, S."""
    pair = tl.program_id(0)
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    first, s = tl.program_id(1) * BLOCK_Q, tl.program_id(2)
    row = first + tl.arange(0, BLOCK_Q)
    row_ok = row < queries
    tile_q = _tile(q + b * q_b + h * q_h, row, q_n, row_ok, D, BLOCK_D)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)

    k_base, v_base, mask_row = kf + b * kf_b + h * kf_h, vf + b * vf_b + h * vf_h, mask + b * mask_b
    end = tl.minimum(features, (s + 1) * part)
    for start in range(s * part, end, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        inside = key < end
        k = _tile(k_base, key.to(tl.int64), kf_n, inside, D, BLOCK_D)
        v = _tile(v_base, key.to(tl.int64), vf_n, inside, D, BLOCK_D)
        seen = _seen(mask_row, key, inside, HAS_MASK)[None, :]
        acc, top, total = _look(tile_q, k, v, seen, acc, top, total, scale, PRECISION)

    k_base, v_base, mask_row = ko + b * ko_b + h * ko_h, vo + b * vo_b + h * vo_h, mask_row + features
    low, high = _own_bounds(first, BLOCK_Q, queries, group)
    high = tl.where(s == tl.num_programs(2) - 1, high, low)
    for start in range(low, high, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        inside = key < high
        k = _tile(k_base, key, ko_n, inside, D, BLOCK_D)
        v = _tile(v_base, key, vo_n, inside, D, BLOCK_D)
        seen = _seen(mask_row, key, inside, HAS_MASK)[None, :] & (row[:, None] // group == key[None, :] // group)
        acc, top, total = _look(tile_q, k, v, seen, acc, top, total, scale, PRECISION)

    acc, total = _finish(acc, top, total)
    column = tl.arange(0, BLOCK_D)
    ok = row_ok[:, None] & (column < D)[None, :]
    base = out + s.to(tl.int64) * out_s + b * out_b + h * out_h
    tl.store(base + row[:, None] * out_n + column[None, :], acc.to(out.dtype.element_ty), mask=ok)
    place = (s * tl.num_programs(0) + pair).to(tl.int64) * queries
    tl.store(log_sum_exp + place + row, total, mask=row_ok)


@triton.jit
def merge_kernel(  # type: ignore[no-untyped-def]
    partial, partial_sums, out, log_sum_exp,
    part_s, out_b, out_h, out_n, heads, queries, parts,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Partial outputs, float32 and laid out as the output is, weighted by their log-sum-exp. Grid: B * H, blocks."""
    pair = tl.program_id(0)
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    row = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    row_ok = row < queries
    base = b * out_b + h * out_h
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for s in range(parts):
        place = (s * tl.num_programs(0) + pair).to(tl.int64) * queries
        sums = tl.load(partial_sums + place + row, mask=row_ok, other=float("-inf"))
        new_top = tl.maximum(top, sums)
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)
        before, weight = tl.exp2(top - safe), tl.exp2(sums - safe)
        acc = acc * before[:, None]
        acc += weight[:, None] * _tile(partial + s * part_s + base, row, out_n, row_ok, D, BLOCK_D)
        top, total = new_top, total * before + weight
    acc, total = _finish(acc, top, total)
    column = tl.arange(0, BLOCK_D)
    ok = row_ok[:, None] & (column < D)[None, :]
    tl.store(out + base + row[:, None] * out_n + column[None, :], acc.to(out.dtype.element_ty), mask=ok)
    tl.store(log_sum_exp + pair.to(tl.int64) * queries + row, total, mask=row_ok)


@triton.jit
def _slope(q, k, v, do, sums, delta, seen, scale, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Probabilities of a block of scores, and the gradient of the scores before their scaling."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(seen, scores, float("-inf"))
    safe = tl.where(sums == float("-inf"), 0.0, sums)  # no key seen at all
    p = tl.exp2(scores - safe[:, None])
    return p, p * (tl.dot(do, tl.trans(v), input_precision=PRECISION) - delta[:, None])


@triton.jit
def queries_backward_kernel(  # type: ignore[no-untyped-def]
    q, kf, vf, ko, vo, mask, do, log_sum_exp, delta, dq,
    q_b, q_h, q_n, kf_b, kf_h, kf_n, vf_b, vf_h, vf_n, ko_b, ko_h, ko_n, vo_b, vo_h, vo_n, mask_b,
    do_b, do_h, do_n, dq_s, dq_b, dq_h, dq_n,
    heads, queries, features, group, part, scale,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One part's share of the queries' gradient, without the scale, float32. Grid as in ``forward_kernel``."""
    pair = tl.program_id(0)
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    first, s = tl.program_id(1) * BLOCK_Q, tl.program_id(2)
    row = first + tl.arange(0, BLOCK_Q)
    row_ok = row < queries
    tile_q = _tile(q + b * q_b + h * q_h, row, q_n, row_ok, D, BLOCK_D)
    tile_do = _tile(do + b * do_b + h * do_h, row, do_n, row_ok, D, BLOCK_D)
    place = pair.to(tl.int64) * queries
    sums = tl.load(log_sum_exp + place + row, mask=row_ok, other=0.0)
    mean = tl.load(delta + place + row, mask=row_ok, other=0.0)
    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)

    k_base, v_base, mask_row = kf + b * kf_b + h * kf_h, vf + b * vf_b + h * vf_h, mask + b * mask_b
    end = tl.minimum(features, (s + 1) * part)
    for start in range(s * part, end, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        inside = key < end
        k = _tile(k_base, key.to(tl.int64), kf_n, inside, D, BLOCK_D)
        v = _tile(v_base, key.to(tl.int64), vf_n, inside, D, BLOCK_D)
        seen = _seen(mask_row, key, inside, HAS_MASK)[None, :]
        _, slope = _slope(tile_q, k, v, tile_do, sums, mean, seen, scale, PRECISION)
        acc += tl.dot(slope.to(k.dtype), k, input_precision=PRECISION)

    k_base, v_base, mask_row = ko + b * ko_b + h * ko_h, vo + b * vo_b + h * vo_h, mask_row + features
    low, high = _own_bounds(first, BLOCK_Q, queries, group)
    high = tl.where(s == tl.num_programs(2) - 1, high, low)
    for start in range(low, high, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        inside = key < high
        k = _tile(k_base, key, ko_n, inside, D, BLOCK_D)
        v = _tile(v_base, key, vo_n, inside, D, BLOCK_D)
        seen = _seen(mask_row, key, inside, HAS_MASK)[None, :] & (row[:, None] // group == key[None, :] // group)
        _, slope = _slope(tile_q, k, v, tile_do, sums, mean, seen, scale, PRECISION)
        acc += tl.dot(slope.to(k.dtype), k, input_precision=PRECISION)

    column = tl.arange(0, BLOCK_D)
    ok = row_ok[:, None] & (column < D)[None, :]
    base = dq + s.to(tl.int64) * dq_s + b * dq_b + h * dq_h
    tl.store(base + row[:, None] * dq_n + column[None, :], acc, mask=ok)


@triton.jit
def keys_backward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, mask, do, log_sum_exp, delta, dk, dv,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, mask_b, do_b, do_h, do_n, dk_b, dk_h, dk_n,
    heads, queries, keys, group, scale, plain_scale,
    D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    HAS_MASK: tl.constexpr, PRECISION: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """Gradients of BLOCK_K keys and values of one segment; OWN: the queries' own. Grid: B * H, blocks of keys."""
    pair = tl.program_id(0)
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    first = tl.program_id(1) * BLOCK_K
    key = first + tl.arange(0, BLOCK_K)
    inside = key < keys
    wide = key.to(tl.int64)
    tile_k = _tile(k + b * k_b + h * k_h, wide, k_n, inside, D, BLOCK_D)
    tile_v = _tile(v + b * v_b + h * v_h, wide, v_n, inside, D, BLOCK_D)
    seen_key = _seen(mask + b * mask_b, key, inside, HAS_MASK)
    acc_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    acc_v = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    low, high = 0, queries
    if OWN:
        low, high = _own_bounds(first, BLOCK_K, queries, group)
    place = pair.to(tl.int64) * queries
    for start in range(low, high, BLOCK_Q):
        row = start + tl.arange(0, BLOCK_Q)
        row_ok = row < queries
        tile_q = _tile(q + b * q_b + h * q_h, row, q_n, row_ok, D, BLOCK_D)
        tile_do = _tile(do + b * do_b + h * do_h, row, do_n, row_ok, D, BLOCK_D)
        sums = tl.load(log_sum_exp + place + row, mask=row_ok, other=0.0)
        mean = tl.load(delta + place + row, mask=row_ok, other=0.0)
        seen = row_ok[:, None] & seen_key[None, :]
        if OWN:
            seen = seen & (row[:, None] // group == key[None, :] // group)
        p, slope = _slope(tile_q, tile_k, tile_v, tile_do, sums, mean, seen, scale, PRECISION)
        acc_v += tl.dot(tl.trans(p.to(tile_do.dtype)), tile_do, input_precision=PRECISION)
        acc_k += tl.dot(tl.trans(slope.to(tile_q.dtype)), tile_q, input_precision=PRECISION)
    column = tl.arange(0, BLOCK_D)
    ok = inside[:, None] & (column < D)[None, :]
    place_k = b * dk_b + h * dk_h + wide[:, None] * dk_n + column[None, :]
    tl.store(dk + place_k, (acc_k * plain_scale).to(dk.dtype.element_ty), mask=ok)
    tl.store(dv + place_k, acc_v.to(dv.dtype.element_ty), mask=ok)
