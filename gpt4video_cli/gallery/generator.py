"""What a text-to-video model takes and gives. READ FIRST in this room.

The path of a prompt, in the order of the files: ``limits.py`` (a request is completed from the card, or refused),
``loading.py`` (folder -> diffusers pipeline), ``diffusers_generator.py`` (prompt -> latents, with the shortcuts of
``shortcuts.py``), ``latents_file.py`` (kept on disk until the clip is written), ``decoding.py`` (latents -> frames),
``clip_file.py`` and ``side_car.py`` (frames -> files). ``filming.py`` turns the generator's calls into events.

T frames, H height, W width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpt4video_cli.events import GenerationProgress, Notice
from gpt4video_cli.weights.generator_card import GeneratorCard

if TYPE_CHECKING:
    import numpy as np

Happening = GenerationProgress | Notice
Listener = Callable[[Happening], None]


@dataclass(frozen=True)
class FilmRequest:
    """What to film. None: the model's card decides (``limits.complete``).

    ``fps`` frames per second, ``width`` and ``height`` pixels, ``steps`` of denoising, ``guidance`` scale (1: none).
    ``video`` is the clip that a video-to-video model starts from, ``strength`` how much of it is drawn anew (0..1].
    The last four save time; see ``shortcuts.py`` for what they cost and which pipelines can do them.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    video: str | None = None
    strength: float | None = None
    guidance_pass: str | None = None
    """``batched``: the model sees the prompt and the negative prompt in one batch; ``in-turn``: one after the other."""
    guidance_until: float | None = None
    """The share of the steps, 0..1, that is guided; the rest follows the prompt alone, at half the work."""
    cache_threshold: float | None = None
    """A transformer's blocks after the first are skipped where that one's output changed by less than this share of
    itself since they ran last. 0: never."""
    cache_every: int | None = None
    """A UNet's inner levels run in every Nth step only. 1: always."""


@dataclass(frozen=True)
class Film:
    """A finished film: ``frames`` uint8 [T, H, W, 3], RGB 0-255, and the completed request that gave it.

    ``seconds`` by stage: load (0 where the model was loaded), denoise, decode, and safety (all gates) once it passed
    them; ``model`` and ``revision`` say what filmed it, ``dtype``, ``device`` and ``loading`` (plain JSON) how.
    """

    frames: np.ndarray
    fps: float
    request: FilmRequest
    model: str
    revision: str
    dtype: str
    device: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    loading: Mapping[str, bool] = field(default_factory=dict)


class Generator(Protocol):
    """A text-to-video model. One film at a time; ``listen`` is called from the thread that films."""

    @property
    def card(self) -> GeneratorCard:
        """What the model is."""
        ...

    @property
    def revision(self) -> str:
        """Which content of the model this is."""
        ...

    def film(
        self,
        request: FilmRequest,
        *,
        latents: Path | None = None,
        listen: Listener | None = None,
        cancel: threading.Event | None = None,
    ) -> Film:
        """Film ``request``. ``latents``: where to keep what is denoised, before it is decoded.

        Raises ``UsageError`` for a request that the model cannot do, ``CancelledError`` after ``cancel`` was set,
        ``GenerationError`` when memory runs out or nothing worth a file comes out.
        """
        ...

    def finish(self, latents: Path, *, listen: Listener | None = None, cancel: threading.Event | None = None) -> Film:
        """Decode what an earlier ``film`` left in ``latents``; needs no text encoder and no denoiser."""
        ...
