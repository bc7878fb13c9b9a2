"""Still images, and animated WebP, by Pillow: it applies EXIF orientation, alpha, palettes and CMYK.

A still image is a clip of one frame. FFmpeg decodes no animated WebP (measured with FFmpeg 8).
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.picture import over_white, shrunk_size

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 28
# Pillow's readers raise whatever a damaged file makes them trip over: OSError, SyntaxError, EOFError, struct.error, ...
READ_ERRORS = (Exception,)


class StillImage:
    """An image file opened by Pillow. ``count`` pictures; more than one only for animations."""

    def __init__(self, path: str) -> None:
        from PIL import Image

        self.path = path
        self.notes: list[str] = []
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses at twice this number
        try:
            self.image = Image.open(path)
        except Image.DecompressionBombError:
            raise ClipError(path, "has too many pixels to decode") from None
        except READ_ERRORS:
            raise ClipError(path, "is a damaged image: its header cannot be read") from None
        self.format = self.image.format or "image"
        self.mode, self.stored_size = self.image.mode, self.image.size
        self.orientation, self.count = 1, 1
        # Neither damaged EXIF data nor a damaged later picture spoils the first picture.
        with suppress(*READ_ERRORS):
            # EXIF 2.32, tag 274: 1 is upright.
            self.orientation = int(self.image.getexif().get(0x0112, 1))
        with suppress(*READ_ERRORS):
            self.count = getattr(self.image, "n_frames", 1)

    def close(self) -> None:
        self.image.close()

    @property
    def bit_depth(self) -> int:
        """Bits of each component."""
        return {"1": 1, "F": 32, "I": 32}.get(self.mode, 16 if ";16" in self.mode else 8)

    def durations(self) -> list[float]:
        """How long each picture is shown, in seconds. Browsers show a picture without a duration for 0.1 s."""
        seconds: list[float] = []
        try:
            for index in range(self.count):
                self.image.seek(index)
                self.image.load()
                seconds.append(self.image.info.get("duration", 0) / 1000 or 0.1)
        except READ_ERRORS:
            if not seconds:
                raise ClipError(self.path, "is a damaged image: its picture cannot be decoded") from None
            self.notes.append(f"the animation is damaged: {len(seconds)} of {self.count} pictures can be read")
        return seconds

    def picture(self, index: int, min_side: int | None) -> tuple[np.ndarray, tuple[int, int]]:
        """Picture ``index`` as uint8 [H, W, 3], upright, and its (width, height) before shrinking."""
        from PIL import Image, ImageOps

        image = self._loaded(index)
        with suppress(*READ_ERRORS):
            image = ImageOps.exif_transpose(image)
        size = image.size
        if image.mode.startswith("I") or image.mode == "F":
            image = Image.fromarray(_to_8_bits(np.asarray(image)))
        if image.has_transparency_data:
            image = Image.fromarray(over_white(np.asarray(image.convert("RGBA"))))
        image = image.convert("RGB")
        shown = shrunk_size(*size, min_side)
        if shown != size:
            image = image.resize(shown, Image.Resampling.BICUBIC)
        return np.array(image), size

    def _loaded(self, index: int) -> Image.Image:
        """Picture ``index`` decoded; what is there of it, with a note, where the file is cut off."""
        from PIL import Image, ImageFile

        try:
            self.image.seek(index)
            self.image.load()
            return self.image.copy()
        except READ_ERRORS:
            if index > 0:
                raise ClipError(self.path, f"is damaged: its picture {index + 1} cannot be decoded") from None
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with Image.open(self.path) as again:
                again.load()
                self.notes.append("the image is cut off; its missing part is blank")
                return again.copy()
        except READ_ERRORS:
            raise ClipError(self.path, "is a damaged image: its picture cannot be decoded") from None
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _to_8_bits(grey: np.ndarray) -> np.ndarray:
    """[H, W] of 16 bits or more, or float, to uint8. Pillow's own conversion clips where it should scale."""
    highest = float(grey.max(initial=0))
    divisor = 1.0 if highest <= 255 else 257.0 if highest <= 65535 else highest / 255
    return (np.clip(grey, 0, None) / divisor).astype(np.uint8)
