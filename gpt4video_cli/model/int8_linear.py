"""Linear layers in 8 bits for the CPU: weights rounded once, inputs as they come (dynamic quantisation).

Weights have a scale for each output, inputs one for each token; both symmetric, so that the product of integers times
the two scales is the result: LLM.int8 (arXiv 2208.07339, section 2.1, "vector-wise") without its outlier columns. Sums
are exact in int32. It pays where the processor multiplies bytes (VNNI, AMX): ``benchmarks/vision.py`` measures it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOST = 127
_LEAST_SCALE = 1e-30
"""For a token of zeros, which has no scale of its own."""
_PIECE = 128
"""Tokens that are rounded at once."""


class Int8Linear(nn.Module):
    """What a ``nn.Linear`` computes, to 8 bits. ``weight``: int8 [N, K], ``scale`` and ``bias``: float32 [N]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(_LEAST_SCALE) / _MOST
        bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("weight", torch.round(weight / scale).to(torch.int8))
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("bias", bias)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """x: float32 [..., K]. Returns float32 [..., N]."""
        rows = x.flatten(0, -2)
        # The two ends apart take a third of the time of abs().amax().
        most = torch.maximum(rows.amax(-1, keepdim=True), -rows.amin(-1, keepdim=True)).clamp_min_(_LEAST_SCALE)
        # By pieces, and the sums turned to float32 where they lie: the memory that each layer asked for and gave back
        # took a sixth of the time of four frames of ViT-L/14.
        whole = torch.empty_like(rows, dtype=torch.int8)
        parts = zip(rows.split(_PIECE), (_MOST / most).split(_PIECE), whole.split(_PIECE), strict=True)
        for part, scale, place in parts:
            place.copy_((part * scale).round_())
        sums = torch._int_mm(whole, self.weight.t())
        y = sums.view(torch.float32).copy_(sums)
        y.mul_(most / _MOST).mul_(self.scale).add_(self.bias)
        return y.unflatten(0, x.shape[:-1])


def quantise_linear_layers(module: nn.Module) -> None:
    """Replace every ``nn.Linear`` inside ``module``, one after the other, so that both forms of only one are held."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise_linear_layers(child)
