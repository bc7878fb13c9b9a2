"""Names and shapes of the tensors of a public mPLUG-Owl-video checkpoint, from its configuration alone.

As the reference saves them (X-PLUG/mPLUG-Owl, ``mPLUG-Owl/mplug_owl_video/modeling_mplug_owl.py``), without LLaMA's
``rotary_emb.inv_freq``, which is computed and not learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt4video_cli.model.abstractor import AbstractorConfig
from gpt4video_cli.model.visual_encoder import VisualEncoderConfig
from gpt4video_cli.weights.llama_layout import llama_shapes

Shapes = dict[str, tuple[int, ...]]


def mplug_owl_shapes(vision: VisualEncoderConfig, abstractor: AbstractorConfig, language: Mapping[str, Any]) -> Shapes:
    """Tensor name -> shape. ``language`` is LLaMA's part of the configuration."""
    queries = (1, abstractor.queries, abstractor.width)
    return {
        "query_tokens": queries,
        "temporal_query_tokens": queries,
        **{f"vision_model.{name}": shape for name, shape in _vision_shapes(vision).items()},
        **{f"abstractor.{name}": shape for name, shape in _abstractor_shapes(abstractor).items()},
        **{f"language_model.{name}": shape for name, shape in llama_shapes(language).items()},
    }


def _vision_shapes(config: VisualEncoderConfig) -> Shapes:
    width, half, mlp, patch = config.width, config.width // 2, config.mlp_width, config.patch_size
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embedding": (1, 1 + config.patches, width),
        "embeddings.patch_embed.weight": (width, 3, patch, patch),
        **_norm("embeddings.pre_layernorm", width),
        **_norm("post_layernorm", width),
    }
    for layer in range(config.layers):
        at = f"encoder.layers.{layer}."
        shapes |= {
            **_norm(f"{at}temporal.ln", width),
            f"{at}temporal.down_proj.weight": (half, width, 1, 1, 1),
            f"{at}temporal.down_proj.bias": (half,),
            f"{at}temporal.conv.weight": (half, 1, 3, 1, 1),
            f"{at}temporal.conv.bias": (half,),
            f"{at}temporal.up_proj.weight": (width, half, 1, 1, 1),
            f"{at}temporal.up_proj.bias": (width,),
            **_norm(f"{at}input_layernorm", width),
            **_linear(f"{at}self_attn.query_key_value", width, 3 * width),
            **_linear(f"{at}self_attn.dense", width, width),
            **_norm(f"{at}post_attention_layernorm", width),
            **_linear(f"{at}mlp.fc1", width, mlp),
            **_linear(f"{at}mlp.fc2", mlp, width),
        }
    return shapes


def _abstractor_shapes(config: AbstractorConfig) -> Shapes:
    width, mlp, out = config.width, config.mlp_width, config.output_width
    shapes: Shapes = {
        "vit_eos": (1, 1, out),
        **_linear("visual_fc", width, out),
        **_linear("temporal_visual_fc", width, out),
    }
    for layer in range(config.layers):
        at = f"encoder.layers.{layer}.crossattention."
        shapes |= {
            **_norm(f"{at}norm1", width),
            **_norm(f"{at}normk", width),
            **_linear(f"{at}attention.query", width, width),
            **_linear(f"{at}attention.key", width, width),
            **_linear(f"{at}attention.value", width, width),
            **_linear(f"{at}output.out_proj", width, width),
            **_norm(f"{at}output.norm2", width),
            **_linear(f"{at}output.mlp.w1", width, mlp),
            **_linear(f"{at}output.mlp.w2", mlp, width),
            **_linear(f"{at}output.mlp.w3", width, mlp),
            **_norm(f"{at}output.mlp.ffn_ln", mlp),
        }
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
