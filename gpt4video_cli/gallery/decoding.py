"""Latents -> frames, as each pipeline of diffusers 0.42 does at its own end, and a look at what came out.

The pipelines denoise with ``output_type="latent"`` and are decoded here, so that the latents can be kept on disk first.
A class without a decoder here runs whole and cannot be resumed. Text2Video-Zero is one on purpose: its end also runs
the safety checker that comes with its weights.

B clips, C channels, T frames, H height, W width; t, h, w the same in latents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import GenerationError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.vae_slices import decode_frames, decode_volumes, takes_any_number

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FLAT = 3
"""Of 255. A frame whose brightest and darkest value differ by less in every channel shows nothing."""


def _by_frames(pipe: Any, latents: Tensor, request: FilmRequest) -> Tensor:
    """Pipelines with a VAE of single pictures: ZeroScope's and ModelScope's classes, AnimateDiff."""
    return decode_frames(pipe.vae, latents.to(pipe.vae.dtype), int(request.height or 0), int(request.width or 0))


def _cogvideox(pipe: Any, latents: Tensor, request: FilmRequest) -> Tensor:
    """CogVideoX 1.5 filmed whole latent patches of two frames in time: what was padded comes first and is dropped."""
    patch = getattr(getattr(getattr(pipe, "transformer", None), "config", None), "patch_size_t", None)
    if patch is not None:
        wanted = (int(request.frames or 1) - 1) // pipe.vae_scale_factor_temporal + 1
        latents = latents[:, latents.shape[1] - wanted :]
    video: Tensor = pipe.decode_latents(latents.to(pipe.vae.dtype))
    return video


def _wan(pipe: Any, latents: Tensor, request: FilmRequest) -> Tensor:
    """Latents were normalised to mean 0 and deviation 1 for each channel."""
    import torch

    config = pipe.vae.config
    mean, deviation = (
        torch.tensor(values).view(1, config.z_dim, 1, 1, 1).to(latents.device, pipe.vae.dtype)
        for values in (config.latents_mean, config.latents_std)
    )
    latents = latents.to(pipe.vae.dtype) / (1.0 / deviation) + mean
    size = int(request.height or 0), int(request.width or 0)
    if takes_any_number(pipe.vae, *size):
        return decode_volumes(pipe.vae, latents, *size)
    video: Tensor = pipe.vae.decode(latents, return_dict=False)[0]
    return video


def _hunyuan(pipe: Any, latents: Tensor, request: FilmRequest) -> Tensor:
    scaled = latents.to(pipe.vae.dtype) / pipe.vae.config.scaling_factor
    video: Tensor = pipe.vae.decode(scaled, return_dict=False)[0]
    return video


def _ltx(pipe: Any, latents: Tensor, request: FilmRequest) -> Tensor:
    """Latents come as a sequence [B, t*h*w, C]; the newer VAEs do the last denoising step and want noise for it.

    That noise comes from a generator of its own, so that a resumed run draws the same.
    """
    import torch
    from diffusers.utils.torch_utils import randn_tensor

    shape = (
        (int(request.frames or 1) - 1) // pipe.vae_temporal_compression_ratio + 1,
        int(request.height or 0) // pipe.vae_spatial_compression_ratio,
        int(request.width or 0) // pipe.vae_spatial_compression_ratio,
    )
    latents = pipe._unpack_latents(
        latents, *shape, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
    )
    vae = pipe.vae
    latents = pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    time = None
    if vae.config.timestep_conditioning:
        # 0.05 and 0.025: recommended by diffusers' page about LTX-Video for 0.9.1 and later.
        noise = randn_tensor(latents.shape, torch.Generator().manual_seed(request.seed), latents.device, latents.dtype)
        latents = 0.975 * latents + 0.025 * noise
        time = torch.tensor([0.05] * len(latents), device=latents.device, dtype=vae.dtype)
    video: Tensor = vae.decode(latents.to(vae.dtype), time, return_dict=False)[0]
    return video


DECODERS: dict[str, Callable[[Any, Tensor, FilmRequest], Tensor]] = {
    "TextToVideoSDPipeline": _by_frames,
    "VideoToVideoSDPipeline": _by_frames,
    "AnimateDiffPipeline": _by_frames,
    "CogVideoXPipeline": _cogvideox,
    "WanPipeline": _wan,
    "HunyuanVideoPipeline": _hunyuan,
    "LTXPipeline": _ltx,
}


def decode(pipe: Any, latents: Tensor, request: FilmRequest) -> np.ndarray:
    """``latents`` of one clip as its pipeline gave them -> float frames [T, H, W, 3] in 0..1, not finite where it went
    wrong. Leaves the pipeline's parts where offloading wants them."""
    import torch

    # Contiguous, as they are when they come from a file: in another layout the last bit of a picture may differ.
    latents = latents.to(pipe._execution_device).contiguous()
    with torch.no_grad():
        video = DECODERS[type(pipe).__name__](pipe, latents, request)
        pipe.maybe_free_model_hooks()
        # -1..1 -> 0..1, as VideoProcessor.postprocess_video does it; float32 because numpy knows no bfloat16.
        picture = (video[0].float() * 0.5 + 0.5).clamp(0, 1)
        frames: np.ndarray = picture.permute(1, 2, 3, 0).cpu().numpy()  # [3, T, H, W] -> [T, H, W, 3]
        return frames


def to_pictures(frames: np.ndarray, request: FilmRequest, name: str) -> np.ndarray:
    """Float frames [T, H, W, 3] in 0..1 -> uint8 0-255, after a look at them.

    Raises ``GenerationError`` for values that are not numbers, for frames that show nothing, all of them, and for
    another number or size of frames than was asked for.
    """
    import numpy as np

    wanted = (request.frames, request.height, request.width, 3)
    if frames.shape != wanted:
        raise GenerationError(f"{name} filmed {_size(frames.shape)} where {_size(wanted)} were asked for")
    if not np.isfinite(frames).all():
        raise GenerationError(f"{name} filmed values that are not numbers", hint="--dtype float32 or bfloat16 may help")
    pictures: np.ndarray = (frames * 255).round().astype(np.uint8)
    spread = pictures.max(axis=(1, 2)).astype(int) - pictures.min(axis=(1, 2))
    if spread.max() < FLAT:
        shown = "black" if pictures.max() < FLAT else "flat"
        raise GenerationError(
            f"{name} filmed {shown} frames only; no file was written", hint="another --seed or more --steps may help"
        )
    return pictures


def _size(shape: tuple[Any, ...]) -> str:
    frames, height, width, _ = shape
    return f"{frames} frames of {width}x{height}"
