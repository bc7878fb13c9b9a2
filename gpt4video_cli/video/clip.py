"""A decoded clip: what every later stage gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt4video_cli.video.sampling import SamplingReceipt


@dataclass(frozen=True)
class Clip:
    """``frames`` uint8 [T, H, W, 3], RGB 0-255, upright; ``times`` float64 [T], seconds at which each appears."""

    frames: np.ndarray
    times: np.ndarray
    receipt: SamplingReceipt
