"""File -> frames uint8 [T, H, W, 3] and their times in seconds [T].

``FrameReader`` is what the program uses: it decodes in a child process that can be killed. ``read_clip`` is the work
itself, in this process, for the child and for code that trusts its files (training on clips it wrote).
"""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.video.sampling import HURRIED, SamplingPlan, SamplingReceipt, largest_gap
from gpt4video_cli.video.sniff import sniff

if TYPE_CHECKING:
    from gpt4video_cli.video.source import Source
    from gpt4video_cli.video.still import StillImage

__all__ = ["Clip", "FrameReader", "read_clip"]


def read_clip(
    path: str | os.PathLike[str],
    plan: SamplingPlan,
    *,
    min_side: int | None = None,
    budget: float = math.inf,
    identify: bool = True,
) -> Clip:
    """Decode the moments that ``plan`` chooses. Raises ``ClipError`` with the reason where that is impossible.

    ``min_side``: shrink to this short side in pixels while converting; aspect kept, never enlarged. ``budget``:
    seconds after which exact sampling goes on with keyframes, and says so in the receipt. ``identify``: false leaves
    the receipt without the content's SHA-256, which takes 0.3 s of processor time for 500 MB.
    """
    deadline = time.monotonic() + budget
    from gpt4video_cli.video.fingerprint import fingerprint

    path = os.fspath(path)
    kind = sniff(path)
    # hashlib and FFmpeg both release the interpreter lock: hashing costs no time on a second core.
    with ThreadPoolExecutor(1) as background:
        digest = background.submit(lambda: fingerprint(path) if identify else "")
        if kind in ("still", "webp", "gif"):
            from gpt4video_cli.video.still import StillImage

            image = StillImage(path)
            try:
                if kind != "gif" or image.count == 1:
                    return _read_image(image, plan, min_side, digest)
            finally:
                image.close()
        from gpt4video_cli.video.source import Source

        # One thread: groups of pictures are decoded side by side, which costs less than threads inside each.
        with Source(path, kind, threads=1) as source:
            return _read_video(source, plan, min_side, digest, deadline)


def _read_image(image: StillImage, plan: SamplingPlan, min_side: int | None, digest: Future[str]) -> Clip:
    starts, duration = [0.0], 0.0
    moments: tuple[float, ...] = (0.0,)
    still = image.count == 1
    if still:
        late = plan.start or max(plan.at, default=0.0)
        if late > 0:
            raise ClipError(image.path, f"is a still image; it has no moment at {late:g} s")
    else:
        seconds = image.durations()
        starts, duration = [sum(seconds[:i]) for i in range(len(seconds))], sum(seconds)
        moments = plan.times(duration, image.path)
    pictures: list[np.ndarray] = []
    seen: list[float] = []
    for moment in moments:
        index = max(bisect_right(starts, moment + 1e-6) - 1, 0)
        if not seen or starts[index] != seen[-1]:
            picture, size = image.picture(index, min_side)
        pictures.append(picture)
        seen.append(starts[index])
    return _clip(image.path, plan, np.stack(pictures), moments, seen, duration, size, digest, image.notes, still=still)


def _read_video(source: Source, plan: SamplingPlan, min_side: int | None, digest: Future[str], deadline: float) -> Clip:
    from gpt4video_cli.video.extent import measure_extent
    from gpt4video_cli.video.lanes import draw_frames
    from gpt4video_cli.video.picture import HDR_TRANSFERS, RgbCanvas, Upright, displayed_size, shrunk_size

    upright = Upright.of(source.first)
    size = displayed_size(source.first, source.pixel_aspect, upright)
    shown = shrunk_size(*size, min_side)
    extent = measure_extent(source)
    moments = plan.times(extent.duration, source.path)
    canvas = RgbCanvas(len(moments), shown, upright)
    seen = draw_frames(source, moments, plan.mode, deadline, canvas)
    notes = []
    if seen.hurried:
        notes.append(f"{HURRIED}: {seen.hurried} of {len(moments)} frames are the keyframes before")
    if extent.cut_off:
        notes.append(f"the file is cut off: {extent.duration:.2f} of {extent.claimed:.2f} s can be read")
    if source.decode_errors:
        notes.append(f"damaged packets skipped: {source.decode_errors}")
    if source.first.color_trc in HDR_TRANSFERS:
        notes.append("HDR colours, shown without tone mapping")
    return _clip(source.path, plan, canvas.pictures, moments, seen.times, extent.duration, size, digest, notes)


def _clip(
    path: str,
    plan: SamplingPlan,
    pictures: np.ndarray,
    moments: Sequence[float],
    seen: Sequence[float],
    duration: float,
    size: tuple[int, int],
    digest: Future[str],
    notes: Sequence[str],
    *,
    still: bool = False,
) -> Clip:
    """Write the receipt. ``size`` is (width, height) before shrinking."""
    start, end = (0.0, 0.0) if still else plan.range_within(duration, path)
    distinct = len(set(seen))
    if distinct < len(moments):
        notes = [*notes, f"{distinct} different frame{'s' if distinct != 1 else ''} for {len(moments)} moments"]
    if seen[0] < start and plan.mode == "keyframe":
        notes = [*notes, f"the keyframe at {seen[0]:.2f} s lies before the range"]
    receipt = SamplingReceipt(
        path=path,
        sha256=digest.result(),
        duration=duration,
        mode=plan.mode,
        requested=tuple(moments),
        seen=tuple(seen),
        largest_gap=largest_gap(seen, start, end),
        width=size[0],
        height=size[1],
        start=start,
        end=end,
        still=still,
        notes=tuple(notes),
    )
    return Clip(pictures, np.array(seen, np.float64), receipt)
