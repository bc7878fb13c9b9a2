"""Which moments of a clip are looked at, and the receipt of what was seen.

All times are seconds of presentation time, counted from the moment the clip's first picture is shown. Neither frame
numbers nor the frame count that a header claims are used: both are wrong in variable-frame-rate and damaged files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, cast

from gpt4video_cli.errors import ClipError, UsageError

Mode = Literal["exact", "keyframe"]

DEFAULT_FRAMES = 8
# A two-hour film at --fps 1 would be 7200 pictures: without --max-frames the rate is lowered to this many.
DEFAULT_MAX_FRAMES = 128
MODES: tuple[Mode, ...] = ("exact", "keyframe")
HURRIED = "exact decoding took too long"
"""Begins the note of a receipt whose pictures are not all those that were asked for: there was no time for them."""


@dataclass(frozen=True)
class SamplingPlan:
    """How to choose moments. Exactly one of these: ``frames``, ``fps`` (with ``max_frames``), ``at``.

    ``frames``: that many moments, at the middles of as many equal parts of the range (the default, 8).
    ``fps``: moments per second, at the middles of parts of 1/fps s; more than ``max_frames`` become that many middles.
    ``start``, ``end``: the range, in seconds from the start of the clip. ``at``: explicit seconds, kept in time order.
    ``mode``: ``exact`` shows the frame visible at each moment, ``keyframe`` the last keyframe at or before it (fast).
    """

    frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    at: tuple[float, ...] = ()
    mode: Mode = "exact"

    def __post_init__(self) -> None:
        # dict.fromkeys: a moment named twice is one picture.
        object.__setattr__(self, "at", tuple(dict.fromkeys(sorted(float(t) for t in self.at))))
        self._refuse_contradictions()
        for option, count in (("--frames", self.frames), ("--max-frames", self.max_frames)):
            if count is not None and (isinstance(count, bool) or int(count) != count or count < 1):
                raise UsageError(f"{option} is {count}; it must be a whole number of at least 1")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"--fps is {self.fps}; it must be a number above 0")
        for option, seconds in (("--start", self.start), ("--end", self.end), *(("--at", t) for t in self.at)):
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise UsageError(f"{option} is {seconds}; it must be a number of seconds, 0 or more")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UsageError(f"--end ({self.end:g} s) is not after --start ({self.start or 0.0:g} s)")
        if self.mode not in MODES:
            raise UsageError(f"--sampling is {self.mode!r}; it must be one of {', '.join(MODES)}")

    def _refuse_contradictions(self) -> None:
        given = {
            "--frames": self.frames,
            "--fps": self.fps,
            "--max-frames": self.max_frames,
            "--start": self.start,
            "--end": self.end,
        }
        if self.at:
            for option, value in given.items():
                if value is not None:
                    raise UsageError(f"--at and {option} contradict each other; give one of them")
        if self.frames is not None and self.fps is not None:
            raise UsageError("--frames and --fps contradict each other; give one of them")
        if self.max_frames is not None and self.fps is None:
            raise UsageError("--max-frames limits --fps and means nothing without it; give --fps, or --frames alone")

    def range_within(self, duration: float, path: str = "clip") -> tuple[float, float]:
        """The chosen range in seconds, cut to the clip. Raises ``ClipError`` where the clip has nothing there."""
        start = self.start or 0.0
        if start > 0 and start >= duration:
            raise ClipError(path, f"--start is {start:g} s, but the clip is {duration:.3f} s long")
        late = [t for t in self.at if t > duration]
        if late:
            raise ClipError(path, f"--at is {late[0]:g} s, but the clip is {duration:.3f} s long")
        return start, duration if self.end is None else min(self.end, duration)

    def times(self, duration: float, path: str = "clip") -> tuple[float, ...]:
        """The moments to look at in a clip of ``duration`` seconds, ascending, inside the chosen range."""
        start, end = self.range_within(duration, path)
        if self.at:
            return self.at
        if self.fps is None:
            return midpoints(self.frames or DEFAULT_FRAMES, start, end)
        limit = self.max_frames or DEFAULT_MAX_FRAMES
        # Parts of 1/fps s whose middle lies inside; 1e-9 keeps 3 s at 1 fps at three parts in floating point.
        parts = max(1, math.ceil((end - start) * self.fps - 0.5 - 1e-9))
        if parts > limit:
            return midpoints(limit, start, end)
        if parts == 1:
            return midpoints(1, start, end)
        return tuple(start + (i + 0.5) / self.fps for i in range(parts))

    def as_dict(self) -> dict[str, Any]:
        """JSON form; ``SamplingPlan.from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingPlan:
        """Read ``as_dict()`` back."""
        fields = dict(values)
        fields["at"] = tuple(fields.get("at") or ())
        return cls(**fields)


def midpoints(parts: int, start: float, end: float) -> tuple[float, ...]:
    """The middles of ``parts`` equal parts of [start, end], in seconds."""
    step = (end - start) / parts
    return tuple(start + (i + 0.5) * step for i in range(parts))


def largest_gap(seen: Sequence[float], start: float, end: float) -> float:
    """The longest stretch of [start, end] without a seen moment, its two ends included, in seconds."""
    marks = [start, *sorted(min(max(t, start), end) for t in seen), end]
    return max(b - a for a, b in pairwise(marks))


@dataclass(frozen=True)
class SamplingReceipt:
    """What was seen of a clip. Times in seconds, sizes in pixels as displayed (after rotation).

    ``sha256`` is of the file's whole content; for files over 1 GiB it starts with ``sampled:`` and covers the size and
    pieces spread over the file (see ``video/fingerprint.py``). ``seen`` holds the presentation time of each picture.
    """

    path: str
    sha256: str
    duration: float
    mode: Mode
    requested: tuple[float, ...]
    seen: tuple[float, ...]
    largest_gap: float
    width: int
    height: int
    start: float = 0.0
    end: float = 0.0
    still: bool = False
    notes: tuple[str, ...] = ()

    @property
    def hurried(self) -> bool:
        """Whether other pictures would have been seen with more time."""
        return any(note.startswith(HURRIED) for note in self.notes)

    def as_dict(self) -> dict[str, Any]:
        """JSON form; ``SamplingReceipt.from_dict`` reads it back."""
        return {**asdict(self), "requested": list(self.requested), "seen": list(self.seen), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingReceipt:
        """Read ``as_dict()`` back."""
        fields = dict(values)
        for name in ("requested", "seen", "notes"):
            fields[name] = tuple(cast(Sequence[Any], fields.get(name) or ()))
        return cls(**fields)

    def line(self) -> str:
        """One line for a person."""
        if self.still:
            parts = [f"{self.path}: a still image", f"{self.width}x{self.height}"]
        else:
            count = len(self.seen)
            frames = f"{count} frame{'s' if count != 1 else ''}"
            times = " ".join(f"{t:.2f}" for t in self.seen)
            asked_range = "" if (self.start, self.end) == (0.0, self.duration) else f" in {self.start:g}-{self.end:g} s"
            parts = [
                f"{self.path}: {frames} of {self.duration:.2f} s{asked_range} at {times} s ({self.mode})",
                f"largest gap {self.largest_gap:.2f} s",
                f"{self.width}x{self.height}",
            ]
        return "; ".join([*parts, *self.notes])
