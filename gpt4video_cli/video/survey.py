"""Which frames of a clip stand for all of it: every frame is looked at in small, those that differ are kept.

T frames, H height, W width. ``survey`` is the work itself, for the decoder's process; see ``FrameReader.survey``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.sniff import sniff

if TYPE_CHECKING:
    from gpt4video_cli.video.source import Source
    from gpt4video_cli.video.still import StillImage

SIDE = 16
"""Pixels of a thumbnail's sides: a clip of 3,000 frames is 2.3 MB, and noise is averaged away."""
CHANGE = 12.0
"""Of 255, root mean square over a thumbnail. A frame that differs by more from the last one that was kept begins a new
stretch of the clip. Steady film with noise stays below 3, a cut is above 20."""
EVEN_SHARE = 4
"""One in so many of the frames that may be chosen is for the even sample."""
_BATCH = 4096


@dataclass(frozen=True)
class Survey:
    """``frames`` uint8 [T, H, W, 3], upright, and the ``times`` in seconds at which they are shown.

    ``looked_at``: frames that they were chosen from. ``note``: what was not looked at frame by frame, or nothing.
    """

    frames: np.ndarray
    times: tuple[float, ...]
    looked_at: int
    sha256: str
    note: str = ""


def choose(thumbs: np.ndarray, most: int) -> list[int]:
    """Indices of at most ``most`` of ``thumbs``, uint8 [T, ...], ascending.

    An even sample, and the first frame of every stretch of the clip: a stretch ends where a frame differs by more than
    ``CHANGE`` from its first one, so a single other frame is a stretch of its own. Where that is more than ``most``,
    those are taken that differ most from all that were taken, one after the other (Gonzalez 1985, farthest-first
    traversal): what is left out lies as near as possible to something that was judged.
    """
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    count = len(flat)
    if count <= most:
        return list(range(count))
    even = {int((part + 0.5) * count / (most // EVEN_SHARE)) for part in range(most // EVEN_SHARE)} or {0}
    stretches = _stretches(flat)
    if len(even | set(stretches)) <= most:
        return sorted(even | set(stretches))
    chosen = set(even)
    candidates = flat[stretches]
    nearest = np.full(len(stretches), np.inf, np.float32)
    for index in chosen:
        nearest = np.minimum(nearest, _distance(candidates, flat[index]))
    while len(chosen) < most:
        farthest = int(nearest.argmax())
        chosen.add(stretches[farthest])
        nearest = np.minimum(nearest, _distance(candidates, candidates[farthest]))
        nearest[farthest] = -1.0
    return sorted(chosen)


def _stretches(flat: np.ndarray) -> list[int]:
    """The index of each stretch's first frame."""
    first = [0]
    while True:  # each stretch is searched in blocks that begin small: most are short, or all of the clip
        start, size, end = first[-1] + 1, 16, None
        while start < len(flat) and end is None:
            other = _distance(flat[start : start + size], flat[first[-1]]) > CHANGE
            end = start + int(other.argmax()) if other.any() else None
            start, size = start + size, min(2 * size, _BATCH)
        if end is None:
            return first
        first.append(end)


def _distance(frames: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Root mean square differences of ``frames`` [T, N] from ``one`` [N]."""
    result: np.ndarray = np.sqrt(np.square(frames - one).mean(axis=1))
    return result


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """``frames`` uint8 [T, H, W, 3] in small, uint8 [T, SIDE, SIDE, 3], each cell the mean of its part."""
    from PIL import Image

    small = [np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BOX)) for frame in frames]
    return np.stack(small)


def survey(path: str, most: int, *, min_side: int, budget: float = math.inf) -> Survey:
    """Look at every frame of the clip at ``path`` and read at most ``most`` of them with the short side ``min_side``.

    Reading takes place twice: in small, then the chosen ones. ``budget``: after half of so many seconds only keyframes
    are looked at, after two thirds no more; ``note`` says so. Raises ``ClipError``.
    """
    from gpt4video_cli.video.decode import read_clip

    began = time.monotonic()
    kind = sniff(path)
    found: list[float] = []
    note, moving = "", True
    if kind in ("still", "webp", "gif"):
        from gpt4video_cli.video.still import StillImage

        image = StillImage(path)
        try:
            moving = image.count > 1
            if moving and kind != "gif":  # ``read_clip`` leaves an animated GIF to FFmpeg, which has its own times
                found, thumbs = _of_animation(image)
        finally:
            image.close()
    if moving and not found:
        from gpt4video_cli.video.source import Source

        with Source(path, kind) as source:
            found, thumbs, note = _of_video(source, began + budget / 2, began + budget * 2 / 3)
    looked_at = max(1, len(found))
    chosen = tuple(found[index] for index in choose(thumbs, most)) if found else ()
    plan = SamplingPlan(at=chosen) if looked_at > 1 else SamplingPlan(frames=1)
    clip = read_clip(path, plan, min_side=min_side, budget=max(0.1, began + budget - time.monotonic()))
    if clip.receipt.hurried:
        note = note or "the clip takes long to decode: some of its frames were not looked at"
    return Survey(clip.frames, clip.receipt.seen, looked_at, clip.receipt.sha256, note)


def _of_animation(image: StillImage) -> tuple[list[float], np.ndarray]:
    seconds = image.durations()
    middles = [sum(seconds[:index]) + seconds[index] / 2 for index in range(len(seconds))]
    return middles, np.concatenate([thumbnails(image.picture(i, None)[0][None]) for i in range(len(seconds))])


def _of_video(source: Source, hurry: float, stop: float) -> tuple[list[float], np.ndarray, str]:
    """A moment at which each frame is shown, their thumbnails, and what was left out."""
    from av.video.reformatter import VideoReformatter

    from gpt4video_cli.video.extent import measure_extent

    shrink = VideoReformatter()  # one for all: a frame's own would plan the work anew for each
    moments: list[float] = []
    thumbs: list[np.ndarray] = []
    note, start = "", -1.0
    end = measure_extent(source).duration
    source.seek(0.0)
    while (frame := source.next_frame()) is not None:
        before, start = start, max(0.0, source.time_of(frame))
        if start <= before:
            continue  # a time that stands still or goes back: nothing shows this frame by its time
        if moments:
            moments[-1] = min(moments[-1], (before + start) / 2)
        moments.append(min(start + source.frame_seconds(frame) / 2, end))
        thumbs.append(shrink.reformat(frame, SIDE, SIDE, format="rgb24", interpolation="AREA").to_ndarray())
        late = time.monotonic()
        if not note and late > hurry:
            note = f"the clip is long: from {start:.1f} s on only its keyframes were looked at"
            source.only_keyframes()
        elif late > stop:
            note += f", and nothing after {start:.1f} s"
            break
    return moments, np.stack(thumbs), note
