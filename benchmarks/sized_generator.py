"""A text-to-video model of a middle size with random weights, in ZeroScope's classes, for measuring speed.

Its clips show nothing. How close a short way of sampling comes to the same model's converged clip can be measured all
the same: that is a property of the solver and of a smooth network, not of what the network has learnt.
"""

from __future__ import annotations

from pathlib import Path

from gpt4video_cli.gallery.random_generator import write_random_generator
from gpt4video_cli.weights.card import FILE_NAME
from gpt4video_cli.whole_file import write_whole

WIDTHS = {"middle": (64, 128, 256, 256), "small": (16, 32, 32, 32)}
"""Of the four levels of the UNet and of the VAE. Middle: 56 million parameters in the UNet."""
FRAMES, SIDE, STEPS = 4, 64, 50


def write_sized_generator(folder: Path, size: str = "middle") -> Path:
    """Write a model folder with a card: clips of 4 frames of 64 x 64 pixels, DDIM with 50 steps, guidance 9."""
    import diffusers
    import torch

    write_random_generator(folder, "zeroscope", name=f"random-{size}")
    widths = WIDTHS[size]
    group = {"norm_num_groups": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet3DConditionModel(
            sample_size=SIDE // 8, block_out_channels=widths, cross_attention_dim=32, attention_head_dim=16, **group
        )
        vae = diffusers.AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=SIDE,  # larger frames would be decoded as tiles
            **group,
        )
    # v-prediction from the same noise level for any number of steps, and nothing clipped: solvers then converge to one
    # clip although the network has learnt nothing.
    diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
    ).save_pretrained(folder / "scheduler")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    card = (folder / FILE_NAME).read_text(encoding="utf-8")
    for line, other in [
        ("width = 32", f"width = {SIDE}"),
        ("height = 32", f"height = {SIDE}"),
        ("steps = 3", "steps = 50"),
    ]:
        card = card.replace(line, other)
    write_whole(folder / FILE_NAME, card.replace("guidance = 3.0", "guidance = 9.0"))
    return folder
