"""Shortcuts of denoising: which pipelines can take them, and which values make sense. Nothing heavy is imported here.

``guidance_pass`` changes the order of the work only: in float32 the numbers agree to rounding. The others change the
clip. ``guidance_until`` after Kynkäänniemi et al., "Applying Guidance in a Limited Interval" (arXiv 2404.07724): late
steps hardly need guidance. ``cache_threshold`` is diffusers' first-block cache. ``cache_every`` is DeepCache (arXiv
2312.00858) with whole levels of the UNet instead of single layers.
"""

from __future__ import annotations

import math
from typing import Any

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.weights.generator_card import GeneratorCard

ALWAYS_BATCHED = frozenset(
    {"TextToVideoSDPipeline", "VideoToVideoSDPipeline", "AnimateDiffPipeline", "CogVideoXPipeline", "LTXPipeline"}
)
"""Pipelines that hand their denoiser the negative prompt and the prompt as one batch, in this order."""
IN_TURN = frozenset({"WanPipeline"})
"""Those that call it twice in each guided step, the prompt first. HunyuanVideo is in neither: its guidance is a number
that the model reads, and costs nothing."""
BLOCKS = frozenset({"WanPipeline", "CogVideoXPipeline", "LTXPipeline", "HunyuanVideoPipeline"})
"""Those with a transformer that diffusers' first-block cache knows."""
UNETS = frozenset({"TextToVideoSDPipeline", "VideoToVideoSDPipeline", "AnimateDiffPipeline"})
"""Those with a UNet whose levels are ``down_blocks``, ``mid_block`` and ``up_blocks``."""
PASSES = ("batched", "in-turn")
CACHES = ("cache_threshold", "cache_every")


def _possible(pipeline: str) -> dict[str, bool]:
    """Whether ``pipeline`` can take each shortcut."""
    guided = pipeline in ALWAYS_BATCHED | IN_TURN
    return {
        "guidance_pass": guided,
        "guidance_until": guided,
        "cache_threshold": pipeline in BLOCKS,
        "cache_every": pipeline in UNETS,
    }


def shortcuts(request: FilmRequest, card: GeneratorCard) -> dict[str, Any]:
    """The shortcuts of ``request``, completed from the card; None where the pipeline has no such thing."""
    found: dict[str, Any] = {}
    for name, possible in _possible(card.pipeline).items():
        given = getattr(request, name)
        found[name] = (getattr(card.defaults, name) if given is None else given) if possible else None
    if found["guidance_pass"] == "default":
        found["guidance_pass"] = "in-turn" if card.pipeline in IN_TURN else "batched"
    return found


def check_shortcuts(request: FilmRequest, card: GeneratorCard) -> None:
    """Raise ``UsageError`` for a shortcut that is out of range or that the card's pipeline cannot take."""
    for name, possible in _possible(card.pipeline).items():
        if getattr(request, name) is not None and not possible:
            other = {"cache_threshold": "cache_every", "cache_every": "cache_threshold"}.get(name)
            hint = f"{_option(other)} is for it" if other and _possible(card.pipeline)[other] else None
            said = f"{_option(name)} cannot be given: {card.name} ({card.pipeline}) has no such shortcut"
            raise UsageError(said, hint=hint)
    chosen = shortcuts(request, card)
    passes = chosen["guidance_pass"]
    if passes is not None and passes not in PASSES:
        raise UsageError(f"--guidance-pass is {passes!r}; it must be one of {', '.join(PASSES)}")
    if passes == "in-turn" and card.pipeline in ALWAYS_BATCHED:
        raise UsageError(f"--guidance-pass is 'in-turn'; {card.name} ({card.pipeline}) can do batched only")
    until, threshold, every = (chosen[name] for name in ("guidance_until", *CACHES))
    if until is not None and not (math.isfinite(until) and 0 <= until <= 1):
        raise UsageError(f"--guidance-until is {until}; it must be a share of the steps from 0 to 1")
    if threshold is not None and not (math.isfinite(threshold) and 0 <= threshold < 1):
        raise UsageError(f"--cache-threshold is {threshold}; it must be at least 0 and below 1")
    if every is not None and not 1 <= every <= 1000:
        raise UsageError(f"--cache-every is {every}; it must be between 1 and 1000")


def check_compiled(request: FilmRequest) -> None:
    """Refuse, by name, to compile the blocks of a denoiser that a cache of the completed ``request`` skips."""
    for name, off in zip(CACHES, (0.0, 1), strict=True):
        if getattr(request, name) not in (None, off):
            raise UsageError(f"--compile and {_option(name)} exclude each other: compiled blocks cannot be skipped")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
