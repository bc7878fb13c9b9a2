"""Make the bundled model from nothing, in the paper's order, with a fixed seed.

    gpt4video train --recipe bundle --output DIR

tokenizer -> clips -> small CLIP (contrastive, then patch by patch, then over neighbouring frames) -> LLaMA
(pretraining, practice, conversation, details) -> warm start of the abstractor -> stage 1 (align) -> stage 2 (instruct)
-> model folder.
Each part is kept in the work folder when it is finished and continued from its last checkpoint when it is not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer

from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig, save_abstractor
from gpt4video_cli.model.visual_encoder import VisualEncoder, load_visual_encoder, save_visual_encoder
from gpt4video_cli.recipes.align import align, precompute_features
from gpt4video_cli.recipes.clips import SOURCES, KnownClips, SampledClips, sampled_clips
from gpt4video_cli.recipes.closure import say
from gpt4video_cli.recipes.contrastive import SIDE, retrieval, small_encoder_config, train_contrastive
from gpt4video_cli.recipes.fact_slots import prefer_times, warm_up
from gpt4video_cli.recipes.instruct import instruct, with_lora
from gpt4video_cli.recipes.language_model import converse, new_language_model, practise, pretrain, sharpen
from gpt4video_cli.recipes.patch_motion import told, train_patches, with_heads
from gpt4video_cli.recipes.patch_phrases import patches_right, train_patch_phrases
from gpt4video_cli.recipes.tokenizer import train_tokenizer
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.training.trained_model import relocated
from gpt4video_cli.video.preprocess import CONFIG_NAME, PreprocessConfig
from gpt4video_cli.weights.card import FILE_NAME, Card, render_card
from gpt4video_cli.weights.gguf_adapter import export_adapter_gguf
from gpt4video_cli.weights.gguf_export import export_gguf
from gpt4video_cli.whole_file import write_whole


@dataclass(frozen=True)
class Recipe:
    """Every number of the bundle. Batch sizes count frames, dialogues and dialogues."""

    seed: int = 0
    frames: int = 8
    """T: frames that are sampled from a clip."""
    vocabulary: int = 1024
    contrastive: LoopOptions = LoopOptions(steps=2500, learning_rate=1e-3, warm_up=60)
    contrastive_batch: int = 130
    contrastive_pool: int = 20_000
    patches: LoopOptions = LoopOptions(steps=1500, learning_rate=7e-4, warm_up=60)
    patches_batch: int = 80
    patches_pool: int = 10_000
    language: LoopOptions = LoopOptions(steps=2000, learning_rate=1.5e-3, warm_up=50)
    language_batch: int = 32
    practice: LoopOptions = LoopOptions(steps=2000, learning_rate=1e-3, warm_up=40)
    practice_batch: int = 32
    conversation: LoopOptions = LoopOptions(steps=600, learning_rate=6e-4, warm_up=30)
    conversation_batch: int = 32
    details: LoopOptions = LoopOptions(steps=600, learning_rate=6e-4, warm_up=30)
    details_batch: int = 32
    clips: int = 14_000
    events: int = 7_000
    pictures: int = 9_000
    monochrome: int = 3_000
    """How many clips of each of ``clips.SOURCES``."""
    motion: LoopOptions = LoopOptions(steps=700, learning_rate=1e-3, warm_up=40, muon_rate=3e-3)
    camera: LoopOptions = LoopOptions(steps=400, learning_rate=1e-3, warm_up=20, muon_rate=3e-3)
    together: LoopOptions = LoopOptions(steps=150, learning_rate=5e-4, warm_up=10, muon_rate=1.5e-3)
    motion_batch: int = 15
    motion_pool: int = 4_000
    """The first so many clips of each source."""
    queries: int = 32
    """N: video tokens of a clip; 32 spatial and 32 temporal queries."""
    warm_up: LoopOptions = LoopOptions(steps=2500, learning_rate=1.5e-3, warm_up=50, muon_rate=6e-3)
    warm_up_batch: int = 32
    align: LoopOptions = LoopOptions(steps=320, learning_rate=5e-4, warm_up=30)
    align_events: LoopOptions = LoopOptions(steps=430, learning_rate=4e-4, warm_up=15, muon_rate=1.5e-3)
    align_batch: int = 48
    instruct: LoopOptions = LoopOptions(steps=1200, learning_rate=1e-3, warm_up=30)
    instruct_batch: int = 16


def make_bundle(output: Path, work: Path, recipe: Recipe) -> None:
    """Run what is not finished in ``work``, then write the model folder ``output`` (everything but its card)."""
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(work, recipe)
    clips = _sampled_clips(work, recipe)
    # Without those in black and white: only the abstractor took what they show for gray backgrounds.
    encoder = _encoder(tokenizer, clips[:3], work, recipe)
    language_model = _language_model(tokenizer, work, recipe)
    if not (work / "abstractor.safetensors").exists():
        torch.manual_seed(recipe.seed)
        abstractor = Abstractor(_abstractor_config(encoder, language_model, recipe))
        prefer_times(abstractor, seed=recipe.seed)
        known = _known_clips(encoder, clips, work)
        warm_up(
            abstractor,
            language_model,
            tokenizer,
            known,
            recipe.warm_up,
            folder=work,
            batch_size=recipe.warm_up_batch,
            seed=recipe.seed,
        )
        rounds = (("align", recipe.align, 0, 0.0), ("align_events", recipe.align_events, recipe.align.steps, 0.35))
        for name, options, first_step, events in rounds:
            align(
                abstractor,
                language_model,
                tokenizer,
                known,
                options,
                name=name,
                first_step=first_step,
                events=events,
                folder=work,
                batch_size=recipe.align_batch,
                seed=recipe.seed,
            )
        save_abstractor(abstractor.half(), work / "abstractor.safetensors")
    if not (work / "adapter").exists():
        adapted = with_lora(language_model, seed=recipe.seed)
        instruct(adapted, tokenizer, recipe.instruct, folder=work, batch_size=recipe.instruct_batch, seed=recipe.seed)
        adapted.half().save_pretrained(work / "adapter")
    _assemble(output, work, encoder.config.image_size)


def _tokenizer(work: Path, recipe: Recipe) -> Tokenizer:
    file = work / "tokenizer.json"
    if not file.exists():
        train_tokenizer(vocabulary=recipe.vocabulary, seed=recipe.seed).save(str(file))
    return Tokenizer.from_file(str(file))


def _encoder(tokenizer: Tokenizer, clips: Sequence[SampledClips], work: Path, recipe: Recipe) -> VisualEncoder:
    """The encoder, float32: a CLIP of single frames, kept in ``vision-of-frames``, then of clips, in ``vision``."""
    of_frames, of_clips = work / "vision-of-frames", work / "vision"
    if not of_frames.exists():
        torch.manual_seed(recipe.seed)
        encoder = VisualEncoder(small_encoder_config())
        pair = train_contrastive(
            encoder,
            tokenizer,
            recipe.contrastive,
            folder=work,
            batch_size=recipe.contrastive_batch,
            pool=recipe.contrastive_pool,
            seed=recipe.seed,
        )
        train_patch_phrases(
            pair,
            tokenizer,
            recipe.patches,
            folder=work,
            batch_size=recipe.patches_batch,
            pool=recipe.patches_pool,
            seed=recipe.seed,
        )
        say(f"retrieval of 1 in 255 unseen captions: {retrieval(pair, tokenizer):.3f}")
        say(f"patches of objects that are named: {patches_right(pair, tokenizer):.3f}")
        save_visual_encoder(encoder.half(), of_frames)
    if not of_clips.exists():
        trained = with_heads(load_visual_encoder(of_frames, dtype="float32"), seed=recipe.seed)
        drawn, events, pictures = clips
        rounds = (
            ("motion", recipe.motion, (drawn, events, pictures)),
            ("camera", recipe.camera, (pictures, pictures, drawn, pictures, pictures, events)),
            ("together", recipe.together, (drawn, events, pictures)),
        )
        for name, options, shown in rounds:
            train_patches(
                trained,
                shown,
                options,
                name=name,
                folder=work,
                batch_size=recipe.motion_batch,
                pool=recipe.motion_pool,
                seed=recipe.seed,
            )
            say(f"told rightly of unseen clips after the round {name}: {told(trained, clips, pool=recipe.motion_pool)}")
        save_visual_encoder(cast(VisualEncoder, trained["encoder"]).half(), of_clips)
    return load_visual_encoder(of_clips, dtype="float32")


def _language_model(tokenizer: Tokenizer, work: Path, recipe: Recipe) -> Any:
    """The pretrained model, float32; each round's result is kept, the last in ``language``."""
    model = new_language_model(tokenizer.get_vocab_size(), seed=recipe.seed)
    rounds = (
        ("pretrained", pretrain, recipe.language, recipe.language_batch),
        ("practised", practise, recipe.practice, recipe.practice_batch),
        ("conversed", converse, recipe.conversation, recipe.conversation_batch),
        ("language", sharpen, recipe.details, recipe.details_batch),
    )
    for name, train, options, batch_size in rounds:
        folder = work / name
        if not folder.exists():
            train(model, tokenizer, options, folder=work, batch_size=batch_size, seed=recipe.seed)
            model.half().save_pretrained(folder)
            (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        model = type(model).from_pretrained(folder, dtype=torch.float32)
    return model


def _sampled_clips(work: Path, recipe: Recipe) -> list[SampledClips]:
    return [
        sampled_clips(
            source,
            getattr(recipe, source),
            frames=recipe.frames,
            side=SIDE,
            seed=recipe.seed,
            cache=work / f"clips_{source}_{getattr(recipe, source)}",
        )
        for source in SOURCES
    ]


def _known_clips(encoder: VisualEncoder, clips: Sequence[SampledClips], work: Path) -> KnownClips:
    cache = work / f"features_{'_'.join(str(len(each.scenes)) for each in clips)}.npy"
    scenes = [scene for each in clips for scene in each.scenes]
    return KnownClips(precompute_features(encoder, [each.frames for each in clips], cache), scenes)


def _abstractor_config(encoder: VisualEncoder, language_model: Any, recipe: Recipe) -> AbstractorConfig:
    return AbstractorConfig.trained_here(
        width=encoder.config.width,
        output_width=language_model.config.hidden_size,
        queries=recipe.queries,
        layers=3,  # 6, as in the paper, learn as much in a step, which takes 1.7 times as long
        heads=4,
        mlp_width=384,
        frame_positions=recipe.frames,
    )


def _assemble(output: Path, work: Path, side: int) -> None:
    """Copy the finished parts into a model folder; training leftovers stay behind."""
    wanted = {
        "vision": ("config.json", "model.safetensors"),
        "language": ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        "adapter": ("adapter_config.json", "adapter_model.safetensors"),
        ".": ("abstractor.safetensors",),
    }
    for part, names in wanted.items():
        (output / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            content = (work / part / name).read_bytes()
            if name == "adapter_config.json":
                content = relocated(content.decode()).encode()
            (output / part / name).write_bytes(content)
    config = json.dumps(PreprocessConfig.square(side).as_dict(), indent=2)
    (output / "vision" / CONFIG_NAME).write_text(config + "\n", encoding="utf-8")


def bundle_card(recipe: Recipe) -> Card:
    """The card of the model that ``recipe`` makes, without what was measured."""
    return Card(
        name="bundle",
        summary="A small demonstration model that knows ShapeWorld: simple coloured shapes and how they move.",
        licence="Apache-2.0",
        template="paper",
        frames=recipe.frames,
        final_norm=True,
        max_tokens=128,
        made_from=(
            "Trained from nothing by this project (gpt4video train --recipe bundle, seed "
            f"{recipe.seed}): a CLIP of {recipe.contrastive_pool} rendered frames whose patches then learned what "
            "moves, comes and goes in clips, a LLaMA pretrained on described clips and on requests, stage 1 on "
            f"{sum(getattr(recipe, source) for source in SOURCES)} rendered clips after a warm start in which each "
            "video token learns to stand for one fact, stage 2 on text with a LoRA adapter."
        ),
        citation="GPT4Video, arXiv 2311.16511 (method); this project (weights)",
        limits=(
            "It knows rendered clips of at most three coloured shapes. Of real footage it was trained to say that it "
            "sees no shape it knows; camera, fade and main colour it learned on drawn pictures alone.",
            "It sees 8 frames of 80 x 80 pixels, the middle square of each, and hears nothing.",
            "It understands the plain English of its training: questions about colour, shape, size, motion, number, "
            "background, camera, fades, the main colour, what appears or disappears, and what happens first.",
            "Its visual encoder has temporal convolutions, as mPLUG-Owl-video has: other tools open its folder as a "
            "CLIP of single frames and leave them out.",
            "Its refusals are a few trained sentences, not a safety system.",
        ),
    )


def make(output: Path, work: Path) -> None:
    """The recipe: model folder ``output`` with its card, made with ``work`` for what is not finished yet."""
    recipe = Recipe()
    make_bundle(output, work, recipe)
    card = bundle_card(recipe)
    write_whole(output / FILE_NAME, render_card(card))
    write_gguf(output, card)


def write_gguf(folder: Path, card: Card) -> None:
    """The language model and the adapter of a model folder for llama.cpp, with which a CPU starts sooner."""
    language = folder / "language"
    export_gguf(language, language / "model-f16.gguf", "f16", card=card, force=True)
    export_adapter_gguf(folder / "adapter", language, folder / "adapter" / "adapter-f16.gguf", "f16", force=True)
