"""Out of memory, said with the option that would help."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt4video_cli.errors import GenerationError
from gpt4video_cli.gallery.options import LoadOptions

# What torch's CPU allocator says; on a GPU there is a class of its own.
_CPU_SIGNS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")


@contextmanager
def explained_memory(stage: str, options: LoadOptions, model: str, latents: Path | None = None) -> Iterator[None]:
    """Turns running out of memory inside into a ``GenerationError`` with advice. ``latents``: what can be resumed."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise GenerationError(
            f"{model}: not enough memory while {stage}", hint=advice(stage, options, latents)
        ) from error


def advice(stage: str, options: LoadOptions, latents: Path | None = None) -> str:
    """The first option, in the order of what it costs, that was not used yet."""
    gpu = _has_gpu() and options.device != "cpu"
    if stage == "decoding":
        resume = f"gpt4video generate --resume {latents}" if latents else "film it again"
        if not (options.vae_slicing and options.vae_tiling):
            return f"{resume} without --no-vae-slicing and --no-vae-tiling needs less"
        if gpu and options.offload == "none":
            return f"{resume} --offload model needs less"
        return f"{resume} --device cpu needs no GPU memory" if gpu else f"{resume} with other programs closed"
    if gpu and options.offload != "sequential":
        return (
            f"--offload {'model' if options.offload == 'none' else 'sequential'} needs less, and so do fewer --frames"
        )
    if options.dtype in ("auto", "float32") and not gpu:
        return "--dtype bfloat16 needs half of it, fewer --frames or a smaller --size need less"
    return "fewer --frames or a smaller --size need less"


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in _CPU_SIGNS)


def _has_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())
