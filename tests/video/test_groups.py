"""Laws of decoding by groups of pictures: leaving out, seeking, lanes and damage change no byte of a frame."""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpt4video_cli.video import lanes
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.group import GroupReader, Unsure
from gpt4video_cli.video.references import References
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.seek import keyframes_at
from gpt4video_cli.video.source import Source
from tests.video.films import write_video

LAND = np.random.default_rng(4).integers(0, 256, (200, 400, 3), np.uint8)
COUNT = 50
X264 = "bframes=3:b-pyramid=normal:b-adapt=0:scenecut=0"
X265 = "log-level=none:keyint=17:min-keyint=17:scenecut=0:bframes=4:b-adapt=0"
VARYING = [100 * i + 40 * (i % 3) + 500 * (i // 11) for i in range(COUNT)]
FILMS: dict[str, dict[str, Any]] = {
    "pyramid.mp4": {"options": {"g": "17", "x264-params": X264}},
    "pyramid.mkv": {"options": {"g": "17", "x264-params": X264}},
    "pyramid.ts": {"options": {"g": "17", "x264-params": X264}},
    "open.mp4": {"options": {"g": "17", "x264-params": f"open-gop=1:{X264}"}},
    "open.ts": {"options": {"g": "17", "x264-params": f"open-gop=1:{X264}"}},
    "slices.mp4": {"options": {"g": "17", "x264-params": f"slices=3:{X264}"}},
    "fields.mkv": {"options": {"g": "17", "flags": "+ildct", "x264-params": f"tff=1:{X264}"}},
    "varying.mp4": {"options": {"g": "17", "x264-params": X264}, "ticks": VARYING, "time_base": Fraction(1, 1000)},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=1"}},
    "layers.mkv": {"codec": "libx265", "options": {"x265-params": f"{X265}:temporal-layers=3"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "17", "cpu-used": "8", "deadline": "realtime"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"bf": "2", "g": "17", "sc_threshold": "1000000000"}},
    "mpeg2.ts": {"codec": "mpeg2video", "fps": 25, "options": {"bf": "2", "g": "17", "sc_threshold": "1000000000"}},
}
# Whose headers say which pictures nothing refers to.
WITH_LEVELS = [name for name, made in FILMS.items() if made.get("codec", "libx264") in ("libx264", "libx265")]


def moving(number: int, width: int, height: int) -> np.ndarray:
    """A picture in which a wrong reference shows: noise that moves, under noise that changes."""
    picture = LAND[number : number + height, 3 * number : 3 * number + width] // 2
    other = np.random.default_rng(number).integers(0, 90, (height // 8, width // 8, 1), np.uint8)
    return picture + np.repeat(np.repeat(other, 8, 0), 8, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("groups")


def film(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else write_video(path, count=COUNT, picture=moving, **FILMS[name])


def planes(frame: av.VideoFrame) -> bytes:
    """The decoded bytes, before any conversion."""
    return frame.to_ndarray().tobytes()


def decoded(path: Path) -> tuple[list[float], list[bytes]]:
    """Every frame from the first to the last by time: what all else must agree with."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sorted((float(f.pts * stream.time_base), planes(f)) for f in container.decode(stream))
    return [seconds - frames[0][0] for seconds, _ in frames], [content for _, content in frames]


class Counted(Source):
    """A source that notes what it is asked for."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(str(path), **options)
        self.seeks, self.sent = 0, 0

    def seek(self, seconds: float) -> None:
        self.seeks += 1
        super().seek(seconds)

    def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        if hasattr(self, "sent") and packet is not None:
            self.sent += 1
        return super().decode(packet)


@pytest.mark.parametrize("name", FILMS)
def test_each_frame_alone_is_the_one_of_decoding_everything(folder: Path, name: str) -> None:
    path = film(folder, name)
    times, contents = decoded(path)
    assert len(times) == COUNT
    with Counted(path, threads=1) as source:
        for number in reversed(range(0, COUNT, 1 if name in ("open.mp4", "layers.mkv") else 3)):
            ((seconds, frame),) = GroupReader(source).frames_at([times[number] + 0.001])
            assert seconds == pytest.approx(times[number], abs=1e-6)
            assert planes(frame) == contents[number], number


@pytest.mark.parametrize("name", FILMS)
def test_one_pass_over_all_moments_gives_the_same_and_seeks_once_for_a_group(folder: Path, name: str) -> None:
    path = film(folder, name)
    times, contents = decoded(path)
    moments = sorted([*times, times[20], times[21] + 0.01, times[40] + 0.01])
    with Counted(path, threads=1) as source:
        found = [(seconds, planes(frame)) for seconds, frame in GroupReader(source).frames_at(moments)]
        # Three groups lie one behind the other: what is read on is not sought. Some containers land too far at first.
        assert source.seeks <= 3
        assert source.sent <= COUNT + 17
    for moment, (seconds, content) in zip(moments, found, strict=True):
        number = bisect_right(times, moment + 1e-6) - 1
        assert seconds == pytest.approx(times[number], abs=1e-6) and content == contents[number]


@pytest.mark.parametrize("name", WITH_LEVELS)
def test_pictures_that_nothing_refers_to_are_not_decoded(folder: Path, name: str) -> None:
    with Counted(film(folder, name), threads=1) as source:
        moment = 33 * (0.1 if name != "varying.mp4" else 0.15)
        ((_, _),) = GroupReader(source).frames_at([moment])
        key = source.key_before(source.ticks_at(moment)) if source.indexed else None
        assert 0 < source.sent <= 11, f"of up to 17 packets (keyframe at {key})"


def test_levels_say_the_same_in_packed_files_and_in_those_with_start_codes(folder: Path) -> None:
    found = []
    for name in ("pyramid.mp4", "pyramid.ts"):
        with av.open(str(film(folder, name))) as container:
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.size]
            references = References.of(stream)
            assert references is not None and bool(references.length_bytes) == name.endswith("mp4")
            found.append([references.level(packet) for packet in packets])
    assert found[0] == found[1] and found[0][0] == 0
    # I or P, the middle one of three B that the others refer to, and these two.
    assert 0.35 < sum(found[0]) / COUNT < 0.55
    with av.open(str(film(folder, "layers.mkv"))) as container:
        stream = container.streams.video[0]
        levels = {References.of(stream).level(packet) for packet in container.demux(stream) if packet.size}
    assert len(levels) >= 3


def test_a_picture_needs_only_levels_below_its_own() -> None:
    assert [References.need(level) for level in range(6)] == [0, 0, 2, 2, 4, 4]


class Kept:
    """A canvas of decoded bytes."""

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}

    def draw(self, number: int, frame: av.VideoFrame) -> None:
        self.contents[number] = planes(frame)

    def repeat(self, number: int) -> None:
        self.contents[number] = self.contents[number - 1]


@pytest.mark.parametrize("name", ["refresh.ts", "refresh.mkv"])
def test_keyframes_that_are_whole_only_later_mislead_nobody(folder: Path, name: str) -> None:
    # Columns of intra blocks wander over the picture; what the container calls a keyframe is where that begins.
    options = {"x264-params": "intra-refresh=1:keyint=15:bframes=0:scenecut=0"}
    path = write_video(folder / name, count=COUNT, picture=moving, options=options)
    times, contents = decoded(path)
    for numbers in (range(COUNT), [20], [31, 32]):
        with Source(str(path), threads=1) as source:
            kept = Kept()
            seen = lanes.draw_frames(source, [times[n] + 0.01 for n in numbers], "exact", math.inf, kept)
        assert seen.times == pytest.approx([times[n] for n in numbers], abs=1e-6)
        assert list(kept.contents.values()) == [contents[n] for n in numbers]


@pytest.mark.parametrize("mode", ["exact", "keyframe"])
@pytest.mark.parametrize("name", ["open.mp4", "varying.mp4", "layers.mkv", "vp9.webm"])
def test_lanes_side_by_side_give_what_one_gives(
    folder: Path, name: str, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plan = film(folder, name), SamplingPlan(frames=9, mode=mode)
    opened: list[int] = []
    whole = lanes._Work.in_a_lane_of_its_own

    def noted(work: Any, threads: int) -> int:
        opened.append(threads)
        return whole(work, threads)

    monkeypatch.setattr(lanes._Work, "in_a_lane_of_its_own", noted)
    monkeypatch.setattr(lanes, "_cores", lambda: 1)
    alone = read_clip(path, plan)
    assert opened == []
    monkeypatch.setattr(lanes, "_cores", lambda: 3)
    monkeypatch.setattr(lanes, "SECONDS_PER_PIXEL", 1.0)
    together = read_clip(path, plan)
    assert opened == [1, 1]
    assert np.array_equal(alone.frames, together.frames) and alone.receipt == together.receipt


def test_little_work_is_worth_no_second_file(folder: Path) -> None:
    with Source(str(film(folder, "open.mp4")), threads=1) as source:
        work = lanes._Work(source, [0.5, 2.5, 4.5], "exact", math.inf, None)  # type: ignore[arg-type]
        assert len(work.parts) == 3
        source.opened_in = 2 * work.seconds
        assert lanes._lanes_that_pay(source, work) == 1


def damaged(folder: Path, first: int, last: int) -> tuple[Path, Path]:
    """A whole clip, and one in which what is in packets ``first`` to ``last`` is nonsense."""
    path, other = film(folder, "pyramid.mp4"), folder / f"damaged{first}.mp4"
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    for packet in packets[first : last + 1]:
        for at in range(packet.pos + 40, packet.pos + packet.size, 3):
            content[at] ^= 0xFF
    other.write_bytes(content)
    return path, other


def test_damage_leaves_the_other_groups_as_they_are(folder: Path) -> None:
    path, other = damaged(folder, 18, 33)
    whole, left = (read_clip(p, SamplingPlan(frames=COUNT)) for p in (path, other))
    same = [bool(np.array_equal(a, b)) for a, b in zip(whole.frames, left.frames, strict=True)]
    assert all(same[:17]) and all(same[34:]) and not all(same[17:34])
    assert np.array_equal(whole.times[:17], left.times[:17])


def test_damage_is_never_taken_for_a_whole_frame(folder: Path) -> None:
    _, other = damaged(folder, 18, 33)
    with Source(str(other), threads=1) as source, pytest.raises(Unsure):
        list(GroupReader(source).frames_at([3.0]))
    assert source.decode_errors == 0, "what is decoded again is counted then"


def test_the_keyframe_before_a_damaged_one_is_shown_instead(folder: Path) -> None:
    path, other = film(folder, "vp9.webm"), folder / "damaged.webm"
    with av.open(str(path)) as container:
        key = [bytes(p) for p in container.demux(container.streams.video[0]) if p.size and p.is_keyframe][2]
    other.write_bytes(path.read_bytes().replace(key, bytes(len(key))))
    with Source(str(other), threads=1) as source:
        ((seconds, _),) = keyframes_at(source, [4.5])
        assert source.decode_errors
    assert seconds == pytest.approx(1.7)
