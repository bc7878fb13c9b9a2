"""Pretrain the bundle's LLaMA from nothing: reading about clips, in the chat's own layout."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.examples import END, START, Example, answer_loss, collate, embed, encode_dialogue
from gpt4video_cli.recipes.mixtures import (
    conversation_dialogue,
    detail_dialogue,
    practice_dialogue,
    pretraining_dialogue,
)
from gpt4video_cli.recipes.pools import Pooled
from gpt4video_cli.shapeworld.dialogues import Dialogue, watching
from gpt4video_cli.shapeworld.scene import sample_scene
from gpt4video_cli.training.loop import LoopOptions

CONTEXT = 1024
EASY_STEPS = 100
"""So many steps see clips with one shape; after them come all clips."""
BINDING_FROM = 1032
"""From this step on, half of the dialogues ask only which colour, shape or motion belongs to which of several shapes.

Before it, one shape was read without mistakes and of two or three just any one (colours 58 % right); 170 steps later
all colours were right. The weights whose figures stand here saw the earlier kind of dialogue for one step more."""
BINDING = ("colour", "shape", "motion", "size", "yesno")
"""The kinds of question for that."""
FOLDED_SHARE = 0.8
"""How many dialogues have their clips as folded facts; the others as plain text."""


def new_language_model(vocabulary: int, *, width: int = 192, layers: int = 5, seed: int = 0) -> Any:
    """A transformers ``LlamaForCausalLM`` with random weights."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=(width * 8 // 3 + 31) // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
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
    """A dialogue over a described clip; at first short and easy ones.

    Answering means finding the sentence about the thing that was asked for and copying from it. In plain text that
    takes a chain of attention (each word must first learn what stood before it) that did not form in 2000 steps: the
    model copied some colour of the description, 71 % right. Folded to one embedding each, facts are found by matching
    alone, as the tokens of a video are, and that forms within 250 steps.
    """
    if step < EASY_STEPS:
        dialogue = watching(rng, scene=sample_scene(rng, shapes=1, plain=True), turns=rng.randint(1, 2))
        return encode_dialogue(tokenizer, dialogue, rng, folded=True)
    if rng.random() >= 0.5:
        dialogue = pretraining_dialogue(rng)
    elif step < BINDING_FROM:
        dialogue = watching(rng, scene=sample_scene(rng, shapes=rng.choice((1, 2, 2, 3, 3))), turns=rng.randint(1, 2))
    else:
        scene = sample_scene(rng, shapes=rng.choice((2, 3)), plain=True)
        dialogue = watching(rng, scene=scene, turns=rng.randint(3, 6), kinds=BINDING)
    return encode_dialogue(tokenizer, dialogue, rng, folded=rng.random() < FOLDED_SHARE)


def pretrain(
    model: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """Train ``model`` in place. Only answers count in the loss: to guess what people ask teaches nothing about clips,
    and its noise hid what there was to learn (with it, 9 % of the motions were read after 200 steps, without it 24 %).
    """

    def draw(rng: random.Random, step: int) -> Example:
        return example_of(tokenizer, rng, step)

    def size_at(step: int) -> int:
        return batch_size * 2 if step < EASY_STEPS else batch_size  # about as many tokens early as late

    _train(model, draw, size_at, options, folder=folder, name="language_model", seed=str(seed))


def practise(
    model: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """The second round, in place: writing film prompts that keep what was asked for.

    Pretraining sees few requests, and stage 2 trains no more than an adapter on two projections: after both, 15 of 40
    held-out requests got a prompt that kept every attribute.
    """
    _go_on(model, tokenizer, practice_dialogue, options, folder, batch_size, "practice", seed)


def converse(
    model: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """The third round, in place: an answer is about the clip that is meant where several came one after the other.

    After two rounds and stage 2 the model, asked about a clip that it had filmed, answered about the one before (0 of
    6 right), and stage 2 with such dialogues did not change that (0 of 4).
    """
    _go_on(model, tokenizer, conversation_dialogue, options, folder, batch_size, "conversation", seed)


def sharpen(
    model: Any, tokenizer: Tokenizer, options: LoopOptions, *, folder: Path, batch_size: int, seed: int
) -> None:
    """The fourth round, in place: what is asked seldom is read rightly too.

    After three rounds the model, given the truth about a clip as folded facts, still often said that nothing appears or
    disappears where something does, and mistook what happens first, which no abstractor can make good.
    """
    _go_on(model, tokenizer, detail_dialogue, options, folder, batch_size, "details", seed)


def _go_on(
    model: Any,
    tokenizer: Tokenizer,
    dialogue: Callable[[random.Random], Dialogue],
    options: LoopOptions,
    folder: Path,
    batch_size: int,
    name: str,
    seed: int,
) -> None:
    """A round after pretraining. The word embeddings stay as they are, because folded facts and the abstractor's tokens
    are made of them."""
    model.requires_grad_(True)
    model.get_input_embeddings().weight.requires_grad_(False)

    def draw(rng: random.Random, step: int) -> Example:
        return encode_dialogue(tokenizer, dialogue(rng), rng, folded=True)

    _train(model, draw, lambda step: batch_size, options, folder=folder, name=name, seed=f"{name}/{seed}")


def _train(
    model: Any,
    draw: Callable[[random.Random, int], Example],
    size_at: Callable[[int], int],
    options: LoopOptions,
    *,
    folder: Path,
    name: str,
    seed: str,
) -> None:
    """The loop of all rounds; ``draw`` makes a dialogue for a step."""
    pooled = Pooled(
        lambda rng, count, step: [draw(rng, step) for _ in range(count)], lambda e: len(e.ids), size_at, seed
    )

    def loss_of(step: int) -> Tensor:
        examples = pooled.batch(step)
        ids, labels = collate(examples)
        with torch.autocast("cpu", torch.bfloat16):
            return answer_loss(model, embed(model.get_input_embeddings(), examples, ids, seed=step), labels)

    model.train()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    train_loop(trained, loss_of, options, folder=folder, name=name)
