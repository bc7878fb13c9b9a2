"""Pretrain the bundle's LLaMA from nothing: reading about clips, in the chat's own layout."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from gpt4video_cli.shapeworld.dialogues import plain_text, pretraining_dialogue, watching
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.training.examples import END, IGNORED, START, Example, collate, encode_dialogue
from gpt4video_cli.training.loop import LoopOptions, train_loop

CONTEXT = 1024
SHORT_STEPS = 240
"""So many steps see one or two questions a clip; the first half of them clips with one shape."""

TEXT_WEIGHT = 0.1
"""Weight in the loss of what is not the assistant's: it teaches the language, the answers teach to read."""


def new_language_model(vocabulary: int, *, width: int = 256, layers: int = 5, seed: int = 0) -> Any:
    """A transformers ``LlamaForCausalLM`` with random weights."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=(width * 8 // 3 + 31) // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        # transformers' 0.02 suits widths in the thousands; here, after 60 steps on single questions, the loss of the
        # answers was 0.74 with it and 0.20 with 1/sqrt(width).
        initializer_range=width**-0.5,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def example_of(tokenizer: Tokenizer, rng: random.Random, step: int) -> Example:
    """A dialogue over a described clip, or now and then plain sentences; at first short and easy ones.

    Answering means copying words from the description. In long dialogues alone that mechanism had not formed after 430
    steps (colours 15 % right); on single questions about one shape it forms within 60 (loss of the answers 3.5 -> 0.2).
    Half of the later dialogues are short ones about several shapes: which colour belongs to "the circle" is learned
    last (colours 55 % right after 1000 steps without them).
    """
    early = step < SHORT_STEPS
    if early or rng.random() < 0.5:
        shapes = 1 if step < SHORT_STEPS // 2 else None if early else rng.choice((2, 3))
        scene = sample_scene(rng, shapes=shapes, plain=step < SHORT_STEPS // 2)
        return encode_dialogue(tokenizer, watching(rng, scene=scene, turns=rng.randint(1, 2)), rng)
    if rng.random() < 0.06:
        example = Example()
        text = " ".join(plain_text(rng) for _ in range(4))
        example.add([START, *tokenizer.encode(text, add_special_tokens=False).ids])
        return example
    return encode_dialogue(tokenizer, pretraining_dialogue(rng), rng)


def batches_of(tokenizer: Tokenizer, pool: int, batch_size: int, seed: int) -> list[list[Example]]:
    """The batches of 8 steps, cut from one pool sorted by length, so that little is padded; in random order."""
    rng, step = random.Random(f"{seed}/{pool}"), pool * 8
    size = batch_size * 2 if step < SHORT_STEPS else batch_size  # about as many tokens early as late
    ordered = sorted((example_of(tokenizer, rng, step) for _ in range(size * 8)), key=lambda e: len(e.ids))
    batches = [ordered[i * size : (i + 1) * size] for i in range(8)]
    rng.shuffle(batches)
    return batches


def weighted_loss(logits: Tensor, ids: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of the next token; the assistant's tokens weigh 1, other text ``TEXT_WEIGHT``. ``[B, L, V]``."""
    targets, answers = ids[:, 1:], labels[:, 1:] != IGNORED
    weights = torch.where(answers, 1.0, TEXT_WEIGHT) * mask[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


def pretrain(
    model: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """Train ``model`` in place."""
    pools: dict[int, list[list[Example]]] = {}

    def loss_of(step: int) -> Tensor:
        pool, place = divmod(step, 8)
        if pool not in pools:
            pools.clear()
            pools[pool] = batches_of(tokenizer, pool, batch_size, seed)
        ids, labels, mask = collate(pools[pool][place])
        with torch.autocast("cpu", torch.bfloat16):
            # No attention mask: padding stands on the right, where causal attention never looks back from.
            logits = model(input_ids=ids).logits
        return weighted_loss(logits, ids, labels, mask)

    train_loop(model.named_parameters(), loss_of, options, folder=folder, name="language_model")
