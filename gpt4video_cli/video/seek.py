"""Find the frame shown at each moment, seeking where that is less work than decoding on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av

from gpt4video_cli.video.source import READ_ERRORS, Source

# Closer moments are reached by decoding on: a seek also decodes, from a keyframe that is usually further away.
NEAR = 0.2
# Containers without an index in memory: jumps over this many seconds try a seek, until one shows the keyframe spacing.
FIRST_GUESS = 1.0

Shown = tuple[float, av.VideoFrame]


def frames_at(source: Source, moments: Sequence[float], mode: str) -> Iterator[Shown]:
    """For each of the ascending ``moments`` (seconds), the time and frame of the last one shown at or before it."""
    if mode == "keyframe" and not source.linear:
        yield from _keyframes_at(source, moments)
    else:
        yield from _Walk(source).frames_at(moments)


class _Walk:
    """A position in the stream: ``current`` is the last frame passed, ``ahead`` the next one."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.current: Shown | None = None
        self.ahead: Shown | None = None
        self.spacing = FIRST_GUESS

    def frames_at(self, moments: Sequence[float]) -> Iterator[Shown]:
        self._restart(0.0)
        for moment in moments:
            if not self.source.linear and self._seek_pays(moment):
                self._seek_to(moment)
            self._advance(moment)
            # Before the first frame only by rounding: the first frame is shown from 0 on.
            shown = self.current or self.ahead
            if shown is not None:
                yield shown

    def _next(self) -> Shown | None:
        frame = self.source.next_frame()
        return None if frame is None else (self.source.time_of(frame), frame)

    def _restart(self, seconds: float) -> None:
        self.source.seek(seconds)
        self.current, self.ahead = None, self._next()

    def _advance(self, moment: float) -> None:
        """Decode until ``ahead`` lies after ``moment`` or the stream ends."""
        # Time stamps are whole ticks; 1e-6 s is under a tick of any common time base and above rounding errors.
        while self.ahead is not None and self.ahead[0] <= moment + 1e-6:
            self.current, self.ahead = self.ahead, self._next()

    def _position(self) -> float:
        shown = self.ahead or self.current
        return shown[0] if shown is not None else 0.0

    def _seek_pays(self, moment: float) -> bool:
        position, source = self._position(), self.source
        if self.ahead is None or moment - position <= NEAR:
            return False
        entries = source.stream.index_entries
        if len(entries):
            ticks = round((moment + source.origin) / source.stream.time_base)
            found = entries.search_timestamp(ticks, backward=True)
            if found >= 0:
                key = float(entries[found].timestamp * source.stream.time_base) - source.origin
                if key > position:
                    return True
        return not source.indexed and moment - position > self.spacing

    def _seek_to(self, moment: float) -> None:
        """Go to a frame at or before ``moment``, further back each time that the container lands behind it."""
        position, back = self._position(), 0.0
        while True:
            target = moment - back
            self._restart(max(0.0, target))
            if self.ahead is not None and self.ahead[0] <= moment + 1e-6:
                break
            if target <= 0:
                # Even the start lands behind: read from there, as far as it goes.
                break
            back = max(1.0, back * 2)
        landed = self._position()
        if landed <= position:
            self.spacing = max(self.spacing, 2 * (moment - landed))


def _keyframes_at(source: Source, moments: Sequence[float]) -> Iterator[Shown]:
    last: Shown | None = None
    key_time: float | None = None
    for moment in moments:
        packet = _key_packet(source, moment)
        if packet is not None:
            span = source.packet_span(packet)
            if last is not None and span is not None and span[0] == key_time:
                yield last
                continue
            frame = source.decode_alone(packet)
            if frame is not None:
                last, key_time = (source.time_of(frame), frame), span[0] if span is not None else None
        if last is None:
            last = (0.0, source.first)
        yield last


def _key_packet(source: Source, moment: float) -> av.Packet | None:
    """The last keyframe packet at or before ``moment``; None where none is found."""
    back = 0.0
    while True:
        target = max(0.0, moment - back)
        try:
            source.seek(target)
        except READ_ERRORS:
            return None
        found: av.Packet | None = None
        while (packet := source.next_packet()) is not None:
            span = source.packet_span(packet)
            time = span[0] - source.origin if span is not None else 0.0
            if packet.is_keyframe and time <= moment + 1e-6:
                found = packet
                if source.indexed:
                    return found
            elif time > moment:
                break
        if found is not None or target <= 0:
            return found
        back = max(1.0, back * 2)
