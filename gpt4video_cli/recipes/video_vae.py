"""Train the bundle's video VAE: diffusers' AutoencoderKLWan, kept from looking across frames.

Its causal convolutions see a single frame as the last tap of their kernels and zeros before it. Trained on single
frames, with the other taps set to zero, it treats each frame of a clip alone: as cheap to train as an image VAE, and a
clip's latents played backwards are those of the clip played backwards.

Letters: B batch, F frames, S side in pixels, C latent channels, s = S / 8.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.training.loop import LoopOptions

LATENT_CHANNELS = 6
"""C. Textures needed 16, which the transformer did not learn to fill; plain backgrounds need fewer."""
KL_WEIGHT = 1e-5
OBJECT_WEIGHT = 15.0
"""Extra weight in the loss of pixels that are coloured and differ from their frame's most frequent colour: objects are
small, and textures are gray. With 6, after 2,400 steps, 11 % of the shapes could not be told, small ones mostly."""


def new_video_vae(seed: int = 0) -> Any:
    """An ``AutoencoderKLWan`` with random weights: 8 x 8 pixels a latent, no compression in time.

    What made it learn, by the loss after 75 steps of 32 frames (0.61 with the class's own initial values): three times
    larger weights, because only one of three taps in time is used, and latents that start with little noise (0.33);
    Wan 2.2's shortcuts around each level (0.26).
    """
    from diffusers import AutoencoderKLWan
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=24,
        decoder_base_dim=40,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, False],
        is_residual=True,
        # Wan 2.2's way in: 2 x 2 pixels become channels, which saves the costly first level.
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=1,
        scale_factor_spatial=8,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, WanCausalConv3d) and module.kernel_size[0] == 3:
                module.weight.mul_(3)
        vae.quant_conv.bias[LATENT_CHANNELS:] -= 6  # log variance
    return vae


def look_at_single_frames(vae: Any) -> None:
    """Let every causal convolution of ``vae`` work in two dimensions, a third of the work, until it is loaded anew."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    def forward(conv: Any, x: Tensor, cache: object = None) -> Tensor:
        pad = conv.kernel_size[1] // 2
        return F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, conv.stride[1:], pad)[:, :, None]

    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.forward = partial(forward, module)


def forget_earlier_frames(vae: Any) -> None:
    """Set to zero what the causal convolutions' kernels have for earlier frames."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, WanCausalConv3d):
                module.weight[:, :, :-1] = 0


def _moments(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance ``[B, C, 1, s, s]`` of the latents of ``pixels``, -1 to 1 ``[B, 3, 1, S, S]``."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

    mean, logvar = vae.quant_conv(vae.encoder(patchify(pixels, vae.config.patch_size))).chunk(2, dim=1)
    return mean, logvar.clamp(-20, 10)


def _reconstruct(vae: Any, latents: Tensor) -> Tensor:
    """Pixels, not clamped; the counterpart of ``_moments``."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    pixels: Tensor = unpatchify(vae.decoder(vae.post_quant_conv(latents)), vae.config.patch_size)
    return pixels


def as_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """uint8 ``[B, S, S, 3]`` -> float ``[B, 3, 1, S, S]`` from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1


def object_weights(frames: NDArray[np.uint8]) -> Tensor:
    """``[B, 1, 1, S, S]``: 1 on backgrounds and textures, up to 1 + ``OBJECT_WEIGHT`` on objects and at their rims."""
    values = frames.astype(np.int16)
    median = np.median(values.reshape(len(frames), -1, 3), axis=1)[:, None, None]
    apart = np.clip(np.abs(values - median).max(axis=-1) / 60, 0, 1)
    coloured = np.clip((values.max(axis=-1) - values.min(axis=-1)) / 60, 0, 1)
    objects = torch.from_numpy(apart * coloured).float()[:, None]
    rims = F.max_pool2d(objects, 5, stride=1, padding=2)  # where an object ends is what tells its shape
    return (1 + OBJECT_WEIGHT * rims)[:, :, None]


def train_video_vae(
    vae: Any, frames: NDArray[np.uint8], options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """Train ``vae`` in place on ``frames`` uint8 ``[n, F, S, S, 3]``."""
    look_at_single_frames(vae)
    trained = [(name, p) for name, p in vae.named_parameters() if "time_conv" not in name]
    noise = torch.Generator()

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"{seed}/{step}")
        noise.manual_seed(step)
        clips = [rng.randrange(len(frames)) for _ in range(batch_size)]
        batch = np.stack([frames[i, rng.randrange(frames.shape[1])] for i in clips])
        pixels, weights = as_pixels(batch), object_weights(batch)
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = _moments(vae, pixels)
            drawn = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=noise)
            difference = _reconstruct(vae, drawn).float() - pixels
        error = (weights * (difference.square() + 0.5 * difference.abs())).sum() / weights.sum() / 3
        kl = 0.5 * (mean.float().square() + logvar.float().exp() - 1 - logvar.float()).sum(dim=(1, 2, 3, 4)).mean()
        return error + KL_WEIGHT * kl

    train_loop(trained, loss_of, options, folder=folder, name="video_vae")
    forget_earlier_frames(vae)


@torch.no_grad()
def encode_clips(vae: Any, frames: NDArray[np.uint8], batch_size: int = 32) -> Tensor:
    """Means of the latents of ``frames`` uint8 ``[n, F, S, S, 3]``: float16 ``[n, C, F, s, s]``, not normalised."""
    look_at_single_frames(vae)
    parts = []
    for start in range(0, len(frames), batch_size):
        clips = np.asarray(frames[start : start + batch_size])
        mean = _moments(vae, as_pixels(clips.reshape(-1, *clips.shape[2:])))[0][:, :, 0]
        parts.append(mean.unflatten(0, clips.shape[:2]).transpose(1, 2).half().contiguous())
    return torch.cat(parts)


def set_latent_statistics(vae: Any, latents: Tensor) -> None:
    """Write mean and deviation of each channel of ``latents [n, C, F, s, s]`` into the configuration of ``vae``."""
    values = latents.float().transpose(0, 1).flatten(1)
    vae.register_to_config(latents_mean=values.mean(1).tolist(), latents_std=values.std(1).tolist())


@torch.no_grad()
def peak_signal_to_noise(vae: Any, frames: NDArray[np.uint8]) -> float:
    """Decibels over ``frames`` uint8 ``[n, F, S, S, 3]``, through the class's own ``encode`` and ``decode``.

    The class encodes one frame and then four at a time and leaves out the rest, so only so many count.
    """
    frames = frames[:, : (frames.shape[1] - 1) // 4 * 4 + 1]
    clips = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    again = vae.decode(vae.encode(clips).latent_dist.mode()).sample
    error = (again.clamp(-1, 1) - clips).square().mean().item() / 4
    return float(-10 * np.log10(error))
