"""Names and shapes of the tensors in a Hugging Face LLaMA folder, from its config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape for ``LlamaForCausalLM`` (without biases, as LLaMA 1 to 3 are)."""
    width, mlp, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}self_attn.q_proj.weight": (queries, width),
            f"{at}self_attn.k_proj.weight": (keys, width),
            f"{at}self_attn.v_proj.weight": (keys, width),
            f"{at}self_attn.o_proj.weight": (width, queries),
            f"{at}mlp.gate_proj.weight": (mlp, width),
            f"{at}mlp.up_proj.weight": (mlp, width),
            f"{at}mlp.down_proj.weight": (width, mlp),
            f"{at}input_layernorm.weight": (width,),
            f"{at}post_attention_layernorm.weight": (width,),
        }
    shapes["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, width)
    return shapes
