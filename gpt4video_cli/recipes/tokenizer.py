"""Train the bundle's own byte-level BPE tokenizer on ShapeWorld dialogues."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gpt4video_cli.recipes.mixtures import instruction_dialogue, pretraining_dialogue
from gpt4video_cli.shapeworld.wishes import plain_text

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
"""LLaMA's ids: 0 unknown (also padding), 1 start, 2 end."""


def _corpus(samples: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for i in range(samples):
        dialogue = pretraining_dialogue(rng) if i % 4 else instruction_dialogue(rng)
        for turn in dialogue.turns:
            yield f"###Human: {turn.user}\n###AI: "
            yield turn.answer
        yield f"###Human: <video>{plain_text(rng)}</video>\n<video1></video1><video2></video2>"


def train_tokenizer(*, vocabulary: int = 1024, samples: int = 6000, seed: int = 0) -> Tokenizer:
    """A byte-level BPE tokenizer: any text can be spelled, ShapeWorld's words are one token each."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(samples, seed), trainer)
    return tokenizer
