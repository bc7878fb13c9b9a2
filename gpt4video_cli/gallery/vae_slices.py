"""How many frames a VAE decodes at a time: as many as there is memory for.

For VAEs of single pictures, and for Wan's where each latent is one frame. Others decode in steps of their own.

B clips (1), C channels, T frames, H height, W width; h, w the same in latents.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gpt4video_cli.model.free_memory import find_devices

if TYPE_CHECKING:
    from torch import Tensor

MOST = 16
"""Frames; as many as diffusers' AnimateDiffPipeline takes. More are no faster."""
PICTURES = 10
"""Activations of the second finest level's width at full size that one frame needs at its peak. Measured on a CPU with
Stable Diffusion's VAE at half and full width: 4 for each frame and 3 to 9 in all; the rest is for a GPU's gaps."""


def frames_at_once(vae: Any, height: int, width: int, free: int) -> int:
    """How many frames of ``height`` x ``width`` pixels ``free`` bytes are enough for, from 1 to ``MOST``."""
    if vae.use_tiling:  # a larger frame is decoded as tiles, each in its turn
        height, width = min(height, vae.tile_sample_min_size), min(width, vae.tile_sample_min_size)
    channels = vae.config.block_out_channels[:2][-1]
    frame = PICTURES * height * width * channels * vae.dtype.itemsize
    return max(1, min(MOST, free // frame))


def decode_frames(vae: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """``latents`` [B, C, T, h, w] -> float32 [B, 3, T, H, W] in -1..1; all frames at once if slicing is off."""
    import torch

    flat = latents.permute(0, 2, 1, 3, 4).flatten(0, 1) / vae.config.scaling_factor
    count = len(flat)
    if vae.use_slicing:
        count = frames_at_once(vae, height, width, _usable(latents.device))
    with _unsliced(vae):
        pictures = torch.cat([vae.decode(part).sample for part in flat.split(count)])
    return pictures.unflatten(0, (len(latents), -1)).permute(0, 2, 1, 3, 4).float()


def takes_any_number(vae: Any, height: int, width: int) -> bool:
    """Whether Wan's ``vae`` may decode several frames in one go: nothing is upsampled in time, nothing is tiled."""
    tiled = vae.use_tiling and (height > vae.tile_sample_min_height or width > vae.tile_sample_min_width)
    return not (tiled or any(vae.config.temperal_downsample))


def decode_volumes(vae: Any, latents: Tensor, height: int, width: int) -> Tensor:
    """Denormalised ``latents`` [B, C, T, h, w] -> [B, 3, T, H, W] in -1..1, as ``vae.decode`` does frame by frame.

    The features that it hands from one frame to the next are handed from one slice to the next.
    """
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    if (offloading := getattr(vae, "_hf_hook", None)) is not None:
        offloading.pre_forward(vae)  # as ``vae.decode`` does, which is not called here: its weights come to the device
    config = vae.config
    channels = (config.decoder_base_dim or config.base_dim) * config.dim_mult[:2][-1]
    # Three frames lie side by side before a convolution.
    frame = 3 * PICTURES * height * width * channels * vae.dtype.itemsize // (config.patch_size or 1) ** 2
    at_once = latents.shape[2]
    if vae.use_slicing:
        at_once = max(1, min(MOST, _usable(latents.device) // frame))
    vae.clear_cache()
    parts: list[Tensor] = []
    for part in vae.post_quant_conv(latents).split(at_once, dim=2):
        vae._conv_idx = [0]
        state = {"feat_cache": vae._feat_map, "feat_idx": vae._conv_idx, "first_chunk": not parts}
        parts.append(vae.decoder(part, **state))
    vae.clear_cache()
    video = torch.cat(parts, dim=2)
    if config.patch_size is not None:
        video = unpatchify(video, patch_size=config.patch_size)
    return video.clamp(-1, 1)


def _usable(device: Any) -> int:
    """Bytes that are free on ``device``; on "meta" nothing takes any."""
    if device.type == "meta":
        return sys.maxsize
    return find_devices(f"cuda:{device.index or 0}" if device.type == "cuda" else device.type)[0].usable


@contextmanager
def _unsliced(vae: Any) -> Iterator[None]:
    """diffusers' slices are single frames."""
    sliced = vae.use_slicing
    vae.disable_slicing()
    try:
        yield
    finally:
        if sliced:
            vae.enable_slicing()
