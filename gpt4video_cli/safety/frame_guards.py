"""Guards for pictures: any image classifier of the hub, and the safety checker of Stable Diffusion.

B pictures of a batch, T frames, H height, W width, S side of the square that a model sees.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.safety.categories import MINORS, SEXUAL
from gpt4video_cli.safety.hub_model import HubGuard, label_columns, load_model, scores_of
from gpt4video_cli.video.preprocess import CONFIG_NAME, PreprocessConfig, preprocess

if TYPE_CHECKING:
    import torch

BATCH = 16
STEP = 0.01
"""Of cosine similarity. The safety checker itself moves its thresholds by so much where it takes special care."""


class ImageClassifier(HubGuard):
    """A classifier of transformers, such as a ViT. Its weights are read when the first picture comes."""

    @cached_property
    def _loaded(self) -> tuple[Any, torch.device, dict[int, str]]:
        from transformers import AutoModelForImageClassification

        model, device = load_model(AutoModelForImageClassification, self._folder, self._card)
        return model, device, label_columns(model, self._card)

    def score(self, frames: np.ndarray) -> list[dict[str, float]]:
        """See ``FrameGuard.score``."""
        import torch

        model, device, columns = self._loaded
        found: list[dict[str, float]] = []
        for start in range(0, len(frames), BATCH):
            seen = pixels(frames[start : start + BATCH], self._folder)
            with torch.inference_mode():
                logits = model(pixel_values=seen.to(device, model.dtype)).logits
            found += scores_of(logits, columns, many=self._card.many)
        return found


class SafetyChecker(HubGuard):
    """``StableDiffusionSafetyChecker`` of diffusers: how near a picture is to 17 concepts, each with its threshold.

    The concepts are sexual, the three of special care are about children (Rando et al. 2022, arXiv 2210.04610). A score
    of 0.5 is where the checker itself decides, ``STEP`` above and below are 0.73 and 0.27.
    """

    @cached_property
    def _loaded(self) -> tuple[Any, torch.device]:
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

        return load_model(StableDiffusionSafetyChecker, self._folder, self._card)

    def score(self, frames: np.ndarray) -> list[dict[str, float]]:
        """See ``FrameGuard.score``."""
        import torch
        from torch.nn.functional import normalize

        model, device = self._loaded
        found: list[dict[str, float]] = []
        for start in range(0, len(frames), BATCH):
            seen = pixels(frames[start : start + BATCH], self._folder).to(device, model.dtype)
            with torch.inference_mode():
                pictures = normalize(model.visual_projection(model.vision_model(seen)[1])).float()
                near, special = (  # cosine similarities less their thresholds: [B, 17] and [B, 3]
                    pictures @ normalize(concepts.float()).T - limits.float()
                    for concepts, limits in (
                        (model.concept_embeds, model.concept_embeds_weights),
                        (model.special_care_embeds, model.special_care_embeds_weights),
                    )
                )
                care = special.max(dim=1).values
                above = near.max(dim=1).values + STEP * (care > 0)
                sexual, minors = (above / STEP).sigmoid(), (torch.minimum(above, care) / STEP).sigmoid()
            for one, other in zip(sexual.tolist(), minors.tolist(), strict=True):
                found.append({SEXUAL: one, MINORS: other})
        return found


def pixels(frames: np.ndarray, folder: Path) -> torch.Tensor:
    """uint8 [T, H, W, 3] -> float32 [T, 3, S, S] as ``folder``'s preprocessor_config.json wants it.

    CLIP's kind cuts the centre out (``video.preprocess``), ViT's kind squeezes the whole picture into a square.
    """
    import torch
    from PIL import Image

    from gpt4video_cli.model.strict_load import read_json

    path = folder / CONFIG_NAME
    values = read_json(path)
    size = values.get("size", {"height": 224, "width": 224})
    if "crop_size" in values or (isinstance(size, dict) and "shortest_edge" in size):
        return preprocess(frames, PreprocessConfig.from_folder(folder))
    height, width = (size, size) if isinstance(size, int) else (size.get("height"), size.get("width"))
    mean, std = values.get("image_mean", [0.5] * 3), values.get("image_std", [0.5] * 3)
    factor, resample = values.get("rescale_factor", 1 / 255), values.get("resample", Image.Resampling.BILINEAR)
    if not all(isinstance(side, int) and side > 0 for side in (height, width)) or len(mean) != 3 or len(std) != 3:
        raise WeightsError(f"{path}: size {size}, mean {mean} and deviation {std} are not those of a picture")
    small = [np.asarray(Image.fromarray(frame).resize((width, height), resample)) for frame in frames]
    square = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() * factor
    return (square - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
