"""ZeroScope's own configuration, at full size, through the same code: 1.4 B parameters that exist by shape only."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gpt4video_cli.gallery.decoding import decode
from gpt4video_cli.gallery.diffusers_generator import frames_to_ask
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.limits import complete
from gpt4video_cli.gallery.loading import pipeline_class
from gpt4video_cli.weights.find_generator import find_generator


@pytest.fixture(scope="module")
def pipe() -> Any:
    return full_size("meta")


def full_size(device: str, tokenizer: Any = None) -> Any:
    """The parts of cerspense/zeroscope_v2_576w, with random weights or none (on the meta device).

    The UNet has the defaults of its class, which was written for this architecture (widths 320, 640, 1280, 1280; cross
    attention 1024; heads of 64); the VAE is Stable Diffusion's, the text encoder OpenCLIP's ViT-H less its last layer.
    """
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device(device):
        unet = diffusers.UNet3DConditionModel(sample_size=32, cross_attention_dim=1024, attention_head_dim=64)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                projection_dim=512,
                hidden_act="gelu",
            )
        )
    kind = pipeline_class("TextToVideoSDPipeline")
    return kind(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=diffusers.DDIMScheduler())


def test_it_has_its_real_size(pipe: Any) -> None:
    counts = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in ("unet", "vae", "text_encoder")
    }
    assert 1.3e9 < counts["unet"] < 1.5e9 and counts["vae"] == 83_653_863
    assert 1.6e9 < sum(counts.values()) < 2.0e9, counts  # "1.7 billion", says ModelScope, whose architecture it is


def test_a_step_and_the_decoding_have_the_cards_shapes(pipe: Any) -> None:
    request = complete(FilmRequest("Darth Vader surfing a wave"), find_generator("zeroscope-v2-576w").card)
    assert frames_to_ask(pipe, int(request.frames or 0)) == 24
    shape = (2, 4, 24, 40, 72)  # [B, C, t, h, w]: guidance doubles the batch
    with torch.no_grad():
        words = pipe.text_encoder(torch.zeros(2, 77, dtype=torch.long, device="meta"))[0]
        noise = pipe.unet(torch.empty(shape, device="meta"), 999, encoder_hidden_states=words, return_dict=False)[0]
    assert tuple(words.shape) == (2, 77, 1024) and tuple(noise.shape) == shape
    pipe.vae.enable_slicing()
    with torch.no_grad():
        video = pipe.decode_latents(torch.empty(1, *shape[1:], device="meta"))
    assert tuple(video.shape) == (1, 3, 24, 320, 576)
    with pytest.raises(NotImplementedError):  # what has no values cannot become a picture, and is not made up
        decode(pipe, torch.empty(1, *shape[1:], device="meta"), request)


@pytest.mark.gpu
def test_a_real_call_on_a_gpu(generator_folder: Any) -> None:
    """Random weights in float16, the card's size, frames and steps: seconds and peak memory are printed."""
    import time

    from transformers import AutoTokenizer

    from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
    from gpt4video_cli.gallery.loading import LoadedPipeline
    from gpt4video_cli.gallery.options import LoadOptions

    folder = generator_folder("zeroscope")
    generator = DiffusersGenerator.open(str(folder), LoadOptions(device="cuda"))
    generator._card = find_generator("zeroscope-v2-576w").card
    torch.set_default_dtype(torch.float16)
    try:
        real = full_size("cuda", AutoTokenizer.from_pretrained(folder / "tokenizer"))
    finally:
        torch.set_default_dtype(torch.float32)
    real.set_progress_bar_config(disable=True)
    real.vae.enable_slicing()
    device, dtype = torch.device("cuda"), torch.float16
    generator._loaded = LoadedPipeline(real, device, dtype, real.scheduler, whole=True)
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    film = generator.film(FilmRequest("a red circle moves left"))
    print(
        f"{time.perf_counter() - began:.1f} s, peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, {film.seconds}"
    )
    assert film.frames.shape == (24, 320, 576, 3)
