"""Patch features to video embeddings: learned queries that condense a clip into N tokens for the language model.

Equations (2)-(4) of GPT4Video (arXiv 2311.16511, section 3.2):
    F_s = CrossAttention(Q_s, [F_v; Q_s], [F_v; Q_s])
    F_t = CrossAttention(Q_t, [F_v; Q_t], [F_v; Q_t])
    F_video = W (F_s + F_t) + b
and the abstractor of mPLUG-Owl-video (X-PLUG/mPLUG-Owl), on which the authors built, are the same code with other
switches. As in that reference, a layer's residual path starts from the *normed* queries.

The features F_v are the same in all layers, and only the queries go through them. So the features are normed once, and
what a layer's norm adds, its scale and its shift, is folded into that layer's key and value weights.

Letters: B batch, T frames, P patches, N queries of one kind (= video tokens), D width of the features (``D_v``),
M = T * (1+P) features of a clip, H heads, G groups of queries (1 joint, or 2: spatial and temporal), Q = 2 * N.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
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
        self._folded: _Folded | None = None

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
        keys_values = self.feature_keys_values(features.flatten(1, 2))
        spatial, temporal = self.attend(keys_values, features.shape[:3], frame_mask)
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

    def feature_keys_values(self, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """[B, M, D] -> for each layer the keys and values [B, H, M, d] of the visual features.

        Frozen weights: all layers at once, one matrix product with folded weights that are kept. Weights that are
        trained: layer by layer, when its turn comes, so that the backward pass frees a layer's keys and values before
        it makes the gradients of the next. Folding helps there too: the gradients of a norm's scale and shift come from
        those of the folded weights, so none of the normed features are needed unless frame positions are trained.
        """
        normed = F.layer_norm(features, features.shape[-1:], eps=self.config.norm_eps)
        layers: list[_Layer] = list(self.layers)  # type: ignore[arg-type]
        # Tensors made in inference mode are not kept either: torch does not count what is written to them.
        if any(p.requires_grad or p.is_inference() for layer in layers for p in layer.folded_parameters()):
            for layer in layers:
                yield layer.split_keys_values(F.linear(normed, *layer.fold()))
            return
        folded = self._folded
        if folded is None or not folded.is_of(layers):
            folded = self._folded = _Folded(layers)
        together = F.linear(normed, folded.weight, folded.bias)
        for layer, keys_values in zip(layers, together.chunk(len(layers), dim=-1), strict=True):
            yield layer.split_keys_values(keys_values)

    def feature_keys_values_reference(self, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The plain formula of ``feature_keys_values``, which rounds as mPLUG-Owl's code does: norm, then project."""
        for layer in self.layers:
            normed = layer.norm_features(features)  # type: ignore[operator]
            yield layer.split(layer.key(normed)), layer.split(layer.value(normed))  # type: ignore[operator]

    def attend(
        self, keys_values: Iterable[tuple[Tensor, Tensor]], shape: tuple[int, ...], frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Equations (2) and (3), all layers: F_s and F_t, each [B, N, D]. shape: B, T and 1+P of the features."""
        batch, frames, tokens_per_frame = shape
        queries = torch.cat([self.spatial_queries, self.temporal_queries]).expand(batch, -1, -1)  # [B, Q, D]
        seen = None if frame_mask is None else frame_mask.repeat_interleave(tokens_per_frame, dim=1)  # [B, M]
        skips = self.config.joint_queries and self.config.single_frame_skips_temporal
        if seen is None and skips and frames == 1:
            seen = torch.ones(batch, tokens_per_frame, dtype=torch.bool, device=queries.device)
        if seen is not None:
            own = seen.new_ones(batch, queries.shape[1])
            if skips:
                # Clips of one frame inside a batch of longer ones: their spatial queries must not see temporal ones.
                own[:, self.config.queries :] = (seen.sum(dim=1) > tokens_per_frame)[:, None]
            seen = torch.cat([seen, own], dim=1)  # [B, M + Q]
        # Both kinds pass through the layers together. Where they are apart, only the attention keeps them so.
        groups = 1 if self.config.joint_queries else 2
        for layer, (keys, values) in zip(self.layers, keys_values, strict=True):
            queries = layer(queries, keys, values, seen, groups)
        return queries[:, : self.config.queries], queries[:, self.config.queries :]

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

    def folded_parameters(self) -> tuple[Tensor, ...]:
        """What ``fold`` reads."""
        norm, key, value = self.norm_features, self.key, self.value
        return norm.weight, norm.bias, key.weight, key.bias, value.weight, value.bias

    def fold(self) -> tuple[Tensor, Tensor]:
        """[2 * D, D] and [2 * D]: from features normed without scale and shift to keys and values, differentiable."""
        scale, shift, *projections = self.folded_parameters()
        weights, biases = projections[0::2], projections[1::2]
        folded = torch.cat([weight * scale for weight in weights])
        # Not a product of matrix and vector: that rounds by where the weights lie in memory, e.g. in a mapped file.
        return folded, torch.cat([b + (w * shift).sum(dim=1) for w, b in zip(weights, biases, strict=True)])

    def split_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B, M, 2 * D] -> 2 x [B, H, M, d]
        keys, values = x.chunk(2, dim=-1)
        return self.split(keys), self.split(values)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, groups: int
    ) -> Tensor:  # [B, Q, D]
        x = self.norm_queries(queries)
        own_keys, own_values = self.split(self.key(x)), self.split(self.value(x))
        looked = cross_attention(self.split(self.query(x)), keys, values, own_keys, own_values, seen, groups)
        x = x + self.out(looked.transpose(1, 2).flatten(2))
        y = self.norm_mlp(x)
        return x + self.down(self.inner_norm(F.silu(self.gate(y)) * self.up(y)))

    def split(self, x: Tensor) -> Tensor:  # [B, n, D] -> [B, H, n, d]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Folded:
    """All layers' folded weights, [L * 2 * D, D] and [L * 2 * D], and of what they were made."""

    def __init__(self, layers: list[_Layer]) -> None:
        # The memory itself is kept, so that no other tensor can come to lie at the same address.
        self._made_of = [(p.detach(), p._version) for layer in layers for p in layer.folded_parameters()]
        # Made outside of inference mode, so that a later call may still need gradients of the features.
        with torch.inference_mode(False), torch.no_grad():
            weights, biases = zip(*(layer.fold() for layer in layers), strict=True)
            self.weight, self.bias = torch.cat(weights), torch.cat(biases)

    def is_of(self, layers: list[_Layer]) -> bool:
        """Whether the layers' parameters lie where they lay (so none was moved, converted or replaced), and none was
        written to since. What is written through ``.data`` leaves no trace: nothing here does that to frozen weights.
        """
        now = [p for layer in layers for p in layer.folded_parameters()]
        return all(
            p.data_ptr() == old.data_ptr() and p._version == version
            for p, (old, version) in zip(now, self._made_of, strict=True)
        )


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
