"""The other way to ask for a clip, to compare with: signal tokens and a head, as in NExT-GPT (arXiv 2309.05519).

Instead of a text the language model writes K tokens that mean nothing by themselves. A small transformer turns their
hidden states into what the text encoder of the text-to-video model makes of the prompt, and learns so by squared error
(section 4.2 there). It learns from the dialogues that ``language_model.practise`` learns text prompts from.

Letters: B prompts, K signal tokens, L prompt tokens, D and W widths of the language model and of the text encoder.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.recipes.examples import Example, collate, embed, encode_dialogue
from gpt4video_cli.recipes.mixtures import practice_dialogue
from gpt4video_cli.recipes.pools import Pooled
from gpt4video_cli.recipes.text_to_video import PROMPT_TOKENS, prompt_features
from gpt4video_cli.shapeworld.dialogues import Dialogue
from gpt4video_cli.training.loop import LoopOptions

SIGNALS = "".join(map(chr, range(1, 9)))
"""K control characters: a byte-level tokenizer has a token for each, and no text that people write holds them."""
_PROMPT = re.compile(r"<video>(.*?)</video>")


class SignalHead(nn.Module):
    """Hidden states ``[B, K, D]`` of signal tokens -> text features ``[B, L, W]``."""

    def __init__(self, width: int, text_width: int, *, length: int = PROMPT_TOKENS, layers: int = 2) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerDecoderLayer(
            width, width // 32, width * 2, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.out = nn.Linear(width, text_width)

    def forward(self, hidden: Tensor) -> Tensor:
        """See the class."""
        queries = self.queries.expand(len(hidden), -1, -1)
        found: Tensor = self.out(self.layers(queries, hidden))
        return found


def prompts_of(dialogue: Dialogue) -> list[str]:
    """The texts that ``dialogue`` asks to be filmed, in order."""
    return [prompt for turn in dialogue.turns for prompt in _PROMPT.findall(turn.answer)]


def with_signals(dialogue: Dialogue) -> Dialogue:
    """``dialogue`` with signal tokens in place of every prompt."""
    turns = (replace(t, answer=_PROMPT.sub(f"<video>{SIGNALS}</video>", t.answer)) for t in dialogue.turns)
    return replace(dialogue, turns=tuple(turns))


def signal_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the K signal tokens."""
    ids: list[int] = tokenizer.encode(SIGNALS, add_special_tokens=False).ids
    if len(ids) != len(SIGNALS):
        raise ValueError("this tokenizer has no token of its own for each signal")
    return ids


def signal_places(ids: list[int], signals: list[int]) -> list[int]:
    """Where runs of ``signals`` begin in ``ids``."""
    count = len(signals)
    return [i for i in range(len(ids) - count + 1) if ids[i : i + count] == signals]


def train_signals(
    model: Any,
    head: SignalHead,
    tokenizer: Tokenizer,
    text_encoder: Any,
    prompt_tokenizer: Any,
    options: LoopOptions,
    *,
    folder: Path,
    batch_size: int,
    seed: int,
) -> None:
    """Train ``model`` (all but its word embeddings) and ``head`` in place; the text encoder stays as it is."""
    text_encoder.requires_grad_(False).eval()
    model.requires_grad_(True).train()
    model.get_input_embeddings().weight.requires_grad_(False)
    signals = signal_ids(tokenizer)
    with torch.no_grad():
        rng = random.Random(seed)
        some = [p for _ in range(200) for p in prompts_of(practice_dialogue(rng))]
        scale = prompt_features(text_encoder, prompt_tokenizer, some).var()

    def draw(rng: random.Random, count: int, step: int) -> list[tuple[Example, list[str]]]:
        # The draws of language_model.practise: only what stands for a prompt differs.
        dialogues = (practice_dialogue(rng) for _ in range(count))
        return [(encode_dialogue(tokenizer, with_signals(d), rng, folded=True), prompts_of(d)) for d in dialogues]

    pooled = Pooled(draw, lambda pair: len(pair[0].ids), lambda step: batch_size, f"practice/{seed}")

    def loss_of(step: int) -> Tensor:
        batch = pooled.batch(step)
        examples = [example for example, _ in batch]
        prompts = [prompt for _, said in batch for prompt in said]
        ids, labels = collate(examples)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = embed(model.get_input_embeddings(), examples, ids, seed=step)
            hidden = model.model(inputs_embeds=embeddings).last_hidden_state
            counts = labels[:, 1:] >= 0
            logits = model.lm_head(hidden[:, :-1][counts])
        loss = F.cross_entropy(logits.float(), labels[:, 1:][counts])
        found = [(row, start) for row, e in enumerate(examples) for start in signal_places(e.ids, signals)]
        if found:
            rows, starts = torch.tensor(found).T
            columns = starts[:, None] + torch.arange(len(signals))
            said = head(hidden[rows[:, None], columns].float())
            with torch.no_grad():
                wanted = prompt_features(text_encoder, prompt_tokenizer, prompts)
            loss = loss + (said - wanted).square().mean() / scale
        return loss

    named = [*((f"model.{n}", p) for n, p in model.named_parameters()), *head.named_parameters(prefix="head")]
    trained = [(name, p) for name, p in named if p.requires_grad]
    train_loop(trained, loss_of, options, folder=folder, name="signals")
