"""What the Triton kernels must do, on a GPU or in Triton's interpreter: ``test_cross_attention_triton.py`` runs this
file in a process of its own, because triton decides when it is first imported whether it interprets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from gpt4video_kernels import cross_attention_triton
from gpt4video_kernels.cross_attention import cross_attention

DEVICE = "cpu" if triton.knobs.runtime.interpret else "cuda"
# Errors, as a part of the largest number: float32's own, and a few roundings of half precision.
TOLERANCES = {torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as uint16, and multiplies matrices of it as integers (triton 3.7)."""
    if DEVICE == "cuda":
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain = InterpreterBuilder.create_dot

    def widened(x: Any) -> Any:
        if x.dtype.scalar != tl.bfloat16:
            return x
        return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return plain(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def segments(batch: int, heads: int, queries: int, features: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    rows = (queries, features, features, queries, queries)
    drawn = [torch.randn(batch, n, heads, width).to(DEVICE, dtype).transpose(1, 2) for n in rows]
    return [tensor.requires_grad_() for tensor in drawn]


def check(inputs: list[Tensor], mask: Tensor | None, groups: int) -> None:
    """Output and all five gradients against float64."""
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    out, expected = cross_attention(*inputs, mask, groups, "triton"), cross_attention(*exact, mask, groups, "joined")
    assert out.dtype == inputs[0].dtype
    weight = torch.randn_like(out)
    found = [out, *torch.autograd.grad((out * weight).sum(), inputs)]
    known = [expected, *torch.autograd.grad((expected * weight).sum(), exact)]
    for name, a, b in zip(("out", "q", "k_f", "v_f", "k_q", "v_q"), found, known, strict=True):
        error = (a.double() - b).abs().max()
        assert error <= TOLERANCES[out.dtype] * b.abs().max(), f"{name}: {error:.1e} of {b.abs().max():.1e}"


@pytest.mark.parametrize(
    ("batch", "heads", "queries", "groups", "features", "width", "masked"),
    [
        (1, 1, 1, 1, 1, 16, False),  # the least
        (2, 1, 10, 2, 300, 24, True),  # two parts, the second one short; a width that is no power of two
        (1, 2, 67, 1, 33, 16, True),  # two blocks of queries, and heads
        (1, 1, 66, 2, 17, 16, False),  # a block of queries of two groups
        (1, 1, 3, 1, 140, 128, False),
    ],
)
def test_float32(batch: int, heads: int, queries: int, groups: int, features: int, width: int, masked: bool) -> None:
    inputs = segments(batch, heads, queries, features, width, torch.float32)
    mask = None
    if masked:
        mask = torch.rand(batch, features + queries, device=DEVICE) > 0.4
        mask[:, -queries:] |= ~mask.any(dim=1, keepdim=True)
    check(inputs, mask, groups)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = segments(1, 1, 6, 520, 40, dtype)
    mask = torch.ones(1, 526, dtype=torch.bool, device=DEVICE)
    mask[0, 257:514] = False  # a padded frame
    check(inputs, mask, 2)


@pytest.mark.parametrize("hidden", [slice(0, 256), slice(256, 260)])
def test_a_whole_part_may_be_hidden(hidden: slice) -> None:
    inputs = segments(1, 1, 4, 256, 16, torch.float32)
    mask = torch.ones(1, 260, dtype=torch.bool, device=DEVICE)
    mask[0, hidden] = False
    check(inputs, mask, 2)


def test_strides_are_free() -> None:
    """Keys of all clips may be one memory (expand), rows may lie apart, and numbers of a row too."""
    q, k_f, v_f, k_q, v_q = (t.detach() for t in segments(2, 1, 4, 20, 16, torch.float32))
    shared = k_f[:1].expand(2, -1, -1, -1)
    apart = torch.stack([v_f, v_f], dim=-1)[..., 0]
    found = cross_attention(q, shared, apart, k_q, v_q, way="triton")
    torch.testing.assert_close(found, cross_attention(q, shared, v_f, k_q, v_q, way="joined"))


def test_the_number_of_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = segments(1, 1, 5, 100, 16, torch.float32)
    whole = cross_attention(*inputs, way="triton")
    plan = cross_attention_triton.choose_plan
    monkeypatch.setattr(cross_attention_triton, "choose_plan", lambda *sizes: replace(plan(*sizes), splits=4, part=32))
    torch.testing.assert_close(cross_attention(*inputs, way="triton"), whole)


def test_what_cannot_run_says_why() -> None:
    for width, dtype, said in ((8, torch.float32, "16 to 128 wide, these are 8"), (16, torch.float64, "float64")):
        with pytest.raises(RuntimeError, match=f"'triton' cannot run: .*{said}"):
            cross_attention(*segments(1, 1, 2, 3, width, dtype), way="triton")


def test_plans_fill_the_processors() -> None:
    plan = cross_attention_triton.choose_plan
    # One clip of 32 frames, paper's sizes, on 132 multiprocessors: 16 heads * 2 blocks * 9 parts.
    found = plan(128, 32 * 257, 16, 64, 2, 132)
    assert (found.block_q, found.block_d, found.splits) == (64, 64, 9)
    assert found.splits * found.part >= 32 * 257 > (found.splits - 1) * found.part
    assert plan(128, 32 * 257, 16 * 64, 64, 2, 132).splits == 1  # a large batch fills them alone
    assert plan(5, 10, 1, 80, 4, 132).splits == 1  # too little to share
    assert plan(5, 10, 1, 80, 4, 132).block_d == 128
