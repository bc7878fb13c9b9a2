"""Which packets can be left out of decoding because no picture that is wanted refers to theirs, by their headers.

H.264 (ITU-T H.264, 7.4.1): ``nal_ref_idc`` 0 means that no other picture refers to this one. HEVC (ITU-T H.265,
7.4.2.2): a picture refers only to its own temporal sub-layer and lower ones, and inside its own not to those whose
type says ``_N``. Other codecs say nothing of the kind, or change the decoder's state with each picture, as VP9 does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

# A picture that every other may refer to, and that refers to nothing above it.
NEEDED = 0
NAL_CODECS = ("h264", "hevc")


@dataclass(frozen=True)
class References:
    """How one stream's packets are read. ``length_bytes``: of a unit's length; 0 where start codes part the units."""

    codec: str
    length_bytes: int = 0

    @classmethod
    def of(cls, stream: av.VideoStream) -> References | None:
        """None where the codec's headers do not say what is referred to."""
        codec = stream.codec_context.codec.canonical_name
        if codec not in NAL_CODECS:
            return None
        setup = bytes(stream.codec_context.extradata or b"")
        # ISO/IEC 14496-15: both configuration records begin with version 1; start codes begin with 0.
        where = 4 if codec == "h264" else 21
        packed = len(setup) > where and setup[0] == 1
        return cls(codec, (setup[where] & 3) + 1 if packed else 0)

    def level(self, packet: av.Packet) -> int:
        """A picture can be left out where its level is above ``need`` of all pictures that are still wanted.

        Twice the temporal sub-layer, and one more where its own sub-layer does not refer to it; H.264 has 0 and 1.
        """
        levels = [level for head in self._heads(packet) if (level := self._of_unit(head)) is not None]
        return min(levels, default=NEEDED)

    @staticmethod
    def need(level: int) -> int:
        """The highest level that a picture of ``level`` may refer to."""
        return level & ~1

    def _of_unit(self, head: bytes) -> int | None:
        """None for units that hold no part of a picture."""
        if self.codec == "h264":
            return int(head[0] & 0x60 == 0) if 1 <= head[0] & 31 <= 5 else None
        kind = head[0] >> 1 & 63
        if kind > 31:
            return None
        # Types below 16 with an even number are those ending in _N; 16 to 23 are random access points.
        return 2 * max(0, (head[1] & 7) - 1) + int(kind < 16 and kind % 2 == 0)

    def _heads(self, packet: av.Packet) -> Iterator[bytes]:
        """The first two bytes of each unit."""
        if not self.length_bytes:
            data, at = bytes(packet), 0
            while (at := data.find(b"\0\0\1", at) + 3) >= 3 and at + 2 <= len(data):
                yield data[at : at + 2]
            return
        view, at, size = memoryview(packet), 0, self.length_bytes
        while at + size + 2 <= len(view):
            yield bytes(view[at + size : at + size + 2])
            at += size + int.from_bytes(view[at : at + size], "big")
