"""Frames of one clip on one picture, each with the time at which it is shown, under a line that names the clip.

T frames, H height, W width.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError
from gpt4video_cli.video.clip import Clip

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

COLUMNS = 4
FRAME_WIDTH = 240
NARROWEST = 48
"""Pixels: the time below a frame needs that many."""
MOST_PIXELS = 200_000_000
LARGEST_SIDE = 65_500
"""What a JPEG file can have at most."""
MARGIN = 8
LETTER = 14
"""Height of the text in pixels."""
LINE = LETTER + 8
_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (90, 90, 90)


def contact_sheet(clip: Clip, title: str, *, columns: int = COLUMNS, width: int = FRAME_WIDTH) -> Image:
    """The frames of ``clip`` (uint8 [T, H, W, 3]) in rows of ``columns``, each ``width`` pixels wide: an RGB picture.

    Frame i is in row i // columns; its time in seconds stands below it, from its left edge on (a still image has none).
    Raises ``UsageError`` where the picture would be too large.
    """
    from PIL import Image, ImageDraw

    count, height, own_width = clip.frames.shape[:3]
    columns = min(columns, count)
    high = max(1, round(height * width / own_width))
    rows = -(-count // columns)
    size = (MARGIN + columns * (width + MARGIN), MARGIN + LINE + rows * (high + LINE + MARGIN))
    if size[0] * size[1] > MOST_PIXELS or max(size) > LARGEST_SIDE:
        raise UsageError(
            f"the sheet would have {size[0]} x {size[1]} pixels", hint="fewer --frames or a smaller --width"
        )
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    draw.text((MARGIN, MARGIN), _fitted(draw, title, font, size[0] - 2 * MARGIN), fill=_INK, font=font)
    for index, frame in enumerate(clip.frames):
        left, top = frame_corner(index, columns, (width, high))
        picture = Image.fromarray(frame)
        if picture.size != (width, high):
            picture = picture.resize((width, high), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top))
        if not clip.receipt.still:
            draw.text((left, top + high + 2), time_label(float(clip.times[index])), fill=_FAINT, font=font)
    return sheet


def frame_corner(index: int, columns: int, size: tuple[int, int]) -> tuple[int, int]:
    """Left and top of frame ``index`` on a sheet of ``columns`` frames of ``size`` (width, height), in pixels."""
    width, height = size
    row, column = divmod(index, columns)
    return MARGIN + column * (width + MARGIN), MARGIN + LINE + row * (height + LINE + MARGIN)


def time_label(seconds: float) -> str:
    """``1:02.50`` or ``1:00:02.00``: seconds to the hundredth, cut and not rounded: no frame is told too late."""
    hundredths = int(seconds * 100 + 1e-6)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    front = f"{hours}:{minutes:02}" if hours else str(minutes)
    return f"{front}:{rest // 100:02}.{rest % 100:02}"


def _font() -> FreeTypeFont | ImageFont:
    """DejaVu Sans, which matplotlib brings and which knows Greek and Cyrillic too; else Pillow's own, Latin only."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")  # without importing it, which takes 0.3 s
    for place in (found.submodule_search_locations or ()) if found else ():
        file = Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(str(file), LETTER)
    return ImageFont.load_default(LETTER)


def _fitted(draw: ImageDraw, text: str, font: FreeTypeFont | ImageFont, width: int) -> str:
    """``text`` on one line, its middle left out where it is wider than ``width`` pixels: names differ at their ends."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    kept = len(text)
    shown = text
    while draw.textlength(shown, font=font) > width and kept > 2:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
