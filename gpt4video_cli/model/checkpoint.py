"""A whole model folder: card, visual encoder, abstractor, language engine. Checked at once, loaded when first needed.

    DIR/card.toml
    DIR/vision/{config.json, model.safetensors, preprocessor_config.json}   a Hugging Face CLIP vision folder
    DIR/abstractor.safetensors
    DIR/language/{config.json, model.safetensors, tokenizer.json, ...}       a Hugging Face LLaMA folder
    DIR/adapter/{adapter_config.json, adapter_model.safetensors}             a PEFT adapter, optional

torch is imported by the parts that need it, when they are first used: a language engine that does without it can
answer about clips whose embeddings are known.

Letters: T frames, P patches of a frame, S side of a frame in pixels, n video tokens, D_v width of the visual features,
D_llm width of the language model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.choose_engine import EngineChoice, choose_engine
from gpt4video_cli.model.abstractor_config import read_abstractor_config
from gpt4video_cli.model.encoder_digest import encoder_digest
from gpt4video_cli.model.free_memory import find_devices
from gpt4video_cli.model.placement import LoadWish, Placement, plan_model
from gpt4video_cli.model.prompt import PromptTemplate, find_template
from gpt4video_cli.model.tensor_headers import read_json
from gpt4video_cli.model.visual_encoder_config import VisualEncoderConfig
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.locate import find_model
from gpt4video_cli.weights.model_hashes import weights_sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gpt4video_cli.language.adapters import Adapter, AdapterWish
    from gpt4video_cli.language.engine import Engine
    from gpt4video_cli.model.abstractor import Abstractor
    from gpt4video_cli.model.visual_encoder import VisualEncoder

FRAMES_AT_ONCE = 16
"""Frames encoded together: bounds the memory; ViT-L/14 in float32 needs about 20 MB for each."""

_TORCH = EngineChoice("torch", "by default")
_ANY = LoadWish()

Loaded = TypeVar("Loaded")


class Model:
    """A model folder, open. Its parts load when first asked for, or in the background after ``warm``.

    ``timings`` has the seconds each part took to load: ``load_vision``, ``load_abstractor``, ``load_language`` (which
    includes importing transformers). ``device_name`` and ``dtype_name`` as torch spells them (``cuda:0``, ``float32``).
    ``placement``: where the language model goes, if that was planned; else all is on that device in that type.
    ``choice``: its engine, which ``wish`` says more about. Safe to use from several threads.
    """

    def __init__(
        self,
        card: Card,
        folder: Path,
        device_name: str,
        dtype_name: str,
        placement: Placement | None = None,
        choice: EngineChoice = _TORCH,
        wish: LoadWish = _ANY,
    ) -> None:
        self.card = card
        self.choice = choice
        self.wish = wish
        self.folder = folder
        self.device_name = device_name
        self.dtype_name = dtype_name
        self.placement = placement
        self.timings: dict[str, float] = {}
        self.template: PromptTemplate = find_template(card.template)
        self.preprocess_config = PreprocessConfig.from_folder(folder / "vision")
        _check_sizes(folder, self.preprocess_config)
        self._vision = _Part("load_vision", self._load_vision, self.timings)
        self._abstractor = _Part("load_abstractor", self._load_abstractor, self.timings)
        self._engine: _Part[Engine] = _Part("load_language", self._load_engine, self.timings)

    @property
    def device(self) -> torch.device:
        """Of the visual encoder and the abstractor."""
        import torch

        return torch.device(self.device_name)

    @property
    def dtype(self) -> torch.dtype:
        """What the abstractor computes in; the visual encoder too, unless ``vision_dtype`` says otherwise."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype_name)
        return dtype

    @property
    def vision_dtype(self) -> str:
        """What the visual encoder computes in: float32, bfloat16, float16, or int8 (see ``int8_linear.py``)."""
        return self.dtype_name if self.wish.vision_dtype == "auto" else self.wish.vision_dtype

    @cached_property
    def encoder_digest(self) -> str:
        """Names what a clip's embeddings depend on beside the clip, see ``model/encoder_digest.py``. "" where a file
        of it cannot be read: loading it tells."""
        kind = self.device_name.partition(":")[0]
        try:
            return encoder_digest(
                self.folder,
                final_norm=self.card.final_norm,
                device=kind,
                dtype=self.dtype_name,
                vision_dtype=self.vision_dtype,
            )
        except OSError:
            return ""

    @cached_property
    def weights_sha256(self) -> str:
        """Names the content of the weights, adapters apart, see ``weights/model_hashes.py``. Raises ``OSError``."""
        return weights_sha256(self.card, self.folder, None if self.choice.file is None else self.choice.file.path)

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

    def answer_together(self) -> bool:
        """Make ``engine`` one that several threads may ask at once, if it can be; whether it is. Before any answer."""
        from gpt4video_cli.language.torch_engine import TorchEngine

        engine = self.engine
        if not isinstance(engine, TorchEngine):
            return False
        from gpt4video_cli.language.batched_engine import BatchedEngine

        self._engine.put(BatchedEngine(engine))
        return True

    def embed(self, frames: np.ndarray) -> Tensor:
        """A clip's frames, uint8 [T, H, W, 3] RGB, to its embeddings [n, D_llm] on ``device`` in ``dtype``."""
        import torch

        with torch.no_grad():
            return self.abstractor(self.encode(frames))[0]

    def encode(self, frames: np.ndarray) -> Tensor:
        """Frames, uint8 [T, H, W, 3], to patch features [1, T, 1+P, D_v] on ``device`` in ``dtype``."""
        import torch

        with torch.no_grad():
            pixels = preprocess(frames, self.preprocess_config).to(self.device)  # [T, 3, S, S]
            if self.visual_encoder.config.local_temporal:  # frames see each other: all at once
                return self.visual_encoder(pixels[None]).to(self.dtype)
            parts = [self.visual_encoder(part) for part in pixels.split(FRAMES_AT_ONCE)]
            return torch.cat(parts)[None].to(self.dtype)

    def condense(self, features: Tensor) -> np.ndarray:
        """Patch features [1, T, 1+P, D_v] to embeddings float32 [n, D_llm] in main memory, which every engine takes."""
        import torch

        with torch.no_grad():
            embeddings = self.abstractor(features)[0]
        return embeddings.float().cpu().numpy()

    def embed_all(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """``encode`` and ``condense`` for several clips of equally many frames, in fewer steps. B clips."""
        import torch

        with torch.no_grad():
            pixels = torch.cat([preprocess(frames, self.preprocess_config) for frames in clips])  # [B T, 3, S, S]
            pixels = pixels.to(self.device)
            if self.visual_encoder.config.local_temporal:
                features = self.visual_encoder(pixels.unflatten(0, (len(clips), -1)))
            else:
                parts = [self.visual_encoder(part) for part in pixels.split(FRAMES_AT_ONCE)]
                features = torch.cat(parts).unflatten(0, (len(clips), -1))  # [B, T, 1+P, D_v]
            return list(self.abstractor(features.to(self.dtype)).float().cpu().numpy())

    def _load_vision(self) -> VisualEncoder:
        from gpt4video_cli.model.visual_encoder import load_visual_encoder

        return load_visual_encoder(
            self.folder / "vision", device=self.device_name, dtype=self.vision_dtype, final_norm=self.card.final_norm
        )

    def _load_abstractor(self) -> Abstractor:
        from gpt4video_cli.model.abstractor import load_abstractor

        return load_abstractor(self.folder / "abstractor.safetensors", device=self.device_name, dtype=self.dtype)

    def _load_engine(self) -> Engine:
        from gpt4video_cli.model.language_loading import load_language

        return load_language(
            self.folder,
            self.choice,
            self.wish,
            device=self.device_name,
            dtype=self.dtype_name,
            placement=self.placement,
        )

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The LoRA adapters in force; none before the language model is loaded."""
        engine = self._engine.loaded()
        return () if engine is None else engine.adapters

    def use_adapters(self, wishes: Sequence[AdapterWish]) -> None:
        """Have exactly these LoRA adapters in force; raises ``WeightsError`` or ``UsageError`` for what cannot be."""
        from gpt4video_cli.model.language_loading import use_adapters

        use_adapters(self.engine, self.folder, wishes)


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

    def put(self, value: Loaded) -> None:
        """Have ``value`` instead."""
        with self._lock:
            self._value = value

    def loaded(self) -> Loaded | None:
        """The part if it is there already."""
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
    from gpt4video_cli.model.strict_load import choose_device, choose_dtype

    card, folder = find_model(name_or_dir)
    place = choose_device(device)
    return Model(card, folder, str(place), str(choose_dtype(dtype, place)).removeprefix("torch."))


def open_model(name_or_dir: str | Path, wish: LoadWish | None = None) -> Model:
    """A model of which every part will be used, placed by ``model.placement`` on the memory that is free now.

    Raises ``WeightsError`` before anything is loaded if it does not fit, and says what would.
    """
    card, folder = find_model(name_or_dir)
    wish = wish or LoadWish()
    choice = choose_engine(folder, card.name, wish)
    if choice.name == "llama":  # the visual side alone is PyTorch's
        main = max(find_devices(wish.device), key=lambda device: device.usable)
        wish.check_device(main.kind)
        return Model(card, folder, main.name, wish.precision(main.kind).compute, None, choice, wish)
    placement = plan_model(card, folder, wish)
    if placement.main != "cpu":
        from gpt4video_cli.model.strict_load import choose_device

        choose_device(placement.main)  # one that is there and yet cannot be used is told now
    return Model(card, folder, placement.main, placement.sizes.precision.compute, placement, choice, wish)


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
