"""READ FIRST in this room: the paper's two stages. What each trains, on what data, with which numbers; nothing else
differs between them, and one loop (``loop.py``) runs both.

GPT4Video, section 3.3 and "Implementation Details" of section 4.1, for learning rates, epochs, frames and queries; the
authors' code for the adapter (q_proj and v_proj, r = 16, alpha = 16, dropout 0.1). The paper does not say its batch
size, weight decay or warm-up: those below are common ones for such models, and are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt4video_cli.errors import UsageError

PARTS = ("vision", "abstractor", "language", "adapter")
"""What a model consists of. ``language`` is the LLaMA without its adapter."""


@dataclass(frozen=True)
class LoraShape:
    """Rank, scale (``alpha / rank``), dropout and the linear layers that get a pair of low-rank matrices."""

    rank: int = 16
    alpha: int = 16
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Stage:
    """``trains``: the one of ``PARTS`` that changes; the others stay as they are, to the bit."""

    number: int
    name: str
    summary: str
    trains: str
    sees_clips: bool
    """True: clips are watched. False: text only, a clip's description stands for it."""
    learning_rate: float
    epochs: float
    batch_size: int
    warm_up: float
    """Share of the steps over which the learning rate rises."""
    weight_decay: float
    lora: LoraShape | None = None


ALIGN = Stage(
    number=1,
    name="align",
    summary="the abstractor with its projection learns to be read; visual encoder and language model are frozen",
    trains="abstractor",
    sees_clips=True,
    learning_rate=1e-4,
    epochs=2,
    batch_size=32,
    warm_up=0.03,
    weight_decay=0.01,
)
INSTRUCT = Stage(
    number=2,
    name="instruct",
    summary="an adapter of the language model learns to answer and to ask for clips, from text alone",
    trains="adapter",
    sees_clips=False,
    learning_rate=2e-5,
    epochs=3,
    batch_size=32,
    warm_up=0.03,
    weight_decay=0.0,
    lora=LoraShape(),
)
STAGES = {stage.number: stage for stage in (ALIGN, INSTRUCT)}


def find_stage(number: int) -> Stage:
    """Stage 1 or 2."""
    if number not in STAGES:
        raise UsageError(f"--stage is {number}; it must be 1 (align) or 2 (instruct)")
    return STAGES[number]
