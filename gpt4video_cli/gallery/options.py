"""How a text-to-video model is loaded. Nothing heavy is imported here, so that wrong options are told at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gpt4video_cli.errors import UsageError

Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class LoadOptions:
    """``offload`` keeps parts in the main memory and moves them to the GPU when it is their turn: ``model`` moves whole
    parts (somewhat slower), ``sequential`` single layers (much slower, least memory). Slicing decodes as many frames at
    a time as there is memory for, tiling one tile of a large frame at a time, where the model's VAE can. ``compile``
    has torch compile the denoiser's blocks in the first step, which pays back over many steps or clips.
    """

    device: str = "auto"
    dtype: str = "auto"
    offload: Offload = "none"
    vae_slicing: bool = True
    vae_tiling: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        if self.offload not in get_args(Offload):
            raise UsageError(f"--offload is {self.offload!r}; it must be one of {', '.join(get_args(Offload))}")
        if self.compile and self.offload == "sequential":
            raise UsageError("--compile cannot be given with --offload sequential, which takes the blocks apart")
        if self.device == "cpu":
            self.check_device("cpu")

    def check_device(self, kind: str) -> None:
        """Refuse what the device cannot do; ``kind`` (``cpu``, ``cuda``, ``mps``) is known when the model is loaded."""
        if self.offload != "none" and kind == "cpu":
            raise UsageError(
                f"--offload {self.offload} moves parts between a GPU and the memory, but the device is cpu"
            )
