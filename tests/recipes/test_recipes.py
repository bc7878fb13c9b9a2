"""Laws of the recipes: layout, labels, what each part learns from, and what it changes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from gpt4video_cli.language.engine import EmbeddingSegment, TextSegment, TokenSegment
from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig
from gpt4video_cli.model.prompt import PAPER, PromptClip, PromptTurn
from gpt4video_cli.model.visual_encoder import VisualEncoder
from gpt4video_cli.recipes.align import LONG_FROM, align, draw_dialogues, with_video
from gpt4video_cli.recipes.clips import KnownClips
from gpt4video_cli.recipes.contrastive import (
    SIDE,
    ContrastivePair,
    contrastive_loss,
    draw_frames,
    small_encoder_config,
)
from gpt4video_cli.recipes.examples import (
    END,
    IGNORED,
    NOISE,
    START,
    answer_loss,
    collate,
    content_words,
    embed,
    encode_dialogue,
)
from gpt4video_cli.recipes.fact_slots import SLOTS, FactSlots, facts_right, slot_facts, warm_up
from gpt4video_cli.recipes.instruct import instruct, with_lora
from gpt4video_cli.recipes.language_model import new_language_model
from gpt4video_cli.recipes.patch_phrases import (
    GRID,
    PHRASES,
    UNSURE,
    draw_labelled,
    patches_right,
    train_patch_phrases,
)
from gpt4video_cli.recipes.text_to_video import ROUNDS, played_backwards, pools_of
from gpt4video_cli.recipes.text_to_video import scene_at as film_scene_at
from gpt4video_cli.recipes.tokenizer import train_tokenizer
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn, watching, watching_two
from gpt4video_cli.shapeworld.prompts import held_out
from gpt4video_cli.shapeworld.scene import SHAPES, reversed_scene, sample_any, sample_events, sample_scene
from gpt4video_cli.shapeworld.wishes import watching_what_was_filmed
from gpt4video_cli.training.loop import LoopOptions


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(vocabulary=512, samples=300)


def as_chat_would(tokenizer: Tokenizer, dialogue: Dialogue, video_tokens: int) -> list[int]:
    """Token ids of the dialogue as the prompt template renders it for the engine (0 for video)."""
    turns = []
    for turn in dialogue.turns:
        alone = len(turn.clips) == 1
        clips = tuple(PromptClip("key", torch.zeros(video_tokens, 4), c + 1, alone) for c in turn.clips)
        turns.append(PromptTurn(turn.user, clips, turn.answer))
    ids: list[int] = []
    for segment in PAPER.render(turns):
        if isinstance(segment, EmbeddingSegment):
            ids += [0] * len(segment.embeddings)
        elif isinstance(segment, TokenSegment):
            ids += segment.ids
        else:
            assert isinstance(segment, TextSegment)
            tokenizer.encode_special_tokens = not segment.trusted
            ids += tokenizer.encode(segment.text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return ids


def test_training_sees_exactly_the_tokens_that_a_chat_sends(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    for make in [watching] * 10 + [watching_two] * 10 + [watching_what_was_filmed] * 10:
        dialogue = make(rng)
        example = encode_dialogue(tokenizer, dialogue, rng, video_tokens=5)
        assert example.ids == as_chat_would(tokenizer, dialogue, 5)


def test_only_the_assistants_tokens_count(tokenizer: Tokenizer) -> None:
    dialogue = Dialogue(
        (sample_scene(random.Random(1)),), (Turn("What is it?", "A red star.", (0,)), Turn("Sure?", "Yes."))
    )
    example = encode_dialogue(tokenizer, dialogue, random.Random(0), video_tokens=3)
    learned = [i for i in example.labels if i != IGNORED]
    assert tokenizer.decode(learned, skip_special_tokens=False) == "A red star.</s>Yes.</s>"
    assert [i for i, label in zip(example.ids, example.labels, strict=True) if label != IGNORED] == learned
    assert example.ids[0] == START and example.labels[-1] == END
    ((start, scene),) = example.clips
    assert example.ids[start : start + 3] == [0, 0, 0] and scene == "0"


def test_padding_changes_no_loss(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = new_language_model(tokenizer.get_vocab_size(), width=64, layers=2)
    rng = random.Random(2)
    examples = [encode_dialogue(tokenizer, watching(rng, turns=n), rng) for n in (1, 5)]
    ids, labels = collate(examples)
    both = answer_loss(model, model.get_input_embeddings()(ids), labels)
    alone = []
    for example in examples:
        one, targets = collate([example])
        counted = int((targets[:, 1:] != IGNORED).sum())
        alone.append((answer_loss(model, model.get_input_embeddings()(one), targets), counted))
    mean = sum(loss * n for loss, n in alone) / sum(n for _, n in alone)
    torch.testing.assert_close(both, mean)
    assert math.isfinite(both.item())


def test_a_round_may_ask_more_about_what_happens_in_order(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    scenes = [sample_events(rng), *(sample_scene(rng, shapes=1, plain=True) for _ in range(19))]
    for events, least, most in ((0.0, 0, 25), (0.9, 40, 100)):
        drawn = draw_dialogues(tokenizer, 100, scenes, 3, random.Random(1), step=LONG_FROM - 1, events=events)
        assert least <= sum(0 in clips for _, clips in drawn) <= most


def test_folded_facts_are_sums_of_their_words_at_their_places(tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    words = torch.nn.Embedding(tokenizer.get_vocab_size(), 16)
    examples = [encode_dialogue(tokenizer, watching_two(rng), rng, folded=True) for _ in range(4)]
    ids, labels = collate(examples)
    made = embed(words, examples, ids, seed=1)
    assert torch.equal(made[ids != 0], words(ids)[ids != 0])
    noise = NOISE * float(words(ids).detach().std())
    count = 0
    for row, example in enumerate(examples):
        assert all(label == IGNORED for i, label in zip(example.ids, example.labels, strict=True) if i == 0)
        for place, tokens in example.folded:
            assert ids[row, place] == 0
            off = made[row, place] - words(torch.tensor(tokens)).sum(0)
            assert float(off.detach().abs().max()) < 5 * noise
            count += 1
    assert count >= 8 and len({place for e in examples for place, _ in e.folded}) > 4
    empty = (ids == 0) & (labels == IGNORED)
    assert float(made[empty].detach().std()) > 0
    assert torch.equal(made, embed(words, examples, ids, seed=1))


def test_a_fact_folds_to_the_words_that_say_something() -> None:
    assert content_words("The red star moves to the left.") == " red star moves left"
    assert content_words("There are two shapes.") == " two shapes"


def test_video_lands_where_the_example_says_and_nowhere_else() -> None:
    rng = random.Random(0)
    tokenizer = train_tokenizer(vocabulary=400, samples=50)
    scenes = [sample_scene(rng) for _ in range(4)]
    drawn = draw_dialogues(tokenizer, 6, scenes, 3, rng, step=LONG_FROM)
    ids, _ = collate([e for e, _ in drawn])
    text = torch.randn(*ids.shape, 8)
    video = torch.randn(sum(len(c) for _, c in drawn), 3, 8)
    mixed = with_video(text, [e for e, _ in drawn], video)
    place = 0
    untouched = torch.ones(ids.shape, dtype=torch.bool)
    for row, (example, _) in enumerate(drawn):
        for start, _scene in example.clips:
            assert torch.equal(mixed[row, start : start + 3], video[place])
            untouched[row, start : start + 3] = False
            place += 1
    assert torch.equal(mixed[untouched], text[untouched])


def test_each_token_has_a_place_for_every_fact(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    scenes = [sample_any(rng) for _ in range(300)]
    words = torch.nn.Embedding(tokenizer.get_vocab_size(), 64)
    slots = FactSlots(words, tokenizer)
    targets = slots.targets(scenes)
    assert targets.shape == (300, SLOTS) and int((targets != 0).sum(1).min()) >= 1
    exact = slots.embeddings[torch.arange(SLOTS), targets]
    assert torch.equal(slots.logits(exact).argmax(-1), targets)
    assert slots.loss(exact, targets) < slots.loss(exact.roll(1, dims=0), targets)
    for scene in scenes:  # two shapes of one colour have tokens of their own
        facts = slot_facts(scene)
        for shape in scene.shapes:
            assert any(shape.colour in said and shape.shape in said for said in facts.values())


def test_the_warm_start_teaches_what_a_clip_shows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """On features that hold nothing but the truth the loss falls below what knowing nothing of the clip gives."""
    torch.manual_seed(0)
    model = new_language_model(tokenizer.get_vocab_size(), width=64, layers=1)
    config = AbstractorConfig.trained_here(width=32, output_width=64, queries=SLOTS, heads=2, mlp_width=32, layers=2)
    abstractor = Abstractor(config)
    scenes = [sample_scene(random.Random(i), shapes=1, plain=True) for i in range(16)]
    slots = FactSlots(model.get_input_embeddings(), tokenizer)
    features = slots.targets(scenes)[:, None, :, None].repeat(1, 2, 1, 32).float() * torch.randn(32)
    features[:, 1] = 0  # so that a clip differs from itself played backwards
    options = LoopOptions(steps=160, learning_rate=1e-2, warm_up=5, log_every=20)
    warm_up(abstractor, model, tokenizer, KnownClips(features, scenes), options, folder=tmp_path, batch_size=16, seed=0)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "warm_up.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] * 0.6
    assert facts_right(abstractor, slots, features, scenes)["nothing"] > 0.9


def hashes(module: torch.nn.Module) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in module.named_parameters()}


def test_stage_1_changes_the_abstractor_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_language_model(tokenizer.get_vocab_size(), width=64, layers=1)
    config = AbstractorConfig.trained_here(width=16, output_width=64, queries=3, heads=2, mlp_width=32, layers=2)
    abstractor = Abstractor(config)
    before, frozen = hashes(abstractor), hashes(model)
    features = torch.randn(5, 4, 6, 16, dtype=torch.bfloat16)
    options = LoopOptions(steps=3, learning_rate=1e-2, warm_up=1, log_every=1)
    clips = KnownClips(features, [sample_scene(random.Random(i)) for i in range(5)])
    align(abstractor, model, tokenizer, clips, options, folder=tmp_path, batch_size=2, seed=0)
    assert hashes(model) == frozen
    assert [name for name, value in hashes(abstractor).items() if value == before[name]] == []


def test_stage_2_changes_the_adapter_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = with_lora(new_language_model(tokenizer.get_vocab_size(), width=64, layers=1))
    before = hashes(adapted)
    options = LoopOptions(steps=3, learning_rate=1e-2, warm_up=1, log_every=1)
    instruct(adapted, tokenizer, options, folder=tmp_path, batch_size=2, seed=0)
    changed = {name for name, value in hashes(adapted).items() if value != before[name]}
    assert changed and all(".lora_" in name for name in changed)
    assert all("q_proj" in name or "v_proj" in name for name in changed)
    assert changed == {name for name in before if ".lora_" in name}


def test_frames_for_the_small_clip_come_in_fives_that_differ_in_one_shape() -> None:
    frames, captions, windows = draw_frames(10, seed=1, phase="one")
    for start in (0, 5):
        names = [next(s for s in SHAPES if s in c.split()) for c in captions[start : start + 5]]
        assert names == list(SHAPES)
        assert len({c.replace(n, "") for c, n in zip(captions[start : start + 5], names, strict=True)}) == 1
        # What differs lies inside the window of patches that training looks at.
        changed = np.ptp(frames[start : start + 5].astype(int), axis=0).max(-1) > 60
        patches = np.unique([r // 8 * 10 + c // 8 for r, c in np.argwhere(changed)])
        assert len(patches) and set(patches) <= set(windows[start].tolist())


def test_all_patches_one_by_one_are_what_the_encoder_sees() -> None:
    torch.manual_seed(0)
    pair = ContrastivePair(VisualEncoder(small_encoder_config()), 50)
    pixels, ids = torch.randn(3, 3, SIDE, SIDE), torch.randint(1, 50, (3, 6))
    every = torch.arange(pair.encoder.config.patches).expand(3, -1)
    torch.testing.assert_close(pair(pixels, ids, every), pair(pixels, ids))


def test_patches_are_labelled_with_what_they_show() -> None:
    frames, captions, labels = draw_labelled(10, seed=3)
    assert frames.shape == (10, SIDE, SIDE, 3) and labels.shape == (10, GRID * GRID)
    for row in range(10):
        shown = {PHRASES[i] for i in labels[row] if i != UNSURE}
        for phrase in shown:
            assert phrase in captions[row] or phrase.endswith("background")
        assert any(phrase.split()[-1] in SHAPES for phrase in shown)
    # Five frames differ in the shape of one object only.
    objects = [{PHRASES[i] for i in labels[row] if i != UNSURE and i < 40} for row in range(5)]
    assert len({frozenset(names) for names in objects}) == 5


def test_the_second_round_of_clip_teaches_patches(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = ContrastivePair(VisualEncoder(small_encoder_config()), tokenizer.get_vocab_size())
    options = LoopOptions(steps=12, learning_rate=1e-3, warm_up=2, log_every=4)
    train_patch_phrases(pair, tokenizer, options, folder=tmp_path, batch_size=10, pool=20, seed=0)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "patch_phrases.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert 0 <= patches_right(pair, tokenizer, count=5) <= 1


def test_frames_that_share_a_caption_are_not_pushed_apart() -> None:
    for captions, pushed in ((["a", "a", "b"], False), (["a", "c", "b"], True)):
        similarities = torch.tensor([[30.0, 30, 0], [30, 30, 0], [0, 0, 30]], requires_grad=True)
        contrastive_loss(similarities, captions).backward()
        assert (similarities.grad.abs().max() > 0.01) == pushed  # type: ignore[union-attr]


def test_filming_never_sees_a_combination_that_is_held_out() -> None:
    """Neither as it is drawn nor played backwards, which turns left into right."""
    clip = torch.arange(3.0)[None, :, None, None]
    turned = kept = 0
    for index in range(400):
        scene = film_scene_at(0, index)
        shown, frames = played_backwards(scene, clip)
        assert not any(held_out(shape) for shape in (*scene.shapes, *shown.shapes))
        if any(held_out(shape) for shape in reversed_scene(scene).shapes):
            assert shown == scene and torch.equal(frames, clip)
            kept += 1
        else:
            assert shown == reversed_scene(scene) and torch.equal(frames, clip.flip(1))
            turned += 1
    assert turned > 200 and kept > 20


def test_each_round_of_filming_draws_from_its_pools() -> None:
    scenes = [film_scene_at(0, i) for i in range(400)]
    pools = pools_of(scenes)
    assert set(pools.big) < set(pools.simple) < set(pools.every) and set(pools.pointed) < set(pools.simple)
    assert all(scenes[i].shapes[0].shape in ("star", "cross") for i in pools.pointed)
    assert all(len(scenes[i].shapes) == 1 for i in pools.simple)
    rng = random.Random(0)
    first, _, pointed, spinning = ROUNDS
    assert [first.draws(rng, done, pools) for done in (0.1, 0.5, 0.9)] == [pools.big, pools.simple, pools.every]
    drawn = [pointed.draws(rng, 0.5, pools) for _ in range(1000)]
    shares = [sum(pool is one for pool in drawn) / 1000 for one in (pools.pointed, pools.simple, pools.every)]
    assert shares == pytest.approx([0.45, 0.4, 0.15], abs=0.05)
    assert all(scenes[i].shapes[0].motion == "spinning" for i in pools.spinning)
    assert sum(spinning.draws(rng, 0.5, pools) is pools.spinning for _ in range(1000)) == pytest.approx(400, abs=60)
    assert len({part.name for part in ROUNDS}) == len(ROUNDS), "rounds of one name would share a checkpoint"
