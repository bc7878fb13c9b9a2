"""Stage 2, instruct: text only. LoRA on the language model's q_proj and v_proj; folded facts stand for videos."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.examples import answer_loss, collate, embed, encode_dialogue
from gpt4video_cli.recipes.mixtures import instruction_dialogue
from gpt4video_cli.training.loop import LoopOptions


def with_lora(language_model: Any, *, seed: int = 0) -> Any:
    """The model with a fresh adapter of the authors' shape: r = 16, alpha = 16, dropout 0.1, q_proj and v_proj."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=16, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(language_model, config)


def instruct(
    adapted: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """Train the adapter of ``adapted`` (what ``with_lora`` made) in place; the base stays as it is."""
    adapted.train()
    torch.manual_seed(seed)
    base = adapted.get_base_model()

    def loss_of(step: int) -> Tensor:
        rng = random.Random(f"instruct/{seed}/{step}")
        examples = [encode_dialogue(tokenizer, instruction_dialogue(rng), rng, folded=True) for _ in range(batch_size)]
        ids, labels = collate(examples)
        with torch.autocast("cpu", torch.bfloat16):
            return answer_loss(base, embed(base.get_input_embeddings(), examples, ids, seed=step), labels)

    trained = [(name, p) for name, p in adapted.named_parameters() if p.requires_grad]
    train_loop(trained, loss_of, options, folder=folder, name="instruct")
