"""A whole model folder: card, visual encoder, abstractor, language engine. Checked at once, loaded when first needed.

    DIR/card.toml
    DIR/vision/{config.json, model.safetensors, preprocessor_config.json}   a Hugging Face CLIP vision folder
    DIR/abstractor.safetensors
    DIR/language/{config.json, model.safetensors, tokenizer.json, ...}       a Hugging Face LLaMA folder
    DIR/adapter/{adapter_config.json, adapter_model.safetensors}             a PEFT adapter, optional

Letters: T frames, S side of a frame in pixels, n video tokens, D_llm width of the language model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.model.abstractor import Abstractor, load_abstractor, read_abstractor_config
from gpt4video_cli.model.placement import LoadWish, Placement, plan_model
from gpt4video_cli.model.prompt import PromptTemplate, find_template
from gpt4video_cli.model.strict_load import choose_device, choose_dtype, read_json
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig, load_visual_encoder
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.locate import find_model

if TYPE_CHECKING:
    from gpt4video_cli.language.engine import Engine

FRAMES_AT_ONCE = 16
"""Frames encoded together: bounds the memory; ViT-L/14 in float32 needs about 20 MB for each."""

Loaded = TypeVar("Loaded")


class Model:
    """A model folder, open. Its parts load when first asked for, or in the background after ``warm``.

    ``timings`` has the seconds each part took to load: ``load_vision``, ``load_abstractor``, ``load_language`` (which
    includes importing transformers). ``placement``: where the language model goes, if that was planned; else all is on
    ``device`` in ``dtype``. Safe to use from several threads.
    """

    def __init__(
        self,
        card: Card,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        placement: Placement | None = None,
    ) -> None:
        self.card = card
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.placement = placement
        self.timings: dict[str, float] = {}
        self.template: PromptTemplate = find_template(card.template)
        self.preprocess_config = PreprocessConfig.from_folder(folder / "vision")
        _check_sizes(folder, self.preprocess_config)
        self._vision = _Part("load_vision", self._load_vision, self.timings)
        self._abstractor = _Part("load_abstractor", self._load_abstractor, self.timings)
        self._engine: _Part[Engine] = _Part("load_language", self._load_engine, self.timings)

    @property
    def visual_encoder(self) -> VisualEncoder:
        """Loaded on first use."""
        return self._vision.get()

    @property
    def abstractor(self) -> Abstractor:
        """Loaded on first use."""
        return self._abstractor.get()

    @property
    def engine(self) -> Engine:
        """Loaded on first use."""
        return self._engine.get()

    def warm(self) -> None:
        """Start loading the language model, the slowest part, in the background; ``engine`` waits for it.

        An error is raised where the part is asked for.
        """
        threading.Thread(target=self._engine.try_get, name="load_language", daemon=True).start()

    @torch.no_grad()
    def embed(self, frames: np.ndarray) -> Tensor:
        """A clip's frames, uint8 [T, H, W, 3] RGB, to its embeddings [n, D_llm] on ``device`` in ``dtype``."""
        return self.abstractor(self.encode(frames))[0]

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames, uint8 [T, H, W, 3], to patch features [1, T, 1+P, D_v]."""
        pixels = preprocess(frames, self.preprocess_config).to(self.device, self.dtype)  # [T, 3, S, S]
        if self.visual_encoder.config.local_temporal:  # frames see each other: all at once
            return self.visual_encoder(pixels[None])
        return torch.cat([self.visual_encoder(part) for part in pixels.split(FRAMES_AT_ONCE)])[None]

    def _load_vision(self) -> VisualEncoder:
        return load_visual_encoder(
            self.folder / "vision", device=str(self.device), dtype=self.dtype, final_norm=self.card.final_norm
        )

    def _load_abstractor(self) -> Abstractor:
        return load_abstractor(self.folder / "abstractor.safetensors", device=str(self.device), dtype=self.dtype)

    def _load_engine(self) -> Engine:
        from gpt4video_cli.language.torch_engine import TorchEngine

        adapter, planned = self.folder / "adapter", self.placement
        return TorchEngine.load(
            self.folder / "language",
            adapter=adapter if adapter.is_dir() else None,
            device=str(self.device),
            dtype=self.dtype,
            context_length=None if planned is None else planned.sizes.context,
            weights=None if planned is None else planned.sizes.precision.weights,
            device_map=None if planned is None else planned.device_map,
        )


class _Part(Generic[Loaded]):
    """Something loaded once, by whoever asks first; the others wait. A failed load is tried again when asked again."""

    def __init__(self, name: str, load: Callable[[], Loaded], timings: dict[str, float]) -> None:
        self._name = name
        self._load = load
        self._timings = timings
        self._lock = threading.Lock()
        self._value: Loaded | None = None

    def get(self) -> Loaded:
        with self._lock:
            if self._value is None:
                start = time.perf_counter()
                self._value = self._load()
                self._timings[self._name] = time.perf_counter() - start
            return self._value

    def try_get(self) -> None:
        """Load now, leaving any error to the one who needs the part: ``get`` meets it again."""
        try:
            self.get()
        except Exception:
            return


def load_model(name_or_dir: str | Path, *, device: str = "auto", dtype: str | torch.dtype = "auto") -> Model:
    """A model by its name or its folder. That its parts are there and fit each other is checked here; see ``Model``.

    For one who uses some parts only: whether all of them find room is not looked at. ``open_model`` does.
    """
    card, folder = find_model(name_or_dir)
    place = choose_device(device)
    return Model(card, folder, place, choose_dtype(dtype, place))


def open_model(name_or_dir: str | Path, wish: LoadWish | None = None) -> Model:
    """A model of which every part will be used, placed by ``model.placement`` on the memory that is free now.

    Raises ``WeightsError`` before anything is loaded if it does not fit, and says what would.
    """
    card, folder = find_model(name_or_dir)
    placement = plan_model(card, folder, wish or LoadWish())
    place = choose_device(placement.main)
    return Model(card, folder, place, choose_dtype(placement.sizes.precision.compute, place), placement)


def _check_sizes(folder: Path, preprocessing: PreprocessConfig) -> None:
    """That the parts were made for each other, from their configurations alone."""
    vision_file = folder / "vision" / "config.json"
    vision = VisualEncoderConfig.from_clip_vision_config(read_json(vision_file), vision_file)
    abstractor_file = folder / "abstractor.safetensors"
    abstractor = read_abstractor_config(abstractor_file)
    language_file = folder / "language" / "config.json"
    language_width = read_json(language_file).get("hidden_size")
    side = vision.image_size
    if (preprocessing.crop_height, preprocessing.crop_width) != (side, side):
        raise WeightsError(
            f"{vision_file}: frames have {side} x {side} pixels, preprocessor_config.json beside it makes "
            f"{preprocessing.crop_width} x {preprocessing.crop_height}"
        )
    if abstractor.width != vision.width:
        raise WeightsError(
            f"{abstractor_file}: made for features of width {abstractor.width}, the visual encoder gives {vision.width}"
        )
    if abstractor.output_width != language_width:
        raise WeightsError(
            f"{abstractor_file}: made for a language model of width {abstractor.output_width}, "
            f"{language_file} says {language_width}"
        )
