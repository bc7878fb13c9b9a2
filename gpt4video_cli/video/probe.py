"""What is in a file, by its packets and pictures, with what its header claims beside it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gpt4video_cli.video.clip_info import ClipInfo, Sound
from gpt4video_cli.video.reader import TIME_LIMIT, FrameReader
from gpt4video_cli.video.sniff import sniff

if TYPE_CHECKING:
    import av

    from gpt4video_cli.video.source import Source
    from gpt4video_cli.video.still import StillImage

__all__ = ["ClipInfo", "Sound", "inspect", "probe_clip"]

# Seconds spent on decoding in search of damage; a minute or so of 1080p on two cores.
DECODE_SECONDS = 2.0


def probe_clip(
    path: str | os.PathLike[str], *, reader: FrameReader | None = None, time_limit: float = TIME_LIMIT
) -> ClipInfo:
    """Look at the file in a child process, within ``time_limit`` seconds. Raises ``ClipError`` with the reason."""
    if reader is not None:
        return ClipInfo.from_dict(reader.probe(path, time_limit=time_limit))
    with FrameReader() as own:
        return ClipInfo.from_dict(own.probe(path, time_limit=time_limit))


def inspect(path: str, *, budget: float = TIME_LIMIT) -> ClipInfo:
    """The work itself, in this process. ``budget``: seconds after which counting and looking for damage stop."""
    kind = sniff(path)
    if kind in ("still", "webp", "gif"):
        from gpt4video_cli.video.still import StillImage

        image = StillImage(path)
        try:
            if kind != "gif" or image.count == 1:
                return _inspect_image(image)
        finally:
            image.close()
    from gpt4video_cli.video.source import Source

    deadline = time.monotonic() + budget
    with Source(path, kind) as source:
        packets = _read_packets(source, deadline - min(DECODE_SECONDS, budget / 2))
        checked, errors = _decode_on(source, min(deadline, time.monotonic() + DECODE_SECONDS))
        return _describe(source, packets, checked, errors)


@dataclass
class _Packets:
    """What reading every packet showed. Seconds."""

    starts: list[float] = field(default_factory=list)
    end: float = 0.0
    count: int = 0
    keyframes: int = 0
    corrupt: int = 0
    untimed: float = 0.0
    complete: bool = False


def _read_packets(source: Source, deadline: float) -> _Packets:
    found = _Packets()
    source.seek(0.0)
    while (packet := source.next_packet()) is not None:
        found.corrupt += packet.is_corrupt
        if packet.is_discard:
            continue
        found.count += 1
        found.keyframes += packet.is_keyframe
        span = source.packet_span(packet)
        if span is None:
            found.untimed += source.frame_seconds(packet)
        else:
            found.starts.append(span[0] - source.origin)
            found.end = max(found.end, span[1] - source.origin)
        if found.count % 256 == 0 and time.monotonic() > deadline:
            return found
    found.complete = True
    return found


def _decode_on(source: Source, deadline: float) -> tuple[float, int]:
    """Decode from the start until ``deadline``: the seconds reached, and how many errors there were."""
    source.decode_errors = 0
    source.report_errors = True
    # The decoder takes this only when it is opened.
    source.reopen()
    reached, corrupt = 0.0, 0
    while time.monotonic() < deadline and (frame := source.next_frame()) is not None:
        reached = max(reached, source.time_of(frame) + source.frame_seconds(frame))
        corrupt += frame.is_corrupt
    return reached, source.decode_errors + corrupt


def _describe(source: Source, packets: _Packets, checked: float, errors: int) -> ClipInfo:
    from gpt4video_cli.video.extent import is_short, measure_extent
    from gpt4video_cli.video.picture import Upright, displayed_size

    first, stream = source.first, source.stream
    upright = Upright.of(first)
    width, height = displayed_size(first, source.pixel_aspect, upright)
    claimed_duration, of_pictures = source.claimed_duration()
    duration = _duration(source, packets) if packets.complete else measure_extent(source).duration
    read = duration if packets.complete else packets.end
    rate = stream.guessed_rate or stream.average_rate
    damage = []
    missing = (stream.frames or 0) - packets.count
    if packets.complete and of_pictures and is_short(duration, claimed_duration, source.frame_seconds()):
        count = f", {missing} of {stream.frames} frames are missing" if missing > 0 else ""
        damage.append(f"cut off: {duration:.2f} of {claimed_duration:.2f} s can be read{count}")
    if packets.corrupt:
        damage.append(f"{_count(packets.corrupt, 'packet')} damaged or incomplete")
    if errors:
        damage.append(f"{_count(errors, 'error')} while decoding")
    return ClipInfo(
        path=source.path,
        kind="animation" if source.format in ("gif", "apng") else "video",
        bytes=os.path.getsize(source.path),
        container=source.container.format.long_name,
        codec=stream.codec_context.codec.canonical_name,
        profile=stream.profile or None,
        pixel_format=first.format.name,
        bit_depth=max(component.bits for component in first.format.components),
        coded_width=first.width,
        coded_height=first.height,
        width=width,
        height=height,
        rotation=upright.degrees,
        mirrored=upright.mirrored,
        pixel_aspect=source.pixel_aspect,
        rate=_constancy(packets.starts, float(stream.time_base)),
        fps_claimed=float(rate) if rate else None,
        fps=packets.count / read if read else None,
        frames_claimed=stream.frames or None,
        frames=packets.count,
        keyframes=packets.keyframes,
        duration_claimed=claimed_duration,
        duration=duration,
        start_time=source.origin,
        sound=_sound(source.container),
        damage=tuple(damage),
        checked=min(checked, duration),
        counted=packets.complete,
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _duration(source: Source, packets: _Packets) -> float:
    """From the first picture to the end of the last; the last is as long as the one before where nothing says."""
    starts = sorted(packets.starts)[-2:]
    if not starts:
        return packets.untimed
    if packets.end > starts[-1]:
        return packets.end
    return starts[-1] + (starts[-1] - starts[0] if len(starts) == 2 else source.frame_seconds())


def _constancy(starts: list[float], tick: float) -> str | None:
    """``constant`` if all pictures are shown equally long, but for rounding to the container's clock."""
    if len(starts) < 3:
        return None
    steps = [b - a for a, b in pairwise(sorted(starts))]
    return "constant" if max(steps) - min(steps) <= max(2.001 * tick, 0.001) else "variable"


def _sound(container: av.container.InputContainer) -> Sound | None:
    for stream in container.streams.audio:
        context = stream.codec_context
        if context is not None:
            return Sound(context.name, context.channels, context.sample_rate)
        return Sound("unknown", 0, 0)
    return None


def _inspect_image(image: StillImage) -> ClipInfo:
    _, (width, height) = image.picture(0, None)
    stored = image.stored_size
    durations = image.durations() if image.count > 1 else []
    orientation = image.orientation
    return ClipInfo(
        path=image.path,
        kind="animation" if image.count > 1 else "still image",
        bytes=os.path.getsize(image.path),
        container=image.format,
        codec=image.format.lower(),
        profile=None,
        pixel_format=image.mode,
        bit_depth=image.bit_depth,
        coded_width=stored[0],
        coded_height=stored[1],
        width=width,
        height=height,
        # EXIF 2.32, tag 274: 5 to 8 are turned, 2, 4, 5 and 7 mirrored.
        rotation={3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}.get(orientation, 0),
        mirrored=orientation in (2, 4, 5, 7),
        rate=_constancy([sum(durations[:i]) for i in range(len(durations))], 0.001),
        fps=len(durations) / sum(durations) if durations else None,
        frames_claimed=image.count,
        frames=len(durations) or 1,
        keyframes=len(durations) or 1,
        duration=sum(durations),
        damage=tuple(image.notes),
        checked=sum(durations),
    )
