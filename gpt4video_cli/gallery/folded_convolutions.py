"""Wan's VAE on a CPU: convolutions over time and space as convolutions of pictures, with the same numbers.

torch's convolution of volumes is slow on a CPU, so the frames that a kernel sees lie side by side as channels. It pays
most with ``vae_slices``, which gives a convolution several frames together (``benchmarks/generation.py``, bundle).

B clips, C channels in, O out, T frames, H height, W width, k the kernel's length in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fold_convolutions(vae: Any) -> int:
    """Let the causal convolutions of ``vae`` (diffusers' ``AutoencoderKLWan``) work so; how many there were.

    Their weights lie in another order in memory afterwards and keep their values and shapes.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    found = [
        module
        for module in vae.modules()
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] > 1 and module.stride == (1, 1, 1)
    ]
    for module in found:
        module.forward = _folded(module)
    return len(found)


def _folded(module: Any) -> Callable[..., Tensor]:
    import torch
    from torch.nn.functional import conv2d, pad

    width, _, height, _, before, _ = module._padding  # frames are added before the first only
    reach = module.kernel_size[0]
    flat = module.weight.detach().transpose(1, 2).flatten(1, 2)  # [O, k*C, 3, 3]
    module.weight.data = flat.unflatten(1, (reach, -1)).transpose(1, 2)  # the same memory

    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        """[B, C, T, H, W] -> [B, O, T, H, W]; ``cache_x`` [B, C, 1 or 2, H, W]: the frames before."""
        missing = before
        if cache_x is not None:
            x = torch.cat([cache_x.to(x.device), x], dim=2)
            missing -= cache_x.shape[2]
        x = pad(x, (0, 0, 0, 0, missing, 0)).transpose(1, 2)  # [B, k-1+T, C, H, W]
        frames = x.shape[1] - reach + 1
        side_by_side = torch.cat([x[:, i : i + frames] for i in range(reach)], dim=2).flatten(0, 1)
        out = conv2d(side_by_side, flat, module.bias, padding=(height, width))
        return out.unflatten(0, (-1, frames)).transpose(1, 2)

    return forward
