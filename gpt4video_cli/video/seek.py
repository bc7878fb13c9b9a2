"""Step by step to the frame shown at each moment, for files that say little of themselves; and to keyframes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import av

from gpt4video_cli.video.source import Source

# Closer moments are reached by decoding on: a seek also decodes, from a keyframe that is usually further away.
NEAR = 0.2
# Containers without an index in memory: jumps over this many seconds try a seek, until one shows the keyframe spacing.
FIRST_GUESS = 1.0
# Time stamps are whole ticks; this is less than a tick of any common time base and more than a rounding error.
ROUNDING = 1e-6

Shown = tuple[float, av.VideoFrame]


class OutOfTime(Exception):
    """The deadline passed in the middle of decoding towards a moment."""


class Walk:
    """A position in the stream: ``current`` is the last frame passed, ``ahead`` the next one."""

    def __init__(self, source: Source, deadline: float) -> None:
        self.source = source
        self.deadline = math.inf if source.linear else deadline
        self.current: Shown | None = None
        self.ahead: Shown | None = None
        self.spacing = FIRST_GUESS
        # Frames that are only passed are not decoded where no other frame needs them; not in the last stretch, where
        # the frame that is looked for usually lies.
        self.stretch = max(0.3, 3 * source.frame_seconds())

    def frames_at(self, moments: Sequence[float]) -> Iterator[Shown]:
        """For each of the ascending ``moments`` the last frame shown at or before it. Raises ``OutOfTime``."""
        try:
            for i, moment in enumerate(moments):
                if i == 0 and (self.source.linear or moment <= NEAR):
                    self._start()
                elif i == 0 or self._seek_pays(moment):
                    self._seek_to(moment)
                if not self._advance(moment, skip=True):
                    self._seek_to(moment)
                    self._advance(moment, skip=False)
                # Before the first frame only by rounding: the first frame is shown from 0 on.
                yield self.current or self.ahead or (0.0, self.source.first)
        finally:
            self.source.skip_before = None

    def _next(self) -> Shown | None:
        if time.monotonic() > self.deadline:
            raise OutOfTime
        frame = self.source.next_frame()
        return None if frame is None else (self.source.time_of(frame), frame)

    def _start(self) -> None:
        """Go to the first frame, by opening the file again where seeking cannot (a clock that wrapped around)."""
        self._restart(0.0)
        if not self.source.linear and (self.ahead is None or self.ahead[0] > ROUNDING):
            self.source.reopen()
            self.ahead = self._next()

    def _restart(self, seconds: float) -> None:
        self.source.seek(seconds)
        self.current, self.ahead = None, self._next()

    def _advance(self, moment: float, *, skip: bool) -> bool:
        """Decode until ``ahead`` lies after ``moment``. False where a skipped frame could have been the right one."""
        certain = moment - self.stretch
        self.source.skipped = False
        self.source.skip_before = certain if skip else None
        while self.ahead is not None and self.ahead[0] <= moment + ROUNDING:
            self.current, self.ahead = self.ahead, self._next()
        self.source.skip_before = None
        return not self.source.skipped or (self.current is not None and self.current[0] >= certain)

    def _position(self) -> float:
        shown = self.ahead or self.current
        return shown[0] if shown is not None else 0.0

    def _seek_pays(self, moment: float) -> bool:
        position, source = self._position(), self.source
        if source.linear or self.ahead is None or moment - position <= NEAR:
            return False
        key = source.key_before(source.ticks_at(moment))
        if key is not None and float(key * source.stream.time_base) - source.origin > position:
            return True
        return not source.indexed and moment - position > self.spacing

    def _seek_to(self, moment: float) -> None:
        """Go to a frame at or before ``moment``, further back each time that the container lands behind it."""
        position, back = self._position(), 0.0
        while True:
            target = moment - back
            self._restart(max(0.0, target))
            if self.ahead is not None and self.ahead[0] <= moment + ROUNDING:
                break
            if target <= 0:
                self._start()
                break
            back = max(1.0, back * 2)
        landed = self._position()
        if landed <= position:
            self.spacing = max(self.spacing, 2 * (moment - landed))


def keyframes_at(source: Source, moments: Sequence[float]) -> Iterator[Shown]:
    """For each of the ascending ``moments`` (seconds) the last keyframe at or before it that can be decoded."""
    last: Shown | None = None
    key_time: float | None = None
    for moment in moments:
        packet = _key_packet(source, moment)
        while packet is not None:
            span = source.packet_span(packet)
            start = None if span is None else span[0] - source.origin
            if last is not None and start is not None and start == key_time:
                break
            frame = source.decode_alone(packet)
            if frame is not None:
                last, key_time = (source.time_of(frame), frame), start
            if last is not None or start is None:
                break
            packet = _key_packet(source, start - 2 * ROUNDING) if start > 0 else None
        if last is None:
            last = (0.0, source.first)
        yield last


def _key_packet(source: Source, moment: float) -> av.Packet | None:
    """The last keyframe packet at or before ``moment``; None where none is found."""
    target, back = moment, 1.0
    while True:
        source.seek(target)
        found, late = _last_key_until(source, moment)
        if found is not None or target <= 0:
            return found
        if late is not None and late.dts is not None:
            # Containers seek by decoding time, which is before the time of display: landed one keyframe too far.
            landed = float((late.dts - 1) * source.stream.time_base) - source.origin
            if landed < target:
                target = landed
                continue
        target, back = target - back, 2 * back


def _last_key_until(source: Source, moment: float) -> tuple[av.Packet | None, av.Packet | None]:
    """The last keyframe from here to ``moment``, and the first keyframe after it if that was met."""
    found: av.Packet | None = None
    while (packet := source.next_packet()) is not None:
        span = source.packet_span(packet)
        seconds = span[0] - source.origin if span is not None else 0.0
        if packet.is_keyframe:
            if seconds > moment + ROUNDING:
                return found, packet
            found = packet
            if source.indexed:
                break
        elif seconds > moment + 1.0:
            # Past the moment, B-frames and all.
            break
    return found, None
