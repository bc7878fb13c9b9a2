"""One decoded picture to the RGB array that a person would see: upright, square pixels, no larger than needed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

# Transfer characteristics of HDR video, ISO/IEC 23091-2: 16 is PQ, 18 is HLG.
HDR_TRANSFERS = (16, 18)
# A matrix entry of 1.0, in the 16.16 fixed point of ISO/IEC 14496-12.
ONE = 1 << 16


@dataclass(frozen=True)
class Upright:
    """How a stored picture becomes upright: x' = a x + c y, y' = b x + d y, each of a, b, c, d being -1, 0 or 1."""

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @property
    def swaps(self) -> bool:
        """Whether width and height change places."""
        return self.a == 0

    @property
    def degrees(self) -> int:
        """Clockwise degrees that the picture is turned, before any mirroring: 0, 90, 180 or 270."""
        if self.swaps:
            return 90 if self.b > 0 else 270
        return 0 if self.d > 0 else 180

    @property
    def mirrored(self) -> bool:
        """Whether left and right are also exchanged."""
        return self.a * self.d - self.b * self.c < 0

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """[H, W, 3] -> [H, W, 3] or [W, H, 3]."""
        if self.swaps:
            return picture.transpose(1, 0, 2)[:: self.b, :: self.c]
        return picture[:: self.d, :: self.a]

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Upright:
        """Read the frame's display matrix; an angle between the right ones goes to the nearest right one."""
        try:
            side_data = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:
            # PyAV cannot list side data whose type it has no name for (EXIF): the angle alone is still known.
            return cls.turned(frame.rotation)
        if side_data is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", bytes(side_data)[:20])
        if max(abs(a), abs(b)) < ONE // 256:
            return cls()
        if abs(a) >= abs(b):
            return cls(_sign(a), 0, 0, _sign(d))
        return cls(0, _sign(b), _sign(c), 0)

    @classmethod
    def turned(cls, counterclockwise: int) -> Upright:
        """Turned by ``counterclockwise`` degrees, rounded to a right angle."""
        return (cls(), cls(0, -1, 1, 0), cls(-1, 0, 0, -1), cls(0, 1, -1, 0))[round(counterclockwise / 90) % 4]


def displayed_size(frame: av.VideoFrame, pixel_aspect: float, upright: Upright) -> tuple[int, int]:
    """(width, height) in pixels as shown: pixels made square by widening or narrowing, then turned upright."""
    width = max(1, round(frame.width * pixel_aspect))
    return (frame.height, width) if upright.swaps else (width, frame.height)


def shrunk_size(width: int, height: int, min_side: int | None) -> tuple[int, int]:
    """(width, height) with the short side at ``min_side``, aspect kept; never enlarged."""
    short = min(width, height)
    if min_side is None or short <= min_side:
        return width, height
    # Rounded down like CLIP's resize, so that preprocessing finds nothing left to do.
    return (min_side, int(min_side * height / width)) if width <= height else (int(min_side * width / height), min_side)


class RgbCanvas:
    """``pictures`` uint8 [T, H, W, 3], RGB, upright, of ``size`` (width, height); drawn from several threads."""

    def __init__(self, count: int, size: tuple[int, int], upright: Upright) -> None:
        width, height = size
        self.pictures = np.empty((count, height, width, 3), np.uint8)
        self._size, self._upright = size, upright

    def draw(self, number: int, frame: av.VideoFrame) -> None:
        """``frame`` becomes picture ``number``."""
        # A pixel at once, not a byte, which takes twice as long.
        self.pictures[number].view("V3")[:] = to_rgb(frame, self._size, self._upright).view("V3")

    def repeat(self, number: int) -> None:
        """Picture ``number`` is the one before."""
        self.pictures[number] = self.pictures[number - 1]


def to_rgb(frame: av.VideoFrame, size: tuple[int, int], upright: Upright) -> np.ndarray:
    """A decoded frame as uint8 [H, W, 3], upright, of ``size`` (width, height); a view where it is turned.

    swscale resizes while it converts: no full-size RGB copy is made.
    """
    width, height = (size[1], size[0]) if upright.swaps else size
    # Bicubic widens its kernel when shrinking, so it does not alias. One thread: starting more costs a third of a
    # conversion at full size, and several frames are converted side by side.
    if any(component.is_alpha for component in frame.format.components) or frame.format.has_palette:
        rgba = frame.reformat(width, height, format="rgba", interpolation="BICUBIC", threads=1).to_ndarray()
        picture = over_white(rgba)
    else:
        picture = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    return upright.apply(picture)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] -> uint8 [H, W, 3] on a white page, as a browser shows a transparent image."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3]
    opacity = alpha.astype(np.float32) / 255
    return np.rint(rgba[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
