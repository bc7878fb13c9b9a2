"""Tiny text-to-video models with random weights: complete, correct in form, and filming noise.

For testing pipelines: the same folders that ``from_pretrained`` takes, small enough to film in a second on a CPU.

    python -m gpt4video_cli.gallery.random_generator KIND FOLDER
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.loading import quieten
from gpt4video_cli.weights.card import FILE_NAME
from gpt4video_cli.whole_file import write_whole

WORDS = "a the red blue green circle square triangle moves left right up down on black white background small big"
SIDE = 32
_WIDTH = 32
"""Of the text embeddings."""


@dataclass(frozen=True)
class _Kind:
    pipeline: str
    frames: int
    rules: str
    scheduler: str = "default"
    call: str = ""


KINDS = {
    "wan": _Kind(
        "WanPipeline", 5, "size_multiple = 4\nmax_side = 128\nmax_frames = 16", call="max_sequence_length = 16"
    ),
    "zeroscope": _Kind("TextToVideoSDPipeline", 4, "size_multiple = 8\nmax_side = 64\nmax_frames = 8", "ddim"),
    "cogvideox": _Kind(
        "CogVideoXPipeline",
        9,
        "size_multiple = 16\nmax_side = 32\nmin_side = 32\nframes_multiple = 8\nframes_offset = 1\nmax_frames = 17\n"
        'schedulers = ["cogvideox-ddim", "cogvideox-dpm"]',
        call="max_sequence_length = 16",
    ),
    "ltx": _Kind(
        "LTXPipeline",
        9,
        "size_multiple = 32\nmax_side = 64\nframes_multiple = 8\nframes_offset = 1\nmax_frames = 17",
        call="max_sequence_length = 16",
    ),
}
"""``wan``: the class of the bundle. ``zeroscope``: an unmaintained class with the old callback. The others: two more
maintained ones, whose latents have other layouts."""


def write_random_generator(folder: str | Path, kind: str = "wan", *, seed: int = 0, name: str = "random") -> Path:
    """Write a model folder with a card (0.1 to 2 MB) and return it. The same arguments give the same weights.

    Films of 32 x 32 pixels, 4 to 9 frames, 3 steps.
    """
    if kind not in KINDS:
        raise UsageError(f"no random generator {kind!r}", hint=f"known: {', '.join(KINDS)}")
    quieten()
    import torch

    folder = Path(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = {"wan": _wan, "zeroscope": _zeroscope, "cogvideox": _cogvideox, "ltx": _ltx}[kind]()
    pipe.save_pretrained(folder)
    write_whole(folder / FILE_NAME, _card(KINDS[kind], name))
    return folder


def _card(kind: _Kind, name: str) -> str:
    return f"""\
schema = 1
kind = "generator"
name = "{name}"
summary = "Random weights, for testing pipelines; its clips show nothing."
licence = "CC0-1.0"
limits = ["It films noise: its weights are random."]

[pipeline]
class = "{kind.pipeline}"
prompt_tokens = 16

[defaults]
width = {SIDE}
height = {SIDE}
frames = {kind.frames}
fps = 8
steps = 3
guidance = 3.0
scheduler = "{kind.scheduler}"

[rules]
{kind.rules}

[call]
{kind.call}
"""


def _tokenizer() -> Any:
    """Whole words, with the end token that the text encoders expect; 16 tokens at most."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<unk>"]
    words = {word: index for index, word in enumerate([*names, *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special)


def _text(kind: str) -> tuple[Any, Any]:
    import transformers

    tokenizer = _tokenizer()
    if kind == "clip":
        text = {"hidden_size": _WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
        config = transformers.CLIPTextConfig(vocab_size=64, max_position_embeddings=16, **text, **ids)
        return tokenizer, transformers.CLIPTextModel(config)
    family = {"umt5": "UMT5", "t5": "T5"}[kind]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=64, d_model=_WIDTH, d_ff=64, d_kv=16, num_heads=2, num_layers=2, pad_token_id=0, eos_token_id=1
    )
    return tokenizer, getattr(transformers, f"{family}EncoderModel")(config)


def _wan() -> Any:
    """As the bundle's model: a VAE that keeps every frame (factor 1 in time)."""
    import diffusers

    vae = diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[1.1, 0.9, 1.0, 1.2],
        scale_factor_temporal=1,
        scale_factor_spatial=2,
    )
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=_WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    tokenizer, encoder = _text("umt5")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.WanPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )


def _zeroscope() -> Any:
    """The classes of ZeroScope and ModelScope, small."""
    import diffusers

    unet = diffusers.UNet3DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        norm_num_groups=4,
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
    )
    tokenizer, encoder = _text("clip")
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return diffusers.TextToVideoSDPipeline(
        vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
    )


def _cogvideox() -> Any:
    import diffusers

    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=_WIDTH,
        num_layers=2,
        sample_width=SIDE // 8,
        sample_height=SIDE // 8,
        sample_frames=5,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
    )
    tokenizer, encoder = _text("t5")
    scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction")
    return diffusers.CogVideoXPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )


def _ltx() -> Any:
    import diffusers

    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        patch_size=4,
    )
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=_WIDTH,
        num_layers=2,
        caption_channels=_WIDTH,
    )
    tokenizer, encoder = _text("t5")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.LTXPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python -m gpt4video_cli.gallery.random_generator {'|'.join(KINDS)} FOLDER")
    write_random_generator(sys.argv[2], sys.argv[1])
