"""A tiny model folder with random weights: complete, correct in form, and knowing nothing.

For testing pipelines: everything that takes a model folder takes this one, loads in a moment and answers gibberish.

    python -m gpt4video_cli.model.random_model FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, save_abstractor
from gpt4video_cli.model.strict_load import write_safetensors
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig, save_visual_encoder
from gpt4video_cli.video.preprocess import PreprocessConfig
from gpt4video_cli.weights.card import FILE_NAME, Card, render_card
from gpt4video_cli.weights.llama_layout import llama_shapes
from gpt4video_cli.whole_file import write_whole

IMAGE_SIZE = 32
_SENTENCES = (
    "###Human: <video></video>\n###Human: <video1></video1><video2></video2>\n###AI: ",
    "What happens in the clip? A red circle moves to the left while a blue square stays where it is.",
    "How many shapes are there? There are two. Please film a green triangle that spins on a grey background.",
)


def write_random_model(
    folder: str | Path,
    *,
    seed: int = 0,
    frames: int = 4,
    width: int = 64,
    context_length: int = 512,
    adapter: bool = False,
    template: str = "paper",
    name: str = "random",
) -> Path:
    """Write a model folder (about 0.6 MB) and return it. The same arguments give the same weights.

    ``frames``: what the card asks for. ``width``: D_llm, a multiple of 4. ``adapter``: add a LoRA adapter that changes
    answers. The visual encoder sees 32 x 32 pixels as 16 patches; a clip becomes 4 embeddings.
    """
    folder = Path(folder)
    generator = torch.Generator().manual_seed(seed)
    vision = VisualEncoderConfig(width=32, layers=2, heads=2, mlp_width=64, patch_size=8, image_size=IMAGE_SIZE)
    condenser = AbstractorConfig.trained_here(
        width=vision.width, output_width=width, queries=4, layers=2, heads=2, mlp_width=64
    )
    encoder, abstractor = VisualEncoder(vision), Abstractor(condenser)
    _randomise(encoder, generator)
    _randomise(abstractor, generator)
    save_visual_encoder(encoder, folder / "vision")
    preprocessing = PreprocessConfig.square(IMAGE_SIZE).as_dict()
    write_whole(folder / "vision" / "preprocessor_config.json", json.dumps(preprocessing, indent=2) + "\n")
    save_abstractor(abstractor, folder / "abstractor.safetensors")
    _write_language_model(folder / "language", generator, width=width, context_length=context_length)
    if adapter:
        _write_adapter(folder / "adapter", generator, width=width)
    card = Card(
        name=name,
        summary="Random weights, for testing pipelines; its answers mean nothing.",
        licence="CC0-1.0",
        template=template,
        frames=frames,
        max_tokens=16,
        limits=("It knows nothing: its weights are random.",),
    )
    write_whole(folder / FILE_NAME, render_card(card))
    return folder


def _randomise(module: torch.nn.Module, generator: torch.Generator) -> None:
    """All parameters from ``generator``: norms near 1, the rest such that inputs keep their size."""
    for name, parameter in module.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.1 * noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)


def _write_language_model(folder: Path, generator: torch.Generator, *, width: int, context_length: int) -> None:
    tokenizer = _tokenizer()
    config: dict[str, Any] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": context_length,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    tensors = {name: _random_weight(shape, generator) for name, shape in llama_shapes(config).items()}
    # Sharper than 1/sqrt(width), so that the likeliest next token is clear and not decided by rounding.
    tensors["lm_head.weight"] *= 4
    tensors["model.embed_tokens.weight"] *= 4
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context_length, **names}
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_whole(folder / "tokenizer_config.json", json.dumps(extra, indent=2) + "\n")


def _random_weight(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    return 1 + 0.1 * noise if len(shape) == 1 else noise * shape[-1] ** -0.5


def _tokenizer() -> Any:
    """A byte-level BPE tokenizer (any text can be spelled) with LLaMA's special tokens at LLaMA's ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return tokenizer


def _write_adapter(folder: Path, generator: torch.Generator, *, width: int, rank: int = 4) -> None:
    """A PEFT LoRA adapter on the queries and values of both layers."""
    targets = ("q_proj", "v_proj")
    tensors: dict[str, Tensor] = {}
    for layer in range(2):
        for target in targets:
            at = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            tensors[f"{at}.lora_A.weight"] = torch.randn((rank, width), generator=generator) * width**-0.5
            tensors[f"{at}.lora_B.weight"] = torch.randn((width, rank), generator=generator)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "../language",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(targets),
    }
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_whole(folder / "adapter_config.json", json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m gpt4video_cli.model.random_model FOLDER")
    write_random_model(sys.argv[1])
