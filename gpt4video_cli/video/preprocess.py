"""Frames to the pixels that a CLIP vision tower was trained on: resize, centre crop, rescale, normalise.

The same arithmetic as transformers' CLIPImageProcessor on its PIL backend, without importing transformers. T frames,
H height, W width, S the side of the square that the tower sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt4video_cli.errors import WeightsError

if TYPE_CHECKING:
    import torch

CONFIG_NAME = "preprocessor_config.json"
# PIL's numbers, which preprocessor_config.json uses: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
RESAMPLING = range(6)


@dataclass(frozen=True)
class PreprocessConfig:
    """What preprocessor_config.json says. Pixels; mean and deviation are of RGB scaled to 0-1 (CLIP's own, arXiv
    2103.00020, as in transformers' OPENAI_CLIP_MEAN and OPENAI_CLIP_STD)."""

    shortest_edge: int = 224
    crop_height: int = 224
    crop_width: int = 224
    resample: int = 3
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def decode_side(self) -> int:
        """Shorter side, in pixels, down to which a decoder may shrink frames while converting them.

        Twice what the tower sees: the rest is left to the antialiased resize that the tower was trained with, and a
        4K frame still never exists at full size.
        """
        return 2 * self.shortest_edge

    @classmethod
    def square(cls, side: int) -> PreprocessConfig:
        """CLIP's preprocessing for a tower that sees ``side`` x ``side`` pixels."""
        return cls(shortest_edge=side, crop_height=side, crop_width=side)

    @classmethod
    def from_folder(cls, folder: str | Path) -> PreprocessConfig:
        """Read ``folder/preprocessor_config.json``; a step that we do not do is an error that names it."""
        path = Path(folder) / CONFIG_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise WeightsError(f"{path}: is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise WeightsError(f"{path}: is not a JSON object")
        return cls._from_dict(values, path)

    @classmethod
    def _from_dict(cls, values: dict[str, Any], path: Path) -> PreprocessConfig:
        for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
            if not values.get(step, True):
                raise WeightsError(f"{path}: {step} is false; only CLIP's full preprocessing is supported")
        default = cls()
        size, crop = values.get("size", default.shortest_edge), values.get("crop_size", default.crop_height)
        # Configurations written before transformers 4.25 hold plain numbers.
        edge: Any = size.get("shortest_edge") if isinstance(size, dict) else size
        height: Any = crop.get("height") if isinstance(crop, dict) else crop
        width: Any = crop.get("width") if isinstance(crop, dict) else crop
        if not all(isinstance(side, int) and side > 0 for side in (edge, height, width)):
            raise WeightsError(f"{path}: size {size} and crop_size {crop} are not CLIP's shortest edge and crop")
        resample = values.get("resample", default.resample)
        if resample not in RESAMPLING:
            raise WeightsError(f"{path}: resample is {resample}; known are 0 to {RESAMPLING.stop - 1}")
        mean = _three(values.get("image_mean", default.mean), "image_mean", path)
        std = _three(values.get("image_std", default.std), "image_std", path)
        factor = float(values.get("rescale_factor", default.rescale_factor))
        return cls(edge, height, width, int(resample), factor, mean, std)

    def as_dict(self) -> dict[str, Any]:
        """The content of a preprocessor_config.json that transformers' CLIPImageProcessor reads too."""
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.shortest_edge},
            "resample": self.resample,
            "do_center_crop": True,
            "crop_size": {"height": self.crop_height, "width": self.crop_width},
            "do_rescale": True,
            "rescale_factor": self.rescale_factor,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }


def _three(values: Any, name: str, path: Path) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise WeightsError(f"{path}: {name} must be three numbers, for red, green and blue")
    return float(values[0]), float(values[1]), float(values[2])


def preprocess(frames: np.ndarray, config: PreprocessConfig | None = None) -> torch.Tensor:
    """uint8 [T, H, W, 3], RGB 0-255 -> float32 [T, 3, S, S], normalised."""
    import torch

    config = config or PreprocessConfig()
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    cropped = torch.from_numpy(resize_and_crop(frames, config)).permute(0, 3, 1, 2)
    # (x * factor - mean) / std as one multiplication and one addition.
    std = torch.tensor(config.std, dtype=torch.float32)[:, None, None]
    mean = torch.tensor(config.mean, dtype=torch.float32)[:, None, None]
    scale, shift = config.rescale_factor / std, mean / std
    pixels = torch.empty(cropped.shape)
    # Frame by frame the numbers stay in the processor's cache.
    for frame, into in zip(cropped, pixels, strict=True):
        into.copy_(frame).mul_(scale).sub_(shift)
    return pixels


def resize_and_crop(frames: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """uint8 [T, H, W, 3] -> uint8 [T, crop_height, crop_width, 3]: shortest edge to size, then the centre."""
    from PIL import Image

    count, height, width = frames.shape[:3]
    long_edge = int(config.shortest_edge * max(height, width) / min(height, width))
    new_height, new_width = (config.shortest_edge, long_edge) if height <= width else (long_edge, config.shortest_edge)
    out = np.zeros((count, config.crop_height, config.crop_width, 3), np.uint8)
    for i, frame in enumerate(frames):
        if (height, width) != (new_height, new_width):
            image = Image.fromarray(np.ascontiguousarray(frame)).resize((new_width, new_height), config.resample)
            frame = np.asarray(image)
        _centre(frame, out[i])
    return out


def _centre(frame: np.ndarray, out: np.ndarray) -> None:
    """Copy the centre of ``frame`` into ``out``; where the frame is smaller, ``out`` keeps a black border."""
    source, target = [], []
    for have, want in zip(frame.shape[:2], out.shape[:2], strict=True):
        # Rounding as in transformers' center_crop: down when cropping, up when padding.
        cut = max(0, (have - want) // 2)
        border = max(0, -((have - want) // 2))
        taken = min(have, want)
        source.append(slice(cut, cut + taken))
        target.append(slice(border, border + taken))
    out[tuple(target)] = frame[tuple(source)]
