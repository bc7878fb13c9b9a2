"""The frame shown at each moment, whatever the codec, the container, its clock and its rotation."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.picture import Upright, to_rgb
from gpt4video_cli.video.sampling import SamplingPlan
from tests.video.films import HEIGHT, WIDTH, number_of, numbered, write_video

FORMATS = {
    "h264.mp4": {"codec": "libx264"},
    "h264.mkv": {"codec": "libx264"},
    "h264.ts": {"codec": "libx264", "options": {"g": "7"}},
    "h264.avi": {"codec": "libx264"},
    "h264.h264": {"codec": "libx264", "container": "h264"},
    "h264.flv": {"codec": "libx264", "options": {"g": "8"}},
    "fragmented.mp4": {
        "codec": "libx264",
        "options": {"g": "8"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "opengop.mp4": {"codec": "libx264", "options": {"g": "8", "x264-params": "open-gop=1:bframes=3:b-pyramid=normal"}},
    "intrarefresh.mp4": {"codec": "libx264", "options": {"x264-params": "intra-refresh=1:keyint=10:bframes=0"}},
    "tenbit.mp4": {"codec": "libx264", "pixels": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=9"}},
    "hevc10.mkv": {"codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "8", "cpu-used": "8", "deadline": "realtime"}},
    "live.webm": {"codec": "libvpx", "container_options": {"live": "1"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=8"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg2.ts": {"codec": "mpeg2video", "fps": 25, "options": {"bf": "2"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "fps": 25},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mjpeg.mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p", "container": "mjpeg", "fps": 25},
    "gif.gif": {"codec": "gif", "pixels": "rgb8"},
    "apng.png": {"codec": "apng", "pixels": "rgb24", "container": "apng"},
    "ffv1.nut": {"codec": "ffv1"},
    "odd.mp4": {"codec": "libx264", "pixels": "yuv444p", "size": (97, 65)},
    "odd.webm": {"codec": "libvpx-vp9", "size": (97, 65), "options": {"cpu-used": "8", "deadline": "realtime"}},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


def film(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else write_video(path, **FORMATS[name])


def decoded_by_time(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Every frame from the first to the last, with its time: what seeking must agree with."""
    with av.open(str(path), format="mjpeg" if path.suffix == ".mjpeg" else None) as container:
        stream = container.streams.video[0]
        times, pictures = [], []
        for packet in container.demux(stream):
            for frame in packet.decode():
                times.append(None if frame.pts is None else float(frame.pts * stream.time_base))
                pictures.append(to_rgb(frame, (frame.width, frame.height), Upright.of(frame)))
        if times[0] is None or path.name == "h264.avi":  # no times at all, or guesses that are two frames off
            times = [i / float(stream.guessed_rate) for i in range(len(pictures))]
        return [t - times[0] for t in times], pictures


@pytest.mark.parametrize("name", FORMATS)
def test_exact_sampling_equals_decoding_everything(films: Path, name: str) -> None:
    path = film(films, name)
    times, pictures = decoded_by_time(path)
    assert [number_of(p) for p in pictures] == list(range(30))
    for plan in (
        SamplingPlan(frames=7),
        SamplingPlan(at=(0, 0.05, times[9], times[9] + 0.01, times[28])),
        SamplingPlan(frames=2, start=times[20]),
    ):
        clip = read_clip(path, plan)
        expected = [bisect_right(times, t + 1e-6) - 1 for t in clip.receipt.requested]
        assert [number_of(f) for f in clip.frames] == expected
        for frame, time, index in zip(clip.frames, clip.times, expected, strict=True):
            assert np.array_equal(frame, pictures[index])
            assert time == pytest.approx(times[index], abs=1e-6)
    assert clip.receipt.duration == pytest.approx(times[-1] + (times[-1] - times[-2]), abs=0.002)
    assert (clip.receipt.width, clip.receipt.height) == pictures[0].shape[1::-1]


# Read from the start in any mode, or without whole keyframes.
NOT_BY_KEYFRAME = {"gif.gif", "apng.png", "h264.h264", "mjpeg.mjpeg", "h264.avi", "intrarefresh.mp4"}


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in NOT_BY_KEYFRAME])
def test_keyframe_sampling_shows_the_last_keyframe_before_each_moment(films: Path, name: str) -> None:
    path = film(films, name)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        start = min(p.pts for p in packets)
        keys = sorted(float((p.pts - start) * stream.time_base) for p in packets if p.is_keyframe)
    times, _ = decoded_by_time(path)
    clip = read_clip(path, SamplingPlan(frames=9, mode="keyframe"))
    expected = [keys[bisect_right(keys, t + 1e-6) - 1] for t in clip.receipt.requested]
    assert clip.times == pytest.approx(expected, abs=1e-6)
    assert [number_of(f) for f in clip.frames] == [bisect_right(times, t + 1e-3) - 1 for t in expected]


def test_variable_frame_rate_is_sampled_by_time_not_by_number(tmp_path: Path) -> None:
    # 20 frames in the first second, then 10 that last a second each, with B-frames.
    ticks = [i * 50 for i in range(20)] + [1000 + i * 1000 for i in range(10)]
    path = write_video(tmp_path / "vfr.mp4", ticks=ticks, time_base=Fraction(1, 1000), options={"bf": "3"})
    clip = read_clip(path, SamplingPlan(frames=11))
    assert clip.receipt.duration == pytest.approx(11.0, abs=0.05)
    assert [number_of(f) for f in clip.frames] == [10, *range(20, 30)]
    # A moment long after the last frame before it: the one that is still shown, also when its neighbours were skipped.
    assert [number_of(f) for f in read_clip(path, SamplingPlan(at=(0.96, 8.9, 10.9))).frames] == [19, 27, 29]


def test_times_count_from_the_first_picture_when_the_clock_starts_elsewhere(tmp_path: Path) -> None:
    for name, first in (("late.mkv", 7000), ("late.ts", 7000), ("negative.mkv", -1300), ("negative.ts", -1300)):
        ticks = [first + 100 * i for i in range(30)]
        path = write_video(
            tmp_path / name,
            codec="mpeg4",
            ticks=ticks,
            time_base=Fraction(1, 1000),
            container_options={"avoid_negative_ts": "disabled"},
        )
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packet = next(container.demux(stream))
            assert packet.pts is not None and (packet.pts < 0) == (first < 0)
        clip = read_clip(path, SamplingPlan(frames=5))
        assert clip.receipt.duration == pytest.approx(3.0, abs=0.04)
        assert [number_of(f) for f in clip.frames] == [3, 9, 15, 21, 27]


def test_an_edit_list_cuts_the_start(tmp_path: Path) -> None:
    # The first second has negative times: the mp4 muxer hides it behind an edit list.
    ticks = [100 * i - 1000 for i in range(30)]
    path = write_video(
        tmp_path / "edited.mp4",
        ticks=ticks,
        time_base=Fraction(1, 1000),
        options={"bf": "0"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    clip = read_clip(path, SamplingPlan(at=(0, 1.95)))
    assert [number_of(f) for f in clip.frames] == [10, 29]
    assert clip.receipt.duration == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_phone_clips_come_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    upright = numbered(11)

    def stored(number: int, width: int, height: int) -> np.ndarray:
        # What a player shows is the stored picture, turned counterclockwise and then mirrored; so store the opposite.
        return np.ascontiguousarray(np.rot90(upright[:, ::-1] if mirrored else upright, -degrees // 90))

    size = (WIDTH, HEIGHT) if degrees % 180 == 0 else (HEIGHT, WIDTH)
    path = write_video(tmp_path / "phone.mp4", count=3, size=size, rotation=(degrees, mirrored), picture=stored)
    for min_side in (None, 32):
        clip = read_clip(path, SamplingPlan(frames=2), min_side=min_side)
        assert clip.frames.shape[1:3] == ((HEIGHT, WIDTH) if min_side is None else (32, 48))
        assert number_of(clip.frames[0]) == 11
        assert (clip.receipt.width, clip.receipt.height) == (WIDTH, HEIGHT)


def test_wide_pixels_are_shown_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "dvd.mp4", count=2, pixel_aspect=Fraction(4, 3))
    clip = read_clip(path, SamplingPlan(frames=1))
    assert clip.frames.shape == (1, 64, 128, 3)
    assert number_of(clip.frames[0]) == 1


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((96, 64), 32, (32, 48)),
        ((64, 96), 32, (48, 32)),
        ((96, 64), 64, (64, 96)),
        ((96, 64), 500, (64, 96)),
        ((98, 66), 40, (40, 59)),
    ],
)
def test_frames_shrink_to_the_short_side_and_never_grow(tmp_path, size, min_side, expected) -> None:
    path = write_video(tmp_path / "a.mp4", count=2, size=size)
    clip = read_clip(path, SamplingPlan(frames=1), min_side=min_side)
    assert clip.frames.shape[1:3] == expected
    assert (clip.receipt.width, clip.receipt.height) == size


def test_shrinking_does_not_alias(tmp_path: Path) -> None:
    def stripes(number: int, width: int, height: int) -> np.ndarray:
        return np.repeat(np.tile(np.arange(width) % 2 * 255, (height, 1)).astype(np.uint8)[..., None], 3, axis=2)

    path = write_video(tmp_path / "a.mkv", codec="ffv1", count=1, size=(512, 512), pixels="yuv444p", picture=stripes)
    frame = read_clip(path, SamplingPlan(frames=1), min_side=60).frames[0].astype(int)
    assert abs(frame[5:-5, 5:-5] - 127).max() < 20


def test_one_frame(tmp_path: Path) -> None:
    clip = read_clip(write_video(tmp_path / "one.mp4", count=1), SamplingPlan(frames=4))
    assert clip.frames.shape == (4, HEIGHT, WIDTH, 3) and set(clip.times) == {0.0}
    assert "1 different frame for 4 moments" in clip.receipt.line()


def test_8k(tmp_path: Path) -> None:
    path = write_video(tmp_path / "8k.mp4", count=2, size=(7680, 4320), options={"preset": "ultrafast"})
    clip = read_clip(path, SamplingPlan(frames=2), min_side=224)
    assert clip.frames.shape == (2, 224, 398, 3)
    assert [number_of(f) for f in clip.frames] == [0, 1]


def test_sound_that_lasts_longer_does_not_stretch_the_clip(tmp_path: Path) -> None:
    path = write_video(tmp_path / "sound.mkv", count=5, sound=True)
    clip = read_clip(path, SamplingPlan(frames=5))
    assert clip.receipt.duration == pytest.approx(0.5, abs=0.01)
    assert [number_of(f) for f in clip.frames] == [0, 1, 2, 3, 4]
    assert clip.receipt.notes == ()


def test_range_beyond_the_end_is_cut_and_before_it_is_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    clip = read_clip(path, SamplingPlan(frames=2, start=1, end=99))
    assert clip.receipt.requested == pytest.approx((1.5, 2.5))
    assert (clip.receipt.start, clip.receipt.end) == pytest.approx((1, 3))
    assert clip.receipt.largest_gap == pytest.approx(1.0)
    for plan in (SamplingPlan(start=3.5), SamplingPlan(at=(1, 3.5))):
        with pytest.raises(ClipError, match=r"3\.5 s.*3\.000 s long"):
            read_clip(path, plan)


def test_the_receipt_names_the_content_not_the_name(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.mp4")
    second = tmp_path / "b: 100%d.mp4"
    second.write_bytes(first.read_bytes())
    one, two = (read_clip(p, SamplingPlan(frames=3)).receipt for p in (first, second))
    assert one.sha256 == two.sha256 and len(one.sha256) == 64
    assert one.path != two.path


def test_out_of_time_goes_on_with_keyframes_and_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", options={"g": "10"})
    clip = read_clip(path, SamplingPlan(frames=3), budget=0)
    assert [number_of(f) for f in clip.frames] == [0, 10, 20]
    assert "exact decoding took too long: 3 of 3" in clip.receipt.line()


def test_many_files_leave_no_open_descriptors(tmp_path: Path) -> None:
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("needs /proc")
    path = write_video(tmp_path / "a.mp4", count=3)
    read_clip(path, SamplingPlan(frames=2))
    before = len(list(fds.iterdir()))
    for _ in range(20):
        read_clip(path, SamplingPlan(frames=2))
    assert len(list(fds.iterdir())) <= before
