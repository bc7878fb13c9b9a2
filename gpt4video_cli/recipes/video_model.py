"""Make the bundled text-to-video model from nothing, with a fixed seed.

    gpt4video train --recipe film --output DIR

drawn clips -> video VAE -> latents -> Wan transformer and text encoder, in four rounds -> a diffusers folder.
Each part is kept in the work folder when it is finished and continued from its last checkpoint when it is not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.recipes.closure import say
from gpt4video_cli.recipes.text_to_video import (
    ROUNDS,
    SHIFT,
    draw_clips,
    new_text_encoder,
    new_transformer,
    train_prompt_tokenizer,
    train_text_to_video,
)
from gpt4video_cli.recipes.video_vae import (
    LATENT_CHANNELS,
    encode_clips,
    new_video_vae,
    peak_signal_to_noise,
    set_latent_statistics,
    train_video_vae,
)
from gpt4video_cli.training.loop import LoopOptions
from gpt4video_cli.whole_file import write_whole


@dataclass(frozen=True)
class VideoRecipe:
    """Every number of the bundled text-to-video model. Batch sizes count frames and clips."""

    seed: int = 0
    clips: int = 16_000
    vae: LoopOptions = LoopOptions(steps=2000, learning_rate=1.5e-3, warm_up=50, betas=(0.9, 0.98))
    vae_batch: int = 32
    film: LoopOptions = LoopOptions(steps=4500, learning_rate=2e-3, warm_up=60, average=0.998, muon_rate=6e-3)
    refined: LoopOptions = LoopOptions(steps=1500, learning_rate=1e-3, warm_up=30, average=0.998, muon_rate=4e-3)
    pointed: LoopOptions = LoopOptions(steps=1200, learning_rate=1e-3, warm_up=30, average=0.998, muon_rate=4e-3)
    spinning: LoopOptions = LoopOptions(steps=1500, learning_rate=1e-3, warm_up=30, average=0.998, muon_rate=4e-3)
    """Of the four ``text_to_video.ROUNDS``."""
    film_batch: int = 64


def make_video_model(output: Path, work: Path, recipe: VideoRecipe) -> None:
    """Run what is not finished in ``work``, then write the pipeline's folder ``output``."""
    work.mkdir(parents=True, exist_ok=True)
    frames = draw_clips(recipe.clips, seed=recipe.seed, cache=work / f"films_{recipe.clips}.npy")
    vae = _vae(frames, work, recipe)
    latents = _latents(vae, frames, work, recipe)

    tokenizer = _tokenizer(work, recipe)
    text_encoder = new_text_encoder(len(tokenizer), seed=recipe.seed)
    transformer = new_transformer(LATENT_CHANNELS, seed=recipe.seed)
    for part, options in zip(ROUNDS, (recipe.film, recipe.refined, recipe.pointed, recipe.spinning), strict=True):
        train_text_to_video(
            transformer,
            text_encoder,
            tokenizer,
            latents,
            options,
            folder=work,
            batch_size=recipe.film_batch,
            seed=recipe.seed,
            part=part,
        )
    _save(output, tokenizer, text_encoder, transformer, vae)


def _vae(frames: Any, work: Path, recipe: VideoRecipe) -> Any:
    from diffusers import AutoencoderKLWan

    if not (work / "vae").exists():
        vae = new_video_vae(recipe.seed)
        train_video_vae(vae, frames, recipe.vae, folder=work, batch_size=recipe.vae_batch, seed=recipe.seed)
        vae.half().save_pretrained(work / "vae")
    vae = AutoencoderKLWan.from_pretrained(work / "vae", torch_dtype=torch.float32)
    say(f"VAE, decibels on 64 clips: {peak_signal_to_noise(vae, frames[:64]):.3f}")
    return vae


def _latents(vae: Any, frames: Any, work: Path, recipe: VideoRecipe) -> torch.Tensor:
    """Normalised latents ``[n, C, F, s, s]`` in float16; their statistics go into the configuration of ``vae``."""
    from safetensors.torch import load_file, save_file

    file = work / f"latents_{recipe.clips}.safetensors"
    if not file.exists():
        save_file({"latents": encode_clips(vae, frames)}, file)
    latents = load_file(file)["latents"]
    set_latent_statistics(vae, latents)
    mean = torch.tensor(vae.config.latents_mean)[:, None, None, None]
    deviation = torch.tensor(vae.config.latents_std)[:, None, None, None]
    return ((latents.float() - mean) / deviation).half()


def _tokenizer(work: Path, recipe: VideoRecipe) -> Any:
    from transformers import AutoTokenizer

    if not (work / "tokenizer").exists():
        train_prompt_tokenizer(seed=recipe.seed).save_pretrained(work / "tokenizer")
    return AutoTokenizer.from_pretrained(work / "tokenizer")


def _save(output: Path, tokenizer: Any, text_encoder: Any, transformer: Any, vae: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.half(),
        vae=vae.half(),
        transformer=transformer.half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT, stochastic_sampling=True),
    )
    pipeline.save_pretrained(output)
    for config in output.rglob("*config.json"):
        values = json.loads(config.read_text(encoding="utf-8"))
        if values.pop("_name_or_path", None) is not None:  # where it lay during training
            write_whole(config, json.dumps(values, indent=2, sort_keys=True) + "\n")
    for weights in output.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes its files readable by their owner alone


def make(output: Path, work: Path) -> None:
    """The recipe: the pipeline's folder ``output``, made with ``work`` for what is not finished yet."""
    make_video_model(output, work, VideoRecipe())
