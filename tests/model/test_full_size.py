"""Full-size models without content: every part has the published number of parameters, and the plan counts the same.

Published: CLIP ViT-L/14's vision tower 303,179,776 and LLaMA-7B 6,738,415,616 (their checkpoints on the Hugging Face
Hub); OpenCLIP ViT-H/14's text tower with 23 of its 24 layers, as Stable Diffusion 2 and ModelScope use it, 340,387,840;
Stable Diffusion's VAE 83,653,863. Of ModelScope, from which ZeroScope was made, only "1.7 billion" is published (arXiv
2308.06571); diffusers' classes have 1.75 without the VAE and 1.84 with it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig
from gpt4video_cli.model.assembly import LLAMA_7B, write_assembly
from gpt4video_cli.model.model_sizes import Precision, measure_model
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.weights.card import read_card

VISION, LLAMA, PAPER_ABSTRACTOR = 303_179_776, 6_738_415_616, 81_534_976


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parts_of_the_7b_assembly_on_the_meta_device() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    config = VisualEncoderConfig()
    with torch.device("meta"):
        ours = VisualEncoder(config)
        theirs = CLIPVisionModel(CLIPVisionConfig(**config.as_clip_vision_config()))
        llama = LlamaForCausalLM(LlamaConfig(**LLAMA_7B, num_hidden_layers=32))
        paper = Abstractor(AbstractorConfig.paper())
        owl = Abstractor(AbstractorConfig.mplug_owl_video())
    assert count(ours) == count(theirs) == VISION
    assert count(llama) == LLAMA
    assert count(paper) == PAPER_ABSTRACTOR
    # The same layers and queries; instead of one map to the language model two, and an end token.
    assert count(owl) == PAPER_ABSTRACTOR + (1024 * 4096 + 4096) + 4096


def test_the_plan_counts_the_same_from_headers_alone(tmp_path: Path) -> None:
    folder = write_assembly(tmp_path / "7b", hollow=True)
    on_disk = sum(path.stat().st_blocks for path in folder.rglob("*")) * 512
    assert on_disk < 10_000_000, "the files are hollow"
    sizes = measure_model(read_card(folder / "card.toml"), folder, Precision("bfloat16", "bfloat16"))
    assert {part.name: part.parameters for part in sizes.parts} == {
        "vision": VISION,
        "abstractor": PAPER_ABSTRACTOR,
        "language": LLAMA,
    }
    assert sizes.weights == 2 * (VISION + PAPER_ABSTRACTOR + LLAMA)
    assert sizes.cache == 2 * 32 * 4096 * 2048 * 2  # keys and values, layers, width, positions, bytes
    narrow = measure_model(read_card(folder / "card.toml"), folder, Precision("bfloat16", "4bit"))
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    language = next(part.bytes for part in narrow.parts if part.name == "language")
    assert 0.515 < (language - 2 * (LLAMA - linear)) / linear < 0.517  # 4.127 bits: QLoRA, section 3


def test_zeroscope_on_the_meta_device() -> None:
    """The sizes of cerspense/zeroscope_v2_576w: those of ModelScope, which are the defaults of diffusers' class."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
    blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        unet = UNet3DConditionModel(cross_attention_dim=1024, attention_head_dim=64)
        vae = AutoencoderKL(**blocks, **kinds)
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **text))
    counts = {"unet": count(unet), "vae": count(vae), "text_encoder": count(encoder)}
    assert counts["vae"] == 83_653_863
    assert counts["text_encoder"] == 340_387_840
    assert counts["unet"] == 1_411_233_860  # no published figure was at hand to compare with
    assert sum(counts.values()) - counts["vae"] == pytest.approx(1.7e9, rel=0.05)
