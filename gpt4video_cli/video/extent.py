"""How long a clip's pictures last, by its packets: headers are wrong in cut-off, live and hand-made files."""

from __future__ import annotations

from dataclasses import dataclass

from gpt4video_cli.video.source import READ_ERRORS, Source


@dataclass(frozen=True)
class Extent:
    """``duration`` in seconds, first picture to the end of the last one; ``cut_off``: the header claims more."""

    duration: float
    claimed: float | None
    cut_off: bool


def measure_extent(source: Source) -> Extent:
    """Read the packets after the last keyframe; all packets where that does not lead to the end."""
    claimed, of_pictures = source.claimed_duration()
    end: float | None = None
    reached = False
    if claimed is not None and not source.linear:
        try:
            # One second back: MPEG-TS lands on any packet, and B-frames come after the frame that is shown last.
            source.seek(max(0.0, claimed - 1.0))
            end = _last_end(source)
            reached = end is not None
        except READ_ERRORS:
            end = None
    if end is None:
        source.seek(0.0)
        end = _last_end(source)
    duration = end if end is not None and end > 0 else (claimed or source.frame_seconds(source.first))
    # A header that counts the sound too may rightly say more.
    believable = of_pictures or not reached
    return Extent(duration, claimed, believable and is_short(duration, claimed, source.frame_seconds()))


def is_short(duration: float, claimed: float | None, frame_seconds: float) -> bool:
    """Whether a part is missing: one frame or 2 % less than claimed is rounding."""
    return claimed is not None and duration < 0.98 * claimed - frame_seconds


def _last_end(source: Source) -> float | None:
    """The end of the picture shown last among the packets from here on, in seconds from the first picture."""
    shown: list[tuple[float, float]] = []
    untimed = 0.0
    while (packet := source.next_packet()) is not None:
        if packet.is_discard:
            continue
        span = source.packet_span(packet)
        if span is None:
            untimed += source.frame_seconds(packet)
            continue
        shown.append(span)
        # Only the last few matter; packets come in order of decoding, up to 16 from their order of display.
        if len(shown) > 256:
            shown = sorted(shown)[-32:]
    if not shown:
        return untimed or None
    start, end = max(shown)
    if end <= start:
        # The container does not say how long the last picture is shown: as long as the one before, like players do.
        previous = max((s for s, _ in shown if s < start), default=None)
        end = start + (start - previous if previous is not None else source.frame_seconds())
    return end - source.origin
