"""Out of memory is told with the option that would help, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt4video_cli.errors import GenerationError
from gpt4video_cli.gallery import memory
from gpt4video_cli.gallery.memory import advice, explained_memory
from gpt4video_cli.gallery.options import LoadOptions

LATENTS = Path("a.mp4.latents.safetensors")


@pytest.mark.parametrize(
    ("gpu", "stage", "options", "said"),
    [
        (True, "denoising", LoadOptions(), "--offload model"),
        (True, "denoising", LoadOptions(offload="model"), "--offload sequential"),
        (True, "denoising", LoadOptions(offload="sequential"), "fewer --frames or a smaller --size"),
        (True, "denoising", LoadOptions(device="cpu"), "--dtype bfloat16"),
        (False, "loading", LoadOptions(), "--dtype bfloat16"),
        (False, "loading", LoadOptions(dtype="bfloat16"), "fewer --frames or a smaller --size"),
        (True, "decoding", LoadOptions(vae_tiling=False), f"--resume {LATENTS} without --no-vae-slicing"),
        (True, "decoding", LoadOptions(), f"--resume {LATENTS} --offload model"),
        (True, "decoding", LoadOptions(offload="model"), f"--resume {LATENTS} --device cpu"),
        (False, "decoding", LoadOptions(), f"--resume {LATENTS} with other programs closed"),
    ],
)
def test_advice_is_what_was_not_tried_yet(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, stage: str, options: LoadOptions, said: str
) -> None:
    monkeypatch.setattr(memory, "_has_gpu", lambda: gpu)
    assert said in advice(stage, options, LATENTS)


def test_what_counts_as_out_of_memory() -> None:
    def explain(error: BaseException) -> None:
        with explained_memory("denoising", LoadOptions(), "m"):
            raise error

    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(GenerationError, match="m: not enough memory while denoising"):
            explain(error)
    with pytest.raises(GenerationError), explained_memory("loading", LoadOptions(), "m"):
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"):
        explain(RuntimeError("shapes differ"))
