"""The other pipeline classes that cards name, with random weights, through the same door."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.errors import ClipError
from gpt4video_cli.events import GenerationProgress
from gpt4video_cli.gallery import random_generator
from gpt4video_cli.gallery.decoding import DECODERS
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest, Happening
from gpt4video_cli.video.writer import write_mp4

REQUEST = FilmRequest("a red circle moves left", seed=3)


def write(folder: Path, pipe: Any, *, defaults: str, rules: str = "", more: str = "") -> None:
    """A model folder with a card for ``pipe``."""
    pipe.save_pretrained(folder)
    (folder / "card.toml").write_text(
        f"""schema = 1
kind = "generator"
name = "other"
summary = "random"
licence = "CC0-1.0"
[pipeline]
class = "{type(pipe).__name__}"
[defaults]
width = 32
height = 32
fps = 8
guidance = 3
{defaults}
[rules]
{rules}
{more}
"""
    )


def picture_parts() -> dict[str, Any]:
    """Stable Diffusion's classes, small."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=32,
    )
    video = random_generator._zeroscope()
    return {name: getattr(video, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")} | {"unet": unet}


def animatediff(folder: Path) -> None:
    """The motion module lies in a folder of its own, as in the hub; the picture model's folder does not know it."""
    import diffusers

    motion = diffusers.MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=2,
    )
    pictures = diffusers.StableDiffusionPipeline(**picture_parts(), safety_checker=None, feature_extractor=None)
    part = '[parts.motion_adapter]\nclass = "MotionAdapter"\nrepository = "some-one/motion"'
    write(folder, pictures, defaults="frames = 4\nsteps = 3", more=part)
    motion.save_pretrained(folder / "motion_adapter")
    card = folder / "card.toml"
    card.write_text(card.read_text().replace("StableDiffusionPipeline", "AnimateDiffPipeline"))


def zero(folder: Path) -> None:
    import diffusers

    pipe = diffusers.TextToVideoZeroPipeline(**picture_parts(), safety_checker=None, feature_extractor=None)
    rules = 'schedulers = ["ddim"]\nmin_steps = 6'
    write(folder, pipe, defaults="frames = 3\nsteps = 8", rules=rules, more="[call]\nt0 = 3\nt1 = 5")


def hunyuan(folder: Path) -> None:
    """As HunyuanVideoPipeline's own tests build it. Its template has 95 tokens for LLaMA, so words are split finely."""
    import diffusers
    import transformers
    from tokenizers import pre_tokenizers

    words = random_generator._tokenizer()
    words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=32,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    llama = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3
        )
    )
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(vocab_size=64, max_position_embeddings=77, eos_token_id=1, pad_token_id=0, **sizes)
    )
    pipe = diffusers.HunyuanVideoPipeline(
        text_encoder=llama,
        tokenizer=words,
        text_encoder_2=clip,
        tokenizer_2=random_generator._tokenizer(),
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    rules = "size_multiple = 16\nframes_multiple = 4\nframes_offset = 1\nmin_frames = 5"
    write(folder, pipe, defaults="frames = 5\nsteps = 3", rules=rules, more="[call]\nmax_sequence_length = 16")


KINDS: dict[str, Callable[[Path], None]] = {"animatediff": animatediff, "zero": zero, "hunyuan": hunyuan}


@pytest.mark.parametrize("kind", KINDS)
def test_it_films_the_same_again_and_resumes_where_it_can(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / kind)
    generator, heard = DiffusersGenerator.open(str(tmp_path / kind)), list[Happening]()
    latents = tmp_path / "latents.safetensors"
    film = generator.film(REQUEST, latents=latents, listen=heard.append)
    assert film.frames.shape == (generator.card.defaults.frames, 32, 32, 3)
    assert np.array_equal(film.frames, generator.film(REQUEST).frames)
    assert not np.array_equal(film.frames, generator.film(FilmRequest(REQUEST.prompt, seed=4)).frames)
    steps = [event.step for event in heard if isinstance(event, GenerationProgress) and event.stage == "filming"]
    assert steps[-1] == generator.card.defaults.steps
    assert latents.exists() == (generator.card.pipeline in DECODERS)
    if latents.exists():
        again = DiffusersGenerator.open(str(tmp_path / kind)).finish(latents)
        assert np.array_equal(again.frames, film.frames)


def test_a_clip_is_redrawn(generator_folder: Any, tmp_path: Path) -> None:
    """ZeroScope XL's class: video to video, with the parts of text to video."""
    folder = tmp_path / "xl"
    shutil.copytree(generator_folder("zeroscope"), folder)
    for file in (folder / "model_index.json", folder / "card.toml"):
        file.write_text(file.read_text().replace("TextToVideoSDPipeline", "VideoToVideoSDPipeline"))
    clip = tmp_path / "clip.mp4"
    frames = np.full((6, 24, 40, 3), 90, np.uint8)
    frames[:, :12] = (200, 30, 60)
    write_mp4(clip, frames, 8)
    generator = DiffusersGenerator.open(str(folder))
    request = FilmRequest("a red circle", video=str(clip), strength=0.7, steps=10)
    film = generator.film(request, latents=tmp_path / "latents.safetensors")
    assert film.frames.shape == (4, 32, 32, 3) and film.request.video == str(clip)
    assert np.array_equal(film.frames, generator.film(request).frames)
    write_mp4(clip, 255 - frames, 8)
    assert not np.array_equal(film.frames, generator.film(request).frames)
    assert np.array_equal(generator.finish(tmp_path / "latents.safetensors").frames, film.frames)
    clip.write_text("no clip")
    with pytest.raises(ClipError):
        generator.film(request)
