"""What the ``config.json`` of a CLIP vision folder says: the sizes of a visual encoder. torch is not needed to read it.

Letters: B batch, T frames, P patches of a frame, S side of a frame in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import WeightsError


@dataclass(frozen=True)
class VisualEncoderConfig:
    """Sizes of the encoder. The defaults are CLIP ViT-L/14: 256 patches + class token, 1024 wide."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    patch_size: int = 14
    """Side of a patch in pixels; also the stride."""
    image_size: int = 224
    """Side of a frame in pixels."""
    activation: str = "quick_gelu"
    """``quick_gelu`` (OpenAI's CLIP) or ``gelu``."""
    norm_eps: float = 1e-5
    final_norm: bool = False
    """Layer norm on all tokens of the result, not only on a pooled one."""
    local_temporal: bool = False
    """Temporal convolutions between frames; the input is then [B, T, 3, S, S]."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise WeightsError(f"visual encoder: width {self.width} is not a multiple of heads {self.heads}")
        if self.local_temporal and self.width % 2:
            raise WeightsError(f"visual encoder: local_temporal needs an even width, got {self.width}")
        if not 0 < self.patch_size <= self.image_size:
            raise WeightsError(
                f"visual encoder: patch_size {self.patch_size} does not fit image_size {self.image_size}"
            )
        if self.activation not in ("quick_gelu", "gelu"):
            raise WeightsError(f"visual encoder: activation {self.activation!r} is neither quick_gelu nor gelu")

    @property
    def patches(self) -> int:
        """P: patches of a frame, without the class token."""
        return (self.image_size // self.patch_size) ** 2

    def as_clip_vision_config(self) -> dict[str, Any]:
        """The keys of transformers' ``CLIPVisionConfig``, and our two options beside them."""
        return {
            "model_type": "clip_vision_model",
            "architectures": ["CLIPVisionModel"],
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.mlp_width,
            "patch_size": self.patch_size,
            "image_size": self.image_size,
            "num_channels": 3,
            "hidden_act": self.activation,
            "layer_norm_eps": self.norm_eps,
            "attention_dropout": 0.0,
            "projection_dim": self.width,
            "final_norm": self.final_norm,
            "local_temporal": self.local_temporal,
        }

    @classmethod
    def from_clip_vision_config(cls, values: dict[str, Any], file: Path | str) -> VisualEncoderConfig:
        """From a CLIP vision ``config.json``, or from that of a whole CLIP (its ``vision_config``)."""
        values = values.get("vision_config", values)
        # Released CLIP configurations leave out what equals transformers' defaults (those of ViT-B/32).
        if values.get("num_channels", 3) != 3:
            raise WeightsError(f"{file}: num_channels is {values['num_channels']}, only 3 (RGB) is supported")
        try:
            return cls(
                width=int(values.get("hidden_size", 768)),
                layers=int(values.get("num_hidden_layers", 12)),
                heads=int(values.get("num_attention_heads", 12)),
                mlp_width=int(values.get("intermediate_size", 3072)),
                patch_size=int(values.get("patch_size", 32)),
                image_size=int(values.get("image_size", 224)),
                activation=str(values.get("hidden_act", "quick_gelu")),
                norm_eps=float(values.get("layer_norm_eps", 1e-5)),
                final_norm=bool(values.get("final_norm", False)),
                local_temporal=bool(values.get("local_temporal", False)),
            )
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{file}: a size is not a number ({error})") from error
