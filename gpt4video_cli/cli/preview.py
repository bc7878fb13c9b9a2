"""A look at a clip in the terminal: some of its frames side by side, as pictures or as coloured half blocks.

T frames, H height, W width. A cell is the place of one letter.

textual-image draws (kitty's graphics, sixel, half blocks). Left alone it asks the terminal what it can do, by writing
to stdout and reading stdin: what a person types meanwhile would be lost, and replies that come late would be taken for
typing. So it gets a stand-in for the terminal, which answers nothing and keeps what is written, and the environment
says what the terminal can do. Where that is not certain, half blocks are drawn: every terminal knows them.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from gpt4video_cli.cli.terminal import Status, say, wants_colour
from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from gpt4video_cli.video.reader import FrameReader

Drawing = Literal["kitty", "sixel", "blocks"]

MOST_FRAMES = 8
FEWEST_FRAMES = 4
FRAME_COLUMNS = 20
"""Below this many columns for a frame there are fewer frames; in half blocks one column is one pixel."""
MOST_COLUMNS = 36
MOST_ROWS = 14
READ_SIDE = 256
"""Pixels of the shorter side that clips are decoded with to be drawn."""
USUAL_CELL = (10, 20)
"""Width and height of a cell in pixels where the terminal does not say; most fonts are about twice as high as wide."""


def draw_strip(frames: np.ndarray, *, enabled: bool = True, stream: TextIO | None = None) -> None:
    """Draw 4 to 8 of ``frames`` (uint8 [T, H, W, 3], RGB 0-255) on ``stream`` (stderr), first and last among them.

    Draws nothing where it is not wanted or not possible: not ``enabled``, no terminal, NO_COLOR, TERM=dumb, no Unicode,
    too narrow. Never raises: a clip is worth more than its picture.
    """
    stream = stream or sys.stderr
    with suppress(Exception):
        if enabled and can_draw(stream):
            text = _drawn(frames, _Terminal.of(stream, os.environ))
            stream.write(text)
            stream.flush()


def can_draw(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that shows colours and half blocks."""
    return wants_colour(stream) and "utf" in (stream.encoding or "").lower()


def show_seen(path: str, receipt: SamplingReceipt, reader: FrameReader) -> None:
    """Draw on stderr what was seen of the clip at ``path``: at most 8 of those moments are read again.

    A clip that cannot be read any more, or is another one by now, is a note.
    """
    if not can_draw(sys.stderr):
        return
    moments = tuple(receipt.seen[index] for index in spread(len(receipt.seen), MOST_FRAMES))
    try:
        with Status(f"reading {path} ..."):
            clip = reader.read(path, SamplingPlan(at=moments, mode=receipt.mode), min_side=READ_SIDE)
    except ClipError as error:
        say(f"note: {error.line()}")
        return
    if clip.receipt.sha256 != receipt.sha256:
        say(f"note: {path}: is not the file that was seen")
        return
    draw_strip(clip.frames)


def strip_image(
    frames: np.ndarray, *, count: int = MOST_FRAMES, size: tuple[int, int] | None = None, gap: int = 4
) -> Image:
    """At most ``count`` of ``frames`` (uint8 [T, H, W, 3]) from first to last, side by side on black.

    ``size``: width and height of each in pixels, as they are if None. ``gap``: pixels between two.
    """
    from PIL import Image

    chosen = frames[spread(len(frames), count)]
    width, height = size or (frames.shape[2], frames.shape[1])
    strip = Image.new("RGB", (len(chosen) * (width + gap) - gap, height))
    for number, frame in enumerate(chosen):
        picture = Image.fromarray(frame)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BOX)  # finer filters leave halos
        strip.paste(picture, (number * (width + gap), 0))
    return strip


def spread(total: int, count: int) -> list[int]:
    """At most ``count`` of the indices of ``total`` things, evenly spread, first and last among them."""
    count = max(1, min(total, count))
    return [round(number * (total - 1) / max(1, count - 1)) for number in range(count)]


@dataclass(frozen=True)
class _Terminal:
    """Columns, rows, a cell's size in pixels (None: not known), and how pictures are drawn."""

    columns: int
    rows: int
    cell: tuple[int, int] | None
    drawing: Drawing

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str]) -> _Terminal:
        size = os.get_terminal_size(stream.fileno())
        cell = _cell_pixels(stream)
        drawing = drawing_of(environment)
        if drawing == "sixel" and cell is None:  # its size in cells would be a guess, and the text after it misplaced
            drawing = "blocks"
        return cls(size.columns or 80, size.lines or 24, cell, drawing)


def drawing_of(environment: Mapping[str, str]) -> Drawing:
    """What the terminal can draw, as far as the environment tells for certain."""
    kind, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or environment.get("STY") or kind.startswith(("screen", "tmux")):
        return "blocks"  # multiplexers pass pictures on only if they were told to
    # Placeholders in Unicode, which textual-image needs, are drawn by these two. KITTY_WINDOW_ID does not count: a
    # program that kitty starts, such as another terminal, inherits it.
    if kind in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if kind.startswith(("foot", "mlterm", "contour")) or program in ("WezTerm", "iTerm.app", "mintty"):
        return "sixel"
    version = environment.get("KONSOLE_VERSION", "")
    return "sixel" if version.isdigit() and int(version) >= 220400 else "blocks"


def _cell_pixels(stream: TextIO) -> tuple[int, int] | None:
    """Width and height of a cell from the kernel, which asks nobody; None where the terminal never told it."""
    if os.name != "posix":
        return None
    import fcntl
    import struct
    import termios

    size = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
    rows, columns, width, height = struct.unpack("HHHH", size)
    if not (rows and columns and width >= 2 * columns and height >= 2 * rows):
        return None
    return width // columns, height // rows


def _layout(terminal: _Terminal, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How many frames, and the columns and rows of each; 0 frames where there is no room."""
    total, height, width = shape[:3]
    room = terminal.columns - 1  # a full last column makes some terminals begin a new line
    count = min(total, max(FEWEST_FRAMES, min(MOST_FRAMES, (room + 1) // (FRAME_COLUMNS + 1))))
    columns = min(MOST_COLUMNS, (room - (count - 1)) // count)
    cell_width, cell_height = terminal.cell or USUAL_CELL
    rows_for_each_column = height / width * cell_width / cell_height
    most_rows = max(2, min(MOST_ROWS, terminal.rows // 2))
    columns = min(columns, int(most_rows / rows_for_each_column))
    if columns < 4:
        return 0, 0, 0
    return count, columns, max(1, min(most_rows, round(columns * rows_for_each_column)))


def _drawn(frames: np.ndarray, terminal: _Terminal) -> str:
    """What to write, or nothing."""
    count, columns, rows = _layout(terminal, frames.shape)
    if not count:
        return ""
    cell_width, cell_height = (1, 2) if terminal.drawing == "blocks" else terminal.cell or USUAL_CELL
    strip = strip_image(frames, count=count, size=(columns * cell_width, rows * cell_height), gap=cell_width)
    width = count * (columns + 1) - 1

    from rich.console import Console

    text = io.StringIO()
    # Asked for on purpose: force_terminal, because the text is written to the terminal later.
    console = Console(file=text, force_terminal=True, width=terminal.columns, legacy_windows=False)
    with _stand_in(terminal.cell or USUAL_CELL) as sent, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow's getdata, inside textual-image
        from textual_image.renderable import HalfcellImage, SixelImage, TGPImage

        kinds = {"kitty": TGPImage, "sixel": SixelImage, "blocks": HalfcellImage}
        console.print(kinds[terminal.drawing](strip, width=width, height=rows), end="")
    return sent.getvalue() + text.getvalue()


@contextmanager
def _stand_in(cell: tuple[int, int]) -> Iterator[io.StringIO]:
    """A stdout for textual-image that is no terminal: nothing is asked, and what would be sent is kept.

    It takes the size of a cell from two variables of the environment then (it remembers what the first call saw).
    """
    stdout, told = sys.__stdout__, {"TEXTUAL_CELL_WIDTH": str(cell[0]), "TEXTUAL_CELL_HEIGHT": str(cell[1])}
    before = {name: os.environ.get(name) for name in told}
    sent = io.StringIO()
    sys.__stdout__ = sent  # type: ignore[misc,assignment]
    os.environ.update(told)
    try:
        yield sent
    finally:
        sys.__stdout__ = stdout  # type: ignore[misc]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
