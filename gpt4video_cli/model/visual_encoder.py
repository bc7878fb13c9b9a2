"""Frames to patch features: the Vision Transformer of CLIP, in plain torch so that it starts without transformers.

The layout is that of a Hugging Face CLIP vision folder (config.json, model.safetensors), so that other tools can open
what is saved here. Two options go beyond it: ``final_norm`` puts the last layer norm on all tokens (CLIP itself uses it
for the pooled class token only), and ``local_temporal`` adds the temporal convolution of mPLUG-Owl-video before each
layer (X-PLUG/mPLUG-Owl, mplug_owl_video).

Letters: B batch, T frames, P patches of a frame, D width (``D_v``), S side of a frame in pixels.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.model.model_sizes import VISION_INT8
from gpt4video_cli.model.strict_load import (
    Unfilled,
    choose_device,
    choose_dtype,
    load_strict,
    read_json,
    read_sharded_safetensors,
    write_safetensors,
)
from gpt4video_cli.model.tensor_headers import VISION_PREFIX, name_in_encoder
from gpt4video_cli.model.visual_encoder_config import VisualEncoderConfig as VisualEncoderConfig
from gpt4video_cli.whole_file import write_whole

_TEMPORAL_NORM_EPS = 1e-5  # the reference leaves torch's default here, whatever the configuration says


class VisualEncoder(nn.Module):
    """Frames to patch features. Parameters bear the names of a Hugging Face CLIP vision model."""

    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=config.norm_eps)  # CLIP's own spelling
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_Layer(config) for _ in range(config.layers))})
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self._initialise()

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: float, normalised as CLIP expects, [B, 3, S, S] or [B, T, 3, S, S].

        Returns features of the same leading shape: [B, 1+P, D] or [B, T, 1+P, D], class token first. With
        ``local_temporal`` the frames of one clip see each other, so only [B, T, 3, S, S] is taken.
        """
        size = self.config.image_size
        if pixels.ndim not in (4, 5) or tuple(pixels.shape[-3:]) != (3, size, size):
            raise ValueError(f"frames have shape {list(pixels.shape)}, expected [..., 3, {size}, {size}]")
        if self.config.local_temporal and pixels.ndim == 4:
            raise ValueError("an encoder with local_temporal needs clips, [B, T, 3, S, S], not loose frames")
        leading = pixels.shape[:-3]
        frames = leading[-1] if pixels.ndim == 5 else 1
        x = self.embeddings(pixels.flatten(0, -4))  # [B*T, 1+P, D]
        x = self.pre_layrnorm(x)
        for layer in cast(nn.ModuleList, self.encoder["layers"]):
            x = layer(x, frames)
        if self.config.final_norm:
            x = self.post_layernorm(x)
        return x.unflatten(0, leading)

    def _initialise(self) -> None:
        """Start values for training from nothing, as in CLIP (Radford et al. 2021): deeper nets, smaller steps."""
        config = self.config
        residual = config.width**-0.5 * (2 * config.layers) ** -0.5
        nn.init.normal_(self.embeddings.class_embedding, std=config.width**-0.5)
        nn.init.normal_(self.embeddings.patch_embedding.weight, std=0.02)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)
        for name, module in self.encoder.named_modules():
            if isinstance(module, nn.Linear):
                closes_residual = name.endswith(("out_proj", "fc2"))
                nn.init.normal_(module.weight, std=residual if closes_residual else config.width**-0.5)
                nn.init.zeros_(module.bias)
        for name, module in self.encoder.named_modules():
            if name.endswith("temporal.up_proj"):  # the convolution starts as "no change", as in the reference
                nn.init.zeros_(module.weight)


class _Embeddings(nn.Module):
    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size, bias=False)
        self.position_embedding = nn.Embedding(1 + config.patches, config.width)

    def forward(self, pixels: Tensor) -> Tensor:  # [B, 3, S, S] -> [B, 1+P, D]
        patches = self.patch_embedding(pixels.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class _Layer(nn.Module):
    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.temporal = _LocalTemporal(config.width) if config.local_temporal else None
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attn = _SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _Mlp(config)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # [B*T, 1+P, D], T frames each
        if self.temporal is not None and frames > 1:  # the reference skips it for a single frame
            x = x + self.temporal(x, frames)
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _SelfAttention(nn.Module):
    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:  # [B*T, 1+P, D]
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, config: VisualEncoderConfig) -> None:
        super().__init__()
        self.quick = config.activation == "quick_gelu"
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(_quick_gelu(x) if self.quick else F.gelu(x))


class _LocalTemporal(nn.Module):
    """Each patch position looks at its neighbours in the frames before and after (depthwise, three taps).

    As in mPLUG-Owl-video: the class token passes through unchanged, so that adding the result doubles it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_TEMPORAL_NORM_EPS)
        self.down_proj = nn.Linear(width, width // 2)
        self.taps = nn.Parameter(torch.zeros(3, width // 2))  # frame before, this frame, frame after
        self.taps_bias = nn.Parameter(torch.zeros(width // 2))
        self.up_proj = nn.Linear(width // 2, width)
        nn.init.normal_(self.taps, std=3**-0.5)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # [B*T, 1+P, D]
        first, patches = x[:, :1], x[:, 1:]
        y = self.down_proj(self.norm(patches)).unflatten(0, (-1, frames))  # [B, T, P, D/2]
        y = F.pad(y, (0, 0, 0, 0, 1, 1))  # a frame of zeros at both ends
        y = y[:, :-2] * self.taps[0] + y[:, 1:-1] * self.taps[1] + y[:, 2:] * self.taps[2] + self.taps_bias
        return torch.cat([first, self.up_proj(_quick_gelu(y)).flatten(0, 1)], dim=1)


def _quick_gelu(x: Tensor) -> Tensor:
    """The approximation that OpenAI's CLIP was trained with: x * sigmoid(1.702 x)."""
    gate = 1.702 * x
    if gate.requires_grad:
        return x * torch.sigmoid(gate)
    # The same numbers in one new tensor and not three, 17 MB each for 4 frames of ViT-L/14 on a CPU.
    return gate.sigmoid_().mul_(x)


def save_visual_encoder(encoder: VisualEncoder, folder: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` so that ``transformers.CLIPVisionModel`` opens them.

    The weights of ``local_temporal`` are unknown there: it names them as unexpected and computes without them.
    """
    folder = Path(folder)
    tensors = {VISION_PREFIX + name: value for name, value in encoder.state_dict().items()}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_whole(folder / "config.json", json.dumps(encoder.config.as_clip_vision_config(), indent=2) + "\n")


def load_visual_encoder(
    folder: str | Path,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    final_norm: bool | None = None,
) -> VisualEncoder:
    """A CLIP vision folder, or the folder of a whole CLIP, whose text tower is left on disk. In eval mode.

    ``final_norm`` overrides what ``config.json`` says (a Hugging Face folder says nothing, which means off). ``dtype``
    "int8": 8 bits in the layers' linear maps and float32 elsewhere, see ``int8_linear.py``.
    """
    folder = Path(folder)
    config = VisualEncoderConfig.from_clip_vision_config(read_json(folder / "config.json"), folder / "config.json")
    if final_norm is not None:
        config = replace(config, final_norm=final_norm)
    place = choose_device(device)
    kind = choose_dtype("float32" if dtype == VISION_INT8 else dtype, place)
    with Unfilled():
        encoder = VisualEncoder(config)
    tensors, file = read_sharded_safetensors(folder, device=place, dtype=kind, rename=name_in_encoder)
    load_strict(encoder, tensors, file)
    if dtype == VISION_INT8:
        from gpt4video_cli.model.int8_linear import quantise_linear_layers

        quantise_linear_layers(encoder)
    return encoder.eval().requires_grad_(False)
