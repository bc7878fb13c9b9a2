"""Patch features to video embeddings: learned queries that condense a clip into N tokens for the language model.

Equations (2)-(4) of GPT4Video (arXiv 2311.16511, section 3.2):
    F_s = CrossAttention(Q_s, [F_v; Q_s], [F_v; Q_s])
    F_t = CrossAttention(Q_t, [F_v; Q_t], [F_v; Q_t])
    F_video = W (F_s + F_t) + b
and the abstractor of mPLUG-Owl-video (X-PLUG/mPLUG-Owl), on which the authors built, are the same code with other
switches. As in that reference, a layer's residual path starts from the *normed* queries.

Letters: B batch, T frames, P patches, N queries of one kind (= video tokens), D width of the features (``D_v``),
M = T * (1+P) features of a clip, H heads, G groups of queries (1 joint, or 2: spatial and temporal).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.model.abstractor_config import FORMAT as FORMAT
from gpt4video_cli.model.abstractor_config import FORMAT_VERSION as FORMAT_VERSION
from gpt4video_cli.model.abstractor_config import AbstractorConfig as AbstractorConfig
from gpt4video_cli.model.abstractor_config import read_abstractor_config
from gpt4video_cli.model.strict_load import (
    Unfilled,
    choose_device,
    choose_dtype,
    load_strict,
    read_safetensors,
    write_safetensors,
)
from gpt4video_kernels.cross_attention import cross_attention


class Abstractor(nn.Module):
    """Features of a clip to N (+1) embeddings of the language model's width."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        self.config = config
        self.spatial_queries = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        self.temporal_queries = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        if config.frame_positions:
            self.frame_positions = nn.Parameter(_waves(config.frame_positions, config.width))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        if config.shared_projection:
            self.projection = nn.Linear(config.width, config.output_width)
        else:
            self.spatial_projection = nn.Linear(config.width, config.output_width)
            self.temporal_projection = nn.Linear(config.width, config.output_width)
        if config.end_token:
            self.end_token = nn.Parameter(torch.randn(config.output_width) * 0.02)

    def forward(self, features: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        """features [B, T, 1+P, D] float, class token first -> [B, N (+1), D_llm], same dtype as the weights.

        frame_mask: bool [B, T], False for frames that only pad a shorter clip (at least one True in each row); the
        result for a padded clip equals that for the clip alone. With ``frame_positions`` a frame's position is its
        place in the clip as a fraction, i.e. T frames spread evenly over the learned positions (interpolated unless T
        equals their number), because sampling takes the middles of T equal parts of the clip.
        """
        if features.ndim != 4 or features.shape[-1] != self.config.width:
            raise ValueError(f"features have shape {list(features.shape)}, expected [B, T, 1+P, {self.config.width}]")
        features = self.with_frame_positions(features.to(self.spatial_queries.dtype), frame_mask)
        keys_values = self.feature_keys_values(features.flatten(1, 2))  # of all layers: independent of the queries
        spatial, temporal = self.attend(keys_values, features.shape[2], frame_mask)
        return self.project(spatial, temporal, _counts(features, frame_mask))

    def with_frame_positions(self, features: Tensor, frame_mask: Tensor | None) -> Tensor:
        """[B, T, 1+P, D] -> the same, each frame marked with its position in time."""
        if not self.config.frame_positions:
            return features
        last = self.config.frame_positions - 1
        # float32 by name: another thread that loads a model may have changed torch's default
        number = torch.arange(features.shape[1], dtype=torch.float32, device=features.device)[None]  # [1, T]
        if frame_mask is not None:
            number = frame_mask.cumsum(dim=1).float() - 1  # [B, T]: number among the real frames of a clip
        count = _counts(features, frame_mask)[:, None]
        place = ((number + 0.5) / count * (last + 1) - 0.5).clamp(0, last)  # [B, T] in units of learned positions
        below = place.floor().long()
        share = (place - below).to(features.dtype)[..., None]
        table = self.frame_positions
        position = torch.lerp(table[below], table[(below + 1).clamp(max=last)], share)  # [B, T, D]
        return features + position[:, :, None]

    def feature_keys_values(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[B, M, D] -> for each layer the keys and values [B, H, M, d] of the visual features."""
        return [layer.feature_keys_values(features) for layer in self.layers]  # type: ignore[operator]

    def attend(
        self, keys_values: list[tuple[Tensor, Tensor]], tokens_per_frame: int, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Equations (2) and (3), all layers: F_s and F_t, each [B, N, D]."""
        batch, _, features, _ = keys_values[0][0].shape
        frames = features // tokens_per_frame
        spatial = self.spatial_queries.expand(batch, -1, -1)
        temporal = self.temporal_queries.expand(batch, -1, -1)
        seen = None if frame_mask is None else frame_mask.repeat_interleave(tokens_per_frame, dim=1)  # [B, M]
        if not self.config.joint_queries:
            return self._run(spatial, keys_values, seen), self._run(temporal, keys_values, seen)
        if self.config.single_frame_skips_temporal and (frames == 1 or frame_mask is not None):
            # Clips of one frame inside a batch of longer ones: their spatial queries must not see temporal ones.
            seen = seen if seen is not None else torch.ones(batch, features, dtype=torch.bool, device=spatial.device)
            several = (seen.sum(dim=1) > tokens_per_frame)[:, None].expand(-1, self.config.queries)
            seen = torch.cat([seen, torch.ones_like(several), several], dim=1)
        both = self._run(torch.cat([spatial, temporal], dim=1), keys_values, seen)
        return both[:, : self.config.queries], both[:, self.config.queries :]

    def _run(self, queries: Tensor, keys_values: list[tuple[Tensor, Tensor]], seen: Tensor | None) -> Tensor:
        """One group of queries [B, Q, D] through all layers. seen: bool [B, M] or [B, M + Q]."""
        if seen is not None and seen.shape[1] == keys_values[0][0].shape[2]:
            seen = torch.cat([seen, seen.new_ones(queries.shape[:2])], dim=1)
        for layer, (keys, values) in zip(self.layers, keys_values, strict=True):
            queries = layer(queries, keys, values, seen)
        return queries

    def project(self, spatial: Tensor, temporal: Tensor, count: Tensor) -> Tensor:
        """Equation (4) and the map to the language model: F_s, F_t [B, N, D] -> [B, N (+1), D_llm].

        count: number of real frames of each clip, [B] or [1].
        """
        keep: Tensor | float = 1.0
        if self.config.single_frame_skips_temporal:
            keep = (count > 1).to(spatial.dtype)[:, None, None]
        if self.config.shared_projection:
            tokens = self.projection(spatial + keep * temporal)
        else:
            tokens = self.spatial_projection(spatial) + keep * self.temporal_projection(temporal)
        if not self.config.end_token:
            return tokens
        return torch.cat([tokens, self.end_token.expand(tokens.shape[0], 1, -1)], dim=1)


class _Layer(nn.Module):
    """Norm on queries and features, attention over [features; queries], residual, SwiGLU MLP with an inner norm."""

    def __init__(self, config: AbstractorConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_queries = nn.LayerNorm(width, eps=config.norm_eps)
        self.norm_features = nn.LayerNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=config.norm_eps)
        self.gate = nn.Linear(width, config.mlp_width)
        self.up = nn.Linear(width, config.mlp_width)
        self.inner_norm = nn.LayerNorm(config.mlp_width, eps=config.inner_norm_eps)
        self.down = nn.Linear(config.mlp_width, width)

    def feature_keys_values(self, features: Tensor) -> tuple[Tensor, Tensor]:  # [B, M, D] -> 2 x [B, H, M, d]
        features = self.norm_features(features)
        return self._split(self.key(features)), self._split(self.value(features))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:  # [B, Q, D]
        x = self.norm_queries(queries)
        own_keys, own_values = self._split(self.key(x)), self._split(self.value(x))
        looked = cross_attention(self._split(self.query(x)), keys, values, own_keys, own_values, seen)
        x = x + self.out(looked.transpose(1, 2).flatten(2))
        y = self.norm_mlp(x)
        return x + self.down(self.inner_norm(F.silu(self.gate(y)) * self.up(y)))

    def _split(self, x: Tensor) -> Tensor:  # [B, n, D] -> [B, H, n, d]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _counts(features: Tensor, frame_mask: Tensor | None) -> Tensor:
    """Number of real frames: [1] if all clips have T, else [B]."""
    if frame_mask is None:
        return torch.full((1,), features.shape[1], device=features.device)
    return frame_mask.sum(dim=1)


def _waves(positions: int, width: int) -> Tensor:
    """Start values of the frame positions: the sines of Vaswani et al. 2017, here with periods of 6 to 600 frames
    (they have 10,000 positions, we have a few), so that neighbours start alike and first and last apart."""
    half = (width + 1) // 2
    rate = torch.exp(-math.log(100.0) * torch.arange(half) / half)
    angle = torch.arange(positions)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width].contiguous()


def save_abstractor(abstractor: Abstractor, path: str | Path) -> None:
    """One safetensors file; format version and configuration stand in its metadata, as JSON under one name.

    (Under several names the file's bytes would differ from run to run: safetensors does not sort them.)
    """
    header = {"format_version": FORMAT_VERSION, "config": asdict(abstractor.config)}
    write_safetensors(Path(path), abstractor.state_dict(), {FORMAT: json.dumps(header, sort_keys=True)})


def load_abstractor(path: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto") -> Abstractor:
    """What ``save_abstractor`` wrote, in eval mode. Strict: a tensor or a setting too many or too few is an error."""
    path = Path(path)
    config = read_abstractor_config(path)
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    with Unfilled():
        abstractor = Abstractor(config)
    tensors, _ = read_safetensors(path, device=place, dtype=kind)
    load_strict(abstractor, tensors, path)
    return abstractor.eval().requires_grad_(False)
