"""The frames shown at given moments, each from the packets of its own group of pictures and no more than it needs.

A group is what follows a keyframe in order of decoding. Packets are read first, which is cheap, so that the frame which
is wanted is known before anything is decoded; what no wanted frame refers to is left out, and the decoder gives the
last one up at once instead of after as many packets as it delays. Whoever cannot be sure says so: see ``Unsure``.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import av

from gpt4video_cli.video.references import References
from gpt4video_cli.video.seek import ROUNDING, OutOfTime, Shown
from gpt4video_cli.video.source import READ_ERRORS, Source

# A picture comes at most so many packets before its turn (16 frames wait in the largest picture buffer of H.264 and
# HEVC): after more than that many later ones, no earlier one can follow.
REORDERED = 16
# Of one group, held in memory as it lies in the file. Larger ones are decoded while they are read.
MOST_HELD = 64 << 20


class Unsure(Exception):
    """The packets do not say for certain which frame is wanted, or it did not come out whole: decode step by step."""


class GroupReader:
    """Reads on from group to group; use it for ascending moments. The source is its own."""

    def __init__(self, source: Source, deadline: float = math.inf) -> None:
        self.source = source
        self._deadline = deadline
        self._references = References.of(source.stream)
        self._tick = float(source.stream.time_base)
        self._held: list[av.Packet] = []  # from a keyframe on
        self._read_until: int | None = None  # decoding time of the last packet that was read
        # Seconds, as measured on this file so far.
        self._seek_cost, self._packet_cost = math.inf, 0.0
        self._spacing = 1.0

    def frames_at(self, moments: Sequence[float]) -> Iterator[Shown]:
        """For each of the ascending ``moments`` (seconds) the frame shown then. Raises ``Unsure``, ``OutOfTime``."""
        source = self.source
        # The last tick at which a frame may begin.
        limits = [math.floor((m + ROUNDING + source.origin) / self._tick) for m in moments]
        while limits:
            count, following = self._gather(limits)
            shown = sorted(packet.pts for packet in self._held if not packet.is_discard)
            places = [bisect_right(shown, limit) for limit in limits[:count]]
            # Two pictures for one moment, or none.
            if 0 in places or any(at > 1 and shown[at - 2] == shown[at - 1] for at in places):
                raise Unsure
            wanted = [shown[at - 1] for at in places]
            for frame, times in self._decoded(wanted):
                yield from [(source.time_of(frame), frame)] * times
            self._held = self._held[following:]
            limits = limits[count:]

    def _gather(self, limits: Sequence[int]) -> tuple[int, int]:
        """Hold the packets from the last keyframe at or before ``limits[0]`` on, enough for as many limits as follow
        before the next keyframe: their number, and where among the held packets that next one is."""
        self._go_to(limits[0])
        count, following = len(limits), None
        at, size, late, read, began = 0, 0, 0, 0, time.perf_counter()
        while late <= REORDERED:
            if at == len(self._held):
                if (packet := self._next_packet()) is None:
                    break
                read += 1
                self._held.append(packet)
            packet = self._held[at]
            if packet.is_keyframe and at:
                if packet.pts <= limits[0]:
                    # A later start: what was read before it is not needed.
                    del self._held[:at]
                    count, following, at, size, late = len(limits), None, 0, 0, 0
                elif following is None:
                    count, following = bisect_left(limits, packet.pts), at
            at, size = at + 1, size + packet.size
            if size > MOST_HELD:
                raise Unsure
            late += packet.pts > limits[count - 1]
            if packet.dts is not None and packet.dts > limits[count - 1]:
                break
        if read:
            self._packet_cost = (time.perf_counter() - began) / read
        return count, len(self._held) if following is None else following

    def _next_packet(self) -> av.Packet | None:
        if time.monotonic() > self._deadline:
            raise OutOfTime
        packet = self.source.next_packet()
        if packet is None:
            return None
        if packet.pts is None:
            raise Unsure
        self._read_until = packet.dts if packet.dts is not None else packet.pts
        return packet

    def _go_to(self, limit: int) -> None:
        """Hold a keyframe at or before ``limit``: read on to it where that costs less than a seek, else seek."""
        if not self._seek_pays(limit):
            if self._held and self._held[0].pts <= limit:
                return
            if self._hold_keyframe() is not None and self._held[0].pts <= limit:
                return
        before = self._read_until
        target, back = limit * self._tick - self.source.origin, 1.0
        while True:
            began = time.perf_counter()
            self.source.seek(target)
            key = self._hold_keyframe()
            self._seek_cost = time.perf_counter() - began
            if key is not None and key.pts <= limit:
                break
            if target <= 0:
                raise Unsure
            landed = target if key is None or key.dts is None else (key.dts - 1) * self._tick - self.source.origin
            if landed < target:
                # Containers seek by decoding time, which is before the time of display: landed one keyframe too far.
                target = landed
                continue
            target, back = target - back, 2 * back
        if before is not None and key.pts <= before:
            self._spacing = max(self._spacing, 2 * (limit - key.pts) * self._tick)

    def _hold_keyframe(self) -> av.Packet | None:
        """Read to the next keyframe and hold it alone."""
        self._held = []
        while (packet := self._next_packet()) is not None and not packet.is_keyframe:
            pass
        if packet is not None:
            self._held.append(packet)
        return packet

    def _seek_pays(self, limit: int) -> bool:
        if self._read_until is None:
            return True
        key = self.source.key_before(limit)
        if key is not None and key > self._read_until:
            packets = (key - self._read_until) * self._tick / self.source.frame_seconds()
            return packets * self._packet_cost > self._seek_cost
        if not self._held or self._held[0].pts > limit:
            return True
        return not self.source.indexed and (limit - self._read_until) * self._tick > self._spacing

    def _decoded(self, wanted: Sequence[int]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Each frame whose time is in ``wanted``, once, and how often it is there."""
        source, context = self.source, self.source.stream.codec_context
        times = {pts: wanted.count(pts) for pts in wanted}
        missing = list(times)
        last = max(i for i, packet in enumerate(self._held) if packet.pts in times)
        errors = source.decode_errors
        try:
            for packet in [*self._needed(last, times), None]:
                if time.monotonic() > self._deadline:
                    raise OutOfTime
                for frame in source.decode(packet):
                    if source.decode_errors > errors or (frame.is_corrupt and frame.pts >= self._held[0].pts):
                        raise Unsure
                    if missing and frame.pts == missing[0]:
                        yield frame, times[missing.pop(0)]
            if missing or source.decode_errors > errors:
                raise Unsure
        except READ_ERRORS:
            raise Unsure from None
        finally:
            source.decode_errors = errors
            context.skip_frame = "DEFAULT"
            context.flush_buffers()

    def _needed(self, last: int, wanted: dict[int, int]) -> Iterator[av.Packet]:
        """The held packets up to ``last`` without those that no wanted frame refers to."""
        packets = self._held[: last + 1]
        if self._references is None:
            for packet in packets:
                if self.source.can_skip:
                    self.source.stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield packet
            return
        levels = [self._references.level(packet) for packet in packets]
        needed, need = [False] * len(packets), -1
        # From the last one back: a frame needs only what comes before it.
        for i in reversed(range(len(packets))):
            if packets[i].pts in wanted:
                need = max(need, self._references.need(levels[i]))
                needed[i] = True
            else:
                needed[i] = levels[i] <= need
        yield from (packet for packet, is_needed in zip(packets, needed, strict=True) if is_needed)
