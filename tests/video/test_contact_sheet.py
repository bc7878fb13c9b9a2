"""A contact sheet: each frame in its place, its time below it, the clip's name above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4video_cli.errors import UsageError
from gpt4video_cli.video import contact_sheet as sheets
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.contact_sheet import LINE, MARGIN, contact_sheet, frame_corner, time_label
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt
from tests.video.films import number_of, numbered, write_video

COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (200, 200, 30), (160, 30, 160)]


def clip_of(count: int, height: int = 40, width: int = 60, *, still: bool = False) -> Clip:
    """One colour for each frame, a second apart."""
    frames = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        frames[index] = COLOURS[index]
    times = tuple(index + 0.5 for index in range(count))
    duration = 0.0 if still else float(count)
    receipt = SamplingReceipt("x.mp4", "00", duration, "exact", times, times, 1.0, width, height, still=still)
    return Clip(frames, np.array(times), receipt)


def ink(picture: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    """Columns of ``box`` (left, top, right, bottom) with anything darker than the paper."""
    return np.flatnonzero((np.asarray(picture.crop(box).convert("L")) < 200).any(0))


def test_frames_stand_in_rows_and_their_times_below_them() -> None:
    sheet = contact_sheet(clip_of(5), "a clip", columns=3, width=90)
    assert sheet.size == (MARGIN + 3 * (90 + MARGIN), MARGIN + LINE + 2 * (60 + LINE + MARGIN))
    for index, colour in enumerate(COLOURS):
        left, top = frame_corner(index, 3, (90, 60))
        for x, y in ((0, 0), (89, 59), (45, 30)):
            assert sheet.getpixel((left + x, top + y)) == colour
        below = ink(sheet, (left, top + 60, left + 90, top + 60 + LINE))
        assert below[0] <= 2 and 20 <= below[-1] <= 60, "the time begins at the frame's left edge"
    empty = frame_corner(5, 3, (90, 60))
    assert ink(sheet, (*empty, empty[0] + 90, empty[1] + 60 + LINE)).size == 0


def test_the_time_is_the_frames_own() -> None:
    """Only the text below frame 2 changes with frame 2's time."""
    one, other = clip_of(3), clip_of(3)
    other.times[1] = 1.75
    difference = np.argwhere(
        np.asarray(contact_sheet(one, "x", columns=3, width=90))
        != np.asarray(contact_sheet(other, "x", columns=3, width=90))
    )
    left, top = frame_corner(1, 3, (90, 60))
    assert difference.size
    assert difference[:, 0].min() >= top + 60 and difference[:, 0].max() < top + 60 + LINE
    assert difference[:, 1].min() >= left and difference[:, 1].max() < left + 90


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (0.0, "0:00.00"),
        (0.999, "0:00.99"),
        (1.1, "0:01.10"),
        (62.5, "1:02.50"),
        (3602.0, "1:00:02.00"),
        (0.29, "0:00.29"),
    ],
)
def test_time_labels(seconds: float, label: str) -> None:
    assert time_label(seconds) == label


def test_a_still_image_has_no_time() -> None:
    sheet = contact_sheet(clip_of(1, still=True), "", width=90)
    left, top = frame_corner(0, 1, (90, 60))
    assert ink(sheet, (left, top + 60, left + 90, sheet.height)).size == 0


def test_a_long_name_is_cut_in_its_middle_and_stays_inside() -> None:
    sheet = contact_sheet(clip_of(1), "word " * 40 + "\x1b[31m\n.mp4", columns=1, width=120)
    title = ink(sheet, (0, 0, sheet.width, MARGIN + LINE))
    assert title[0] >= MARGIN - 1 and title[-1] <= sheet.width - MARGIN
    assert title[-1] > sheet.width // 2


def test_greek_and_cyrillic_names_have_letters_of_their_own() -> None:
    """A font without them would draw the same box for every letter."""
    one, other = (np.asarray(contact_sheet(clip_of(1), name, width=240)) for name in ("ααα", "жжж"))
    assert not np.array_equal(one, other)


def test_a_turned_clip_is_upright_and_shows_the_frames_of_its_times(tmp_path: Path) -> None:
    """Stored 96 x 64 and turned by 90 degrees, as phones do: each frame on the sheet carries its own number upright."""

    def stored(number: int, width: int, height: int) -> np.ndarray:
        return np.rot90(numbered(number, height, width))

    path = write_video(tmp_path / "phone.mp4", count=10, rotation=(-90, False), picture=stored)
    clip = read_clip(str(path), SamplingPlan(at=(0.25, 0.55, 0.9)), min_side=64)
    sheet = contact_sheet(clip, path.name, columns=2, width=64)
    shown = []
    for index in range(3):
        left, top = frame_corner(index, 2, (64, 96))
        shown.append(number_of(np.asarray(sheet.crop((left, top, left + 64, top + 96)))))
    assert shown == [2, 5, 9]


def test_a_sheet_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST_PIXELS", 10_000)
    with pytest.raises(UsageError, match="the sheet would have"):
        contact_sheet(clip_of(5), "x", width=240)
