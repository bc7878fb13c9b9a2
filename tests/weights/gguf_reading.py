"""Small LLaMA folders, and what llama.cpp computes from a GGUF file."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from gpt4video_cli.language.llama_library import library, reason
from gpt4video_cli.weights.llama_layout import llama_shapes

BUNDLE = Path(__file__).parents[2] / "gpt4video_cli" / "bundle" / "model"
SIZES: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_llama(folder: Path, tokenizer: str = "", dtype: torch.dtype = torch.float32, **sizes: Any) -> Path:
    """A LLaMA folder with random weights and the given ``tokenizer.json``, else one of 96 made-up words."""
    config = {**SIZES, **sizes}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    words = {"\u0120": 0, "w": 1, "\u0120w": 2} | {f"\u0120w{number}": number for number in range(3, 96)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {
        "version": "1.0",
        "pre_tokenizer": byte_level,
        "model": {"type": "BPE", "vocab": words, "merges": [["\u0120", "w"]]},
    }
    (folder / "tokenizer.json").write_text(tokenizer or json.dumps(plain))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in llama_shapes(config).items():
        spread = 0.15 if len(shape) > 1 else 0.3
        tensors[name] = (torch.randn(shape, generator=generator) * spread + (len(shape) == 1)).to(dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def logits(path: Path, ids: Sequence[int], *, adapter: Path | None = None, scale: float = 1.0) -> np.ndarray:
    """Logits [n, vocabulary] behind each of ``ids`` [n]. Keys and values are kept in float32 and attention is computed
    in full, because llama.cpp's flash attention rounds to 16 bits."""
    llama_cpp = library()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
    assert model, reason()
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = 0  # GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, options)
    assert context, reason()
    if adapter is not None:
        lora = llama_cpp.llama_adapter_lora_init(model, os.fsencode(adapter))
        assert lora, reason()
        loras = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(lora)
        assert llama_cpp.llama_set_adapters_lora(context, loras, 1, (ctypes.c_float * 1)(scale)) == 0
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    for position, token in enumerate(ids):
        batch.token[position], batch.pos[position], batch.logits[position] = token, position, True
        batch.n_seq_id[position], batch.seq_id[position][0] = 1, 0
    batch.n_tokens = len(ids)
    assert llama_cpp.llama_decode(context, batch) == 0, reason()
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    found = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(ids), vocabulary)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found
