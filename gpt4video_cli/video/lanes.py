"""The frames of a clip at given moments, on as many cores as the work is worth.

A lane is a decoder of its own with a file of its own, so that lanes share nothing. They take groups of pictures one by
one, and need no frame threads, which wait for each other after every seek.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import av

from gpt4video_cli.video.group import GroupReader, Unsure
from gpt4video_cli.video.seek import OutOfTime, Shown, Walk, keyframes_at
from gpt4video_cli.video.source import Source

# Of one core here, H.264 of 0.5 Mbit/s: 0.75 ms for a 720p picture, 1.35 ms for a 1080p one; a keyframe of 720p, also
# in HEVC and VP9, 9 to 13 ms. They are only weighed against what opening the file took, here 8 ms for 10 minutes.
SECONDS_PER_PIXEL = 0.7e-9
KEYFRAME_COST = 12
# Lanes together hold no more than this as pictures: up to 17 each (H.264, HEVC), of 1.5 bytes a pixel.
MOST_BYTES = 256 << 20
BYTES_PER_PIXEL = 17 * 1.5


class Canvas(Protocol):
    """Where frames go. Called from several threads, each for moments of its own."""

    def draw(self, number: int, frame: av.VideoFrame) -> None:
        """``frame`` is shown at moment ``number``."""

    def repeat(self, number: int) -> None:
        """What is shown at the moment before is shown at moment ``number`` too."""


@dataclass(frozen=True)
class Seen:
    """When the frame of each moment is first shown, in seconds; ``hurried``: how many are not those asked for."""

    times: list[float]
    hurried: int


def draw_frames(source: Source, moments: Sequence[float], mode: str, deadline: float, canvas: Canvas) -> Seen:
    """Draw the frame for each of the ascending ``moments`` (seconds).

    ``exact``: the last frame shown at or before the moment; after ``deadline`` (of ``time.monotonic``) the last
    keyframe, which is then not what was asked for. ``keyframe``: the last keyframe.
    """
    if source.linear:
        mode = "exact"
    work = _Work(source, moments, mode, deadline, canvas)
    lanes = 1 if source.linear else _lanes_that_pay(source, work)
    # A single lane leaves the other cores to its decoder's threads, if they have enough to do.
    threads = 1 if mode == "keyframe" else max(1, _cores() // lanes)
    if source.linear:
        source.threads = threads  # read from the start in any case, which opens it again
    elif threads != source.threads and work.seconds > source.opened_in:
        source.reopen(threads)
    with ThreadPoolExecutor(max(1, lanes - 1)) as pool:
        others = [pool.submit(work.in_a_lane_of_its_own, threads) for _ in range(lanes - 1)]
        try:
            work.do(source)
        finally:
            work.stop()
        source.decode_errors += sum(other.result() for other in others)
    return work.finish()


def _lanes_that_pay(source: Source, work: _Work) -> int:
    """As many as have something to do, or 1 where another one's opening costs more than it saves."""
    pixels = source.first.width * source.first.height
    lanes = max(1, min(_cores(), len(work.parts), int(MOST_BYTES / (BYTES_PER_PIXEL * pixels))))
    return lanes if work.seconds * (1 - 1 / lanes) > source.opened_in else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Work:
    """What the lanes share: parts that are taken in order, and what was found."""

    def __init__(self, source: Source, moments: Sequence[float], mode: str, deadline: float, canvas: Canvas) -> None:
        self.source, self.moments, self.mode, self.deadline, self.canvas = source, moments, mode, deadline, canvas
        self.times: list[float | None] = [None] * len(moments)
        self.parts = _parts(source, moments)
        keys = KEYFRAME_COST * len(moments)
        pictures = keys if mode == "keyframe" else sum(part.pictures for part in self.parts)
        # What decoding takes on one core, roughly.
        self.seconds = pictures * source.first.width * source.first.height * SECONDS_PER_PIXEL
        self._left = iter(list(self.parts))
        self._guard = threading.Lock()

    def do(self, source: Source) -> None:
        """Take parts and draw them until none is left or the time is over."""
        exact = Exact(source, self.deadline)
        with contextlib.suppress(OutOfTime):
            while (part := self._take()) is not None:
                moments = self.moments[part.begin : part.end]
                found = exact.frames_at(moments) if self.mode == "exact" else keyframes_at(source, moments)
                self._draw(range(part.begin, part.end), found)

    def in_a_lane_of_its_own(self, threads: int) -> int:
        """As ``do``, with a decoder of its own; how many packets could not be decoded."""
        with Source(self.source.path, self.source.kind, threads=threads, like=self.source) as source:
            self.do(source)
            return source.decode_errors

    def stop(self) -> None:
        """No further part is taken."""
        with self._guard:
            self._left = iter(())

    def finish(self) -> Seen:
        """Draw keyframes where there was no time for more."""
        late = [number for number, seconds in enumerate(self.times) if seconds is None]
        self._draw(late, keyframes_at(self.source, [self.moments[number] for number in late]))
        return Seen([max(0.0, seconds) for seconds in self.times if seconds is not None], len(late))

    def _take(self) -> _Part | None:
        with self._guard:
            return next(self._left, None)

    def _draw(self, numbers: Sequence[int], found: Iterator[Shown]) -> None:
        before: tuple[int, av.VideoFrame] | None = None
        for number, (seconds, frame) in zip(numbers, found, strict=True):
            # One frame asked for twice is converted once.
            if before is not None and before[0] == number - 1 and before[1] is frame:
                self.canvas.repeat(number)
            else:
                self.canvas.draw(number, frame)
            before = (number, frame)
            self.times[number] = seconds


class Exact:
    """The frame shown at each moment: by whole groups of pictures, step by step once a file has misled that."""

    def __init__(self, source: Source, deadline: float) -> None:
        self._source, self._deadline = source, deadline
        self._reader = None if source.linear else GroupReader(source, deadline)

    def frames_at(self, moments: Sequence[float]) -> Iterator[Shown]:
        """For each of the ascending ``moments`` (seconds) the last frame shown at or before it."""
        done = 0
        if self._reader is not None:
            try:
                for shown in self._reader.frames_at(moments):
                    yield shown
                    done += 1
                return
            except Unsure:
                self._reader = None
        yield from Walk(self._source, self._deadline).frames_at(moments[done:])


@dataclass(frozen=True)
class _Part:
    """The moments with these numbers, which share a group of pictures; ``pictures`` to decode for them, roughly."""

    begin: int
    end: int
    pictures: float


def _parts(source: Source, moments: Sequence[float]) -> list[_Part]:
    """The moments by the keyframe before them; all in one part where no index names keyframes."""
    keys = [None if source.linear else source.key_before(source.ticks_at(moment)) for moment in moments]
    parts, begin = [], 0
    for i, key in enumerate(keys):
        if i + 1 < len(keys) and keys[i + 1] == key:
            continue
        start = moments[begin] if key is None else float(key * source.stream.time_base) - source.origin
        parts.append(_Part(begin, i + 1, 1 + (moments[i] - start) / source.frame_seconds()))
        begin = i + 1
    return parts
