"""An opened video file: its picture stream, the moment its first picture is shown, and when its last one ends."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType

import av
import av.error

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.sniff import Kind, top_level_boxes, why_unreadable

# Only files that hold pictures or sound themselves. Playlists (hls, concat, dash) would read other files or addresses.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,gif,apng,flv,live_flv,asf,ogg,mjpeg,h264,hevc,vvc,obu,av1,ivf,"
    "rm,mxf,nut,yuv4mpegpipe,dv,wtv,vc1,vc1test,avs2,avs3,h263,h261,swf,3gp,mj2,bink,smk,roq,"
    "mp3,wav,flac,aac,ac3,eac3,aiff,au,caf,amr,w64,ape,wv,dts,truehd,tta"
)
# No index and no meaningful seeking: read from the start. GIF and APNG draw each picture over the one before.
LINEAR_FORMATS = {"gif", "apng", "h264", "hevc", "vvc", "mjpeg", "m4v", "mpegvideo", "obu", "yuv4mpegpipe", "vc1"}
# The whole index is in memory once the file is open.
INDEXED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "avi"}
# Codecs that mark the frames which no other frame refers to (HEVC's mark is only for frames of its temporal layer).
# Skipping them decodes 1.4 to 2.4 times fewer seconds of processor time (H.264, 2 to 3 B-frames, measured on 2 cores).
SKIPPABLE_CODECS = {"h264", "mpeg4", "mpeg2video"}
# 16k x 16k: one such picture takes 400 MB as YUV. The largest video levels (HEVC 6.2) allow 8192x4320.
MAX_PIXELS = 1 << 28
# Frame threads each hold pictures; above 4K that costs more memory than the time is worth.
FRAME_THREADS_UP_TO = 4096 * 2304
READ_ERRORS = (av.error.FFmpegError, OSError, ValueError)


class Source:
    """Packets and frames of one file, with times in seconds from its first shown picture. Close it, or use ``with``."""

    def __init__(self, path: str, kind: Kind = "video", *, threads: int = 0, like: Source | None = None) -> None:
        """``threads`` of the decoder, 0 for as many as there are cores. ``like``: the same file, opened before."""
        self.path = path
        self.kind = kind
        self.threads = threads
        self.decode_errors = 0
        self.origin = 0.0
        # Make the decoder report what it would silently repair; from the next time the file is opened.
        self.report_errors = False
        # Frames shown before this many seconds are not decoded where no other frame needs them; ``skipped``: some may
        # have been left out.
        self.skip_before: float | None = None
        self.skipped = False
        self._only_keyframes = False
        self._open()
        if like is None:
            self.first = self._find_first()
        else:
            self.first, self.origin = like.first, like.origin

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def _open(self) -> None:
        began = time.perf_counter()
        try:
            self.container = av.open(
                # "file:" keeps a name with a colon from being read as a protocol.
                f"file:{os.path.abspath(self.path)}",
                format="mjpeg" if self.kind == "mjpeg" else None,
                options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except av.error.PermissionError:
            raise ClipError(self.path, "cannot be opened (no permission)") from None
        except READ_ERRORS:
            raise ClipError(self.path, why_unreadable(self.path)) from None
        # Seconds that it takes to open this file.
        self.opened_in = time.perf_counter() - began
        self.stream = self._picture_stream()
        self.format = self.container.format.name
        self.linear = self.format in LINEAR_FORMATS
        self.indexed = self.format in INDEXED_FORMATS
        context = self.stream.codec_context
        name = context.codec.canonical_name
        # AVI numbers packets, not pictures: with reordered H.264 or HEVC the times that FFmpeg guesses are irregular,
        # and change with each seek. Such a file is read from the start; its pictures are counted at the header's rate.
        self.counted = self.format == "avi" and name in ("h264", "hevc") and bool(context.has_b_frames)
        self.linear |= self.counted
        self.can_skip = name in SKIPPABLE_CODECS and not self.counted
        if context.width * context.height > MAX_PIXELS:
            raise ClipError(self.path, f"has pictures of {context.width}x{context.height}, too large to decode")
        # Keyframe sampling needs the picture now, not after as many packets as there are threads.
        context.thread_type = "AUTO" if context.width * context.height <= FRAME_THREADS_UP_TO else "SLICE"
        context.thread_count = self.threads
        if self.report_errors:
            context.options = {"err_detect": "explode"}
        self._packets: Iterator[av.Packet] = self.container.demux(self.stream)
        self._decoded: deque[av.VideoFrame] = deque()
        self._clock = 0.0
        self._ended = False
        # Frames before the first keyframe's time after a seek refer to pictures that were not decoded.
        self._floor: int | None = None
        self._wait_for_key = False

    def _picture_stream(self) -> av.VideoStream:
        """The first video stream that is not a cover picture."""
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self.container.streams.video if not s.disposition & cover]
        usable = [s for s in streams if s.codec_context is not None]
        if usable:
            return usable[0]
        sound = self.container.streams.audio
        found = len(self.container.streams)
        self.container.close()
        if not sound and (not found or not top_level_boxes(self.path)[1]):
            raise ClipError(self.path, why_unreadable(self.path))
        if streams:
            raise ClipError(self.path, "holds video in a codec that cannot be decoded")
        if sound:
            codec = sound[0].codec_context.name if sound[0].codec_context is not None else "unknown codec"
            raise ClipError(self.path, f"holds only sound ({codec}), no pictures")
        raise ClipError(self.path, "holds no pictures")

    def _find_first(self) -> av.VideoFrame:
        frame = self.next_frame()
        if frame is None:
            raise ClipError(self.path, self._why_nothing_decoded())
        self.origin = self._seconds(frame.pts) or 0.0
        return frame

    def _why_nothing_decoded(self) -> str:
        codec = self.stream.codec_context.name
        size = os.path.getsize(self.path)
        entries = self.stream.index_entries
        if self.indexed and len(entries) and entries[0].pos + entries[0].size > size:
            return f"is cut off after {size} bytes, before the first picture"
        return f"no picture could be decoded ({codec}; errors: {self.decode_errors})"

    def packet_span(self, packet: av.Packet) -> tuple[float, float] | None:
        """When the packet's picture is shown, in stream seconds; None where the container gives no times."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        start, end = self._seconds(ticks), self._seconds(None if ticks is None else ticks + (packet.duration or 0))
        return None if start is None or end is None else (start, end)

    def next_packet(self) -> av.Packet | None:
        """The next packet of the picture stream; None at the end, or where the file cannot be read further."""
        try:
            for packet in self._packets:
                if packet.size:
                    return packet
        except READ_ERRORS:
            self.decode_errors += 1
        return None

    def next_frame(self) -> av.VideoFrame | None:
        """The next frame in order of display; None at the end. Packets that cannot be decoded are counted, skipped."""
        while True:
            while self._decoded:
                frame = self._decoded.popleft()
                if self._floor is None or frame.pts is None or frame.pts >= self._floor:
                    return frame
            if self._ended:
                return None
            packet = self.next_packet()
            if packet is None:
                self._ended = True
            elif self._wait_for_key:
                if not packet.is_keyframe:
                    continue
                self._wait_for_key = False
                self._floor = packet.pts
            self._decode(packet)

    def only_keyframes(self) -> None:
        """Decode nothing but keyframes from here on."""
        self._only_keyframes = True

    def _decode(self, packet: av.Packet | None) -> None:
        """Decode ``packet`` (None: what the decoder still holds) into the queue."""
        if self._only_keyframes and packet is not None and not packet.is_keyframe:
            return
        if self.can_skip and packet is not None:
            span = self.packet_span(packet) if self.skip_before is not None else None
            skip = span is not None and self.skip_before is not None and span[0] - self.origin < self.skip_before
            self.stream.codec_context.skip_frame = "NONREF" if skip else "DEFAULT"
            self.skipped |= skip
        self._decoded.extend(self.decode(packet))

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """What the decoder gives for ``packet`` (None: what it still holds); an error is counted and gives nothing."""
        try:
            return self.stream.decode(packet)
        except READ_ERRORS:
            self.decode_errors += 1
            return []

    def decode_alone(self, packet: av.Packet) -> av.VideoFrame | None:
        """The picture of one keyframe. The decoder must be sought again before it is used for anything else."""
        self._decode(packet)
        self._decode(None)
        frame = self._decoded.popleft() if self._decoded else None
        self._decoded.clear()
        self._ended = True
        return frame

    def _seconds(self, ticks: int | None) -> float | None:
        # Not frame.time: frames that the decoder gives up at the end have lost their time base in PyAV.
        return None if ticks is None else float(ticks * self.stream.time_base)

    def time_of(self, frame: av.VideoFrame) -> float:
        """When ``frame`` is first shown, in seconds from the first picture. Call it once for each frame, in order."""
        seconds = self._seconds(frame.pts)
        if seconds is not None and not self.counted:
            return seconds - self.origin
        # A raw stream (.h264) has no times either: frames follow one another at the rate its header names.
        time, self._clock = self._clock, self._clock + self.frame_seconds(frame)
        return time

    def frame_seconds(self, frame: av.VideoFrame | av.Packet | None = None) -> float:
        """How long ``frame`` or a packet's frame, or a usual frame, is shown."""
        if frame is not None and frame.duration:
            return float(frame.duration * self.stream.time_base)
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(1 / rate) if rate else 0.04

    def ticks_at(self, seconds: float) -> int:
        """The last tick of the stream's clock at or before ``seconds`` from the first picture."""
        return math.floor((seconds + self.origin) / self.stream.time_base + 1e-6)

    def key_before(self, ticks: int) -> int | None:
        """The time of the last keyframe at or before ``ticks`` that the container's index names, as it counts there."""
        entries = self.stream.index_entries
        found = entries.search_timestamp(ticks, backward=True) if len(entries) else -1
        return entries[found].timestamp if found >= 0 else None

    def reopen(self, threads: int | None = None) -> None:
        """Continue at the start, with a new decoder."""
        self.container.close()
        if threads is not None:
            self.threads = threads
        self._open()

    def seek(self, seconds: float) -> None:
        """Continue at a keyframe, normally the last one at or before ``seconds``; check the time of what comes."""
        self._decoded.clear()
        self._ended = False
        # Containers seek by decoding time, which is before the time of display: from 10 s before, the start is found.
        ticks = self.ticks_at(seconds) if seconds > 0 else self.ticks_at(-10.0)
        try:
            if self.linear:
                raise ValueError("a stream without an index is read from the start")
            self.container.seek(ticks, stream=self.stream, backward=True)
        except READ_ERRORS:
            self.reopen()
            return
        self._packets = self.container.demux(self.stream)
        self._floor, self._wait_for_key = None, True

    @property
    def pixel_aspect(self) -> float:
        """Width of a stored pixel by its height; 1 where the file names none, or an absurd one."""
        ratio = self.stream.sample_aspect_ratio
        return float(ratio) if ratio and 0.1 < ratio < 10 else 1.0

    def claimed_duration(self) -> tuple[float | None, bool]:
        """The clip's length by its header, in seconds, and whether that is the length of the pictures alone."""
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base), True
        tag = self.stream.metadata.get("DURATION", "")
        parts = tag.split(":")
        if len(parts) == 3:
            try:
                return int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2]), True
            except ValueError:
                pass
        alone = len(self.container.streams) == 1
        return (self.container.duration / av.time_base if self.container.duration else None), alone
