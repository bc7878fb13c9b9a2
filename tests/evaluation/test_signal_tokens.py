"""Signal tokens beside text prompts: what they learn from, and the whole comparison on random weights."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from gpt4video_cli.evaluation.signal_tokens import compare, filmable, replied, train_both
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.random_generator import write_random_generator
from gpt4video_cli.recipes.bundle import Recipe
from gpt4video_cli.recipes.examples import encode_dialogue
from gpt4video_cli.recipes.language_model import new_language_model
from gpt4video_cli.recipes.signal_tokens import (
    SIGNALS,
    SignalHead,
    prompts_of,
    signal_ids,
    signal_places,
    with_signals,
)
from gpt4video_cli.recipes.tokenizer import train_tokenizer
from gpt4video_cli.shapeworld.scene import PLAIN_BACKGROUNDS
from gpt4video_cli.shapeworld.wishes import clip_prompt, filled, filming
from gpt4video_cli.training.loop import LoopOptions


def test_signals_stand_where_prompts_stood() -> None:
    tokenizer = train_tokenizer(vocabulary=512, samples=200)
    rng = random.Random(0)
    signals = signal_ids(tokenizer)
    assert len(set(signals)) == len(SIGNALS)
    for _ in range(50):
        dialogue = filming(rng)
        prompts = prompts_of(dialogue)
        assert prompts == [clip_prompt(filled(scene)) for _, scene in sorted(dialogue.wanted.items())]
        changed = with_signals(dialogue)
        assert [t.user for t in changed.turns] == [t.user for t in dialogue.turns]
        example = encode_dialogue(tokenizer, changed, rng, folded=True)
        places = signal_places(example.ids, signals)
        assert len(places) == len(prompts)
        for place in places:
            assert example.labels[place : place + len(signals)] == signals  # they are learned


def test_a_head_makes_text_features_of_every_signal() -> None:
    torch.manual_seed(0)
    head = SignalHead(64, 24, length=10)
    hidden = torch.randn(3, 8, 64, requires_grad=True)
    features = head(hidden)
    assert features.shape == (3, 10, 24)
    features[1].sum().backward()
    assert hidden.grad is not None
    assert [bool(g.abs().sum() > 0) for g in hidden.grad] == [False, True, False]


def test_requests_that_can_be_filmed() -> None:
    found = list(filmable(20))
    assert len(found) == 20
    assert all(r.wanted is not None and r.wanted.background in PLAIN_BACKGROUNDS for r in found)


def test_a_reply_is_what_greedy_decoding_gives() -> None:
    tokenizer = train_tokenizer(vocabulary=512, samples=200)
    model = new_language_model(tokenizer.get_vocab_size(), width=64, layers=1).eval()
    dialogue = next(filmable(1)).dialogue
    reply, hidden = replied(model, tokenizer, dialogue, random.Random(1))
    assert len(hidden) == len(reply) > 0
    logits = model.lm_head(hidden)
    assert logits.argmax(-1)[:-1].tolist() == reply[1:]  # each token's state tells the next one


def test_the_whole_comparison_on_random_weights(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(vocabulary=512, samples=200)
    language = tmp_path / "language"
    new_language_model(tokenizer.get_vocab_size(), width=64, layers=1).save_pretrained(language)
    tokenizer.save(str(language / "tokenizer.json"))
    generator = DiffusersGenerator.open(str(write_random_generator(tmp_path / "wan")))
    recipe = Recipe(practice=LoopOptions(steps=2, learning_rate=1e-3, warm_up=1), practice_batch=4)
    asks = train_both(language, tmp_path / "signals", generator, recipe)
    features = torch.randn(1, 48, generator.load().pipe.text_encoder.config.d_model)
    given = {"features": lambda *_: {"prompt_embeds": features}, "nothing": lambda *_: None}
    result = compare({**asks, **given}, generator, 2)
    assert set(result) == {"text prompts", "signal tokens", "features", "nothing"}
    assert result["features"]["asked"]["right"] == 2 and result["nothing"]["asked"]["right"] == 0
    assert all(tally["asked"] == 2 for found in result.values() for tally in found.values())
