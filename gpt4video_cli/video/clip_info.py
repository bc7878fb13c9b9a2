"""What ``gpt4video probe`` says about a file, for programs (``as_dict``) and for people (``lines``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Sound:
    """The first sound stream. ``rate`` in samples per second."""

    codec: str
    channels: int
    rate: int


@dataclass(frozen=True)
class ClipInfo:
    """What is in a file. Seconds, pixels, frames per second; None is "not known" or "the header does not say".

    ``*_claimed`` is what the header says; the same name without it is what the packets say. ``width`` and ``height``
    are as displayed, after ``rotation`` (degrees clockwise) and mirroring, with square pixels. ``rate`` is ``constant``
    or ``variable``. ``damage`` lists what is wrong; ``checked`` is how many seconds were decoded in search of it, and
    ``counted`` is false where the file was too long to count its frames in time.
    """

    path: str
    kind: str
    bytes: int
    container: str
    codec: str
    profile: str | None
    pixel_format: str
    bit_depth: int
    coded_width: int
    coded_height: int
    width: int
    height: int
    rotation: int = 0
    mirrored: bool = False
    pixel_aspect: float = 1.0
    rate: str | None = None
    fps_claimed: float | None = None
    fps: float | None = None
    frames_claimed: int | None = None
    frames: int | None = None
    keyframes: int | None = None
    duration_claimed: float | None = None
    duration: float | None = None
    start_time: float = 0.0
    sound: Sound | None = None
    damage: tuple[str, ...] = ()
    checked: float = 0.0
    counted: bool = True

    def as_dict(self) -> dict[str, Any]:
        """JSON form; ``ClipInfo.from_dict`` reads it back."""
        return {**asdict(self), "damage": list(self.damage)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClipInfo:
        """Read ``as_dict()`` back."""
        fields = dict(values)
        fields["damage"] = tuple(fields["damage"])
        fields["sound"] = None if fields["sound"] is None else Sound(**fields["sound"])
        return cls(**fields)

    def lines(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a person."""
        codec = self.codec + (f" ({self.profile})" if self.profile else "")
        rows = [
            ("file", f"{self.path}, {self.bytes:,} bytes"),
            ("container", f"{self.container}, {self.kind}"),
            ("picture", f"{codec}, {self.pixel_format}, {self.bit_depth} bits"),
            ("size", self._size()),
        ]
        if self.kind != "still image":
            at_least = "" if self.counted else "at least "
            fps = "unknown" if self.fps is None else f"{self.fps:.3f}".rstrip("0").rstrip(".") + " frames/s"
            rows += [
                ("rate", f"{fps}, {self.rate or 'constant or variable is not known'}"),
                (
                    "frames",
                    f"{at_least}{self.frames} ({_claim(self.frames_claimed)}), keyframes: {at_least}{self.keyframes}",
                ),
                ("duration", f"{self.duration:.3f} s ({_claim(self.duration_claimed, ' s')})"),
                ("sound", self._sound()),
            ]
            if self.start_time:
                rows.append(("first frame", f"at {self.start_time:.3f} s of the file's clock"))
        checked = "" if self.kind == "still image" else f" (first {self.checked:.1f} s decoded)"
        if self.kind != "still image" and self.duration is not None and self.checked >= self.duration - 0.5:
            checked = " (all of it decoded)"
        rows.append(("damage", ("; ".join(self.damage) or "none found") + checked))
        return rows

    def _size(self) -> str:
        stored, shown = f"{self.coded_width}x{self.coded_height}", f"{self.width}x{self.height}"
        turned = [f"turned {self.rotation} degrees clockwise"] if self.rotation else []
        turned += ["mirrored"] if self.mirrored else []
        turned += [f"pixels {self.pixel_aspect:.3f} times as wide as high"] if self.pixel_aspect != 1 else []
        if stored == shown and not turned:
            return shown
        return f"{shown} shown, {stored} stored" + (f" ({', '.join(turned)})" if turned else "")

    def _sound(self) -> str:
        if self.sound is None:
            return "none"
        channels = f"{self.sound.channels} channel{'s' if self.sound.channels != 1 else ''}"
        return f"{self.sound.codec}, {channels}, {self.sound.rate} Hz"


def _claim(value: float | None, unit: str = "") -> str:
    if value is None:
        return "the header does not say"
    return f"header: {value:.3f}{unit}" if isinstance(value, float) else f"header: {value}{unit}"
