"""Which frames stand for a clip: one other frame among 3,000 is found, whatever the rest does, within the limit."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpt4video_cli.errors import ClipError
from gpt4video_cli.safety.gates import MOST_FRAMES, Gates
from gpt4video_cli.video import survey as surveying
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.survey import CHANGE, choose, survey
from gpt4video_cli.video.writer import write_mp4
from tests.safety.guards import Red


def _still(count: int) -> np.ndarray:
    return np.full((count, 16, 16, 3), 80, np.uint8)


def test_few_frames_are_all_taken() -> None:
    assert choose(_still(5), 64) == [0, 1, 2, 3, 4]


def test_a_still_clip_is_an_even_sample() -> None:
    chosen = choose(_still(3000), 64)
    assert len(chosen) == 17 and chosen[0] == 0 and np.diff(chosen[1:]).max() <= 188


@pytest.mark.parametrize("at", [1, 17, 1499, 2998, 2999])
def test_a_single_other_frame_is_taken(at: int) -> None:
    thumbs = _still(3000)
    thumbs[at] += 20
    assert at in choose(thumbs, 64)


def test_a_slow_fade_is_followed() -> None:
    """No frame differs from the one before, yet none is far from one that is taken."""
    thumbs = np.repeat(np.linspace(0, 255, 2000).astype(np.uint8), 16 * 16 * 3).reshape(2000, 16, 16, 3)
    chosen = choose(thumbs, 64)
    taken = thumbs[chosen].reshape(len(chosen), -1).astype(float)
    for thumb in thumbs[::50]:
        assert np.sqrt(np.square(taken - thumb.reshape(-1)).mean(axis=1)).min() <= CHANGE + 1


def test_a_restless_clip_stays_within_the_limit_and_the_strangest_frame_is_taken() -> None:
    random = np.random.default_rng(1)
    colours = random.integers(60, 120, (3000, 1, 1, 3), np.uint8)
    thumbs = np.broadcast_to(colours, (3000, 16, 16, 3)).copy()
    thumbs[1733] = (255, 0, 0)
    chosen = choose(thumbs, 64)
    assert len(chosen) == 64 and 1733 in chosen and chosen == sorted(set(chosen))


def test_one_frame_among_3000_of_a_real_clip(long_clip: Path, reader: FrameReader) -> None:
    found = reader.survey(long_clip, MOST_FRAMES, min_side=48)
    assert found.looked_at == 3000 and len(found.frames) <= MOST_FRAMES and found.note == ""
    assert found.frames.shape[1:] == (48, 64, 3) and len(found.times) == len(found.frames)
    reds = [time for time, frame in zip(found.times, found.frames) if frame[..., 0].mean() > 200]
    assert reds == [1500 / 25]


def test_a_guard_refuses_the_clip_for_it(long_clip: Path, clean_clip: Path, reader: FrameReader) -> None:
    guard = Red()
    gates = Gates(frames=lambda policy: [guard])
    verdict = gates.clip(str(long_clip), reader)
    assert (verdict.outcome, verdict.category, verdict.seconds) == ("refused", "violence", 60.0)
    assert guard.seen <= MOST_FRAMES
    assert gates.clip(str(clean_clip), reader).outcome == "allowed"
    with pytest.raises(ClipError, match="changed while it was read"):
        gates.clip(str(clean_clip), reader, sha256="another")


def test_without_a_guard_nothing_is_decoded(long_clip: Path) -> None:
    class Untouchable(FrameReader):
        def survey(self, *arguments: object, **more: object) -> None:  # type: ignore[override]
            raise AssertionError("decoded for nobody")

    assert Gates().clip(str(long_clip), Untouchable()).outcome == "not screened"


def test_a_clip_that_takes_too_long_says_what_was_left_out(long_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by a second whenever it is looked at, which is once for each frame."""
    ticks = itertools.count()
    monkeypatch.setattr(surveying, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    found = survey(str(long_clip), 8, min_side=48, budget=1000.0)
    assert found.note == "the clip is long: from 20.0 s on only its keyframes were looked at"
    assert 500 < found.looked_at < 600 and max(found.times) > 20
    found = survey(str(long_clip), 8, min_side=48, budget=20.0)
    assert ", and nothing after " in found.note and found.looked_at < 20


def test_pictures_and_animations(tmp_path: Path, reader: FrameReader) -> None:
    from PIL import Image

    red, grey = Image.new("RGB", (32, 24), (255, 0, 0)), Image.new("RGB", (32, 24), (90, 90, 90))
    red.save(tmp_path / "red.png")
    other = [Image.new("RGB", (32, 24), (90 + i, 90, 90)) for i in range(9)]
    grey.save(tmp_path / "a.webp", save_all=True, append_images=[*other, red, *other], duration=100, lossless=True)
    # Players, and FFmpeg, show such short frames longer than the file says.
    grey.save(tmp_path / "a.gif", save_all=True, append_images=[*other, red, *other], duration=10)
    gates = Gates(frames=lambda policy: [Red()])
    for name in ("red.png", "a.webp", "a.gif"):
        assert gates.clip(str(tmp_path / name), reader).outcome == "refused", name
    grey.save(tmp_path / "grey.png")
    assert gates.clip(str(tmp_path / "grey.png"), reader).outcome == "allowed"


def test_an_odd_last_frame_is_seen(tmp_path: Path, reader: FrameReader) -> None:
    frames = np.full((100, 48, 64, 3), 90, np.uint8)
    frames[-1] = (255, 0, 0)
    write_mp4(tmp_path / "last.mp4", frames, 30)
    verdict = Gates(frames=lambda policy: [Red()]).clip(str(tmp_path / "last.mp4"), reader)
    assert verdict.outcome == "refused" and verdict.seconds == pytest.approx(99 / 30)
