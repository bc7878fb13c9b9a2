"""Every way in which a file can be wrong gives one line with its name and the reason, soon, through the child."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import ClipError, ExitCode
from gpt4video_cli.video.decode import FrameReader
from gpt4video_cli.video.probe import probe_clip
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.sniff import top_level_boxes
from tests.video.films import number_of, write_sound, write_video


def cut(path: Path, part: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def cut_at(path: Path, mark: bytes, behind: int) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: content.index(mark) + behind])
    return path


def scrambled(path: Path) -> Path:
    """The same file with random bytes for pictures; its index is whole."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    end = content.rindex(b"moov") - 4
    content[start:end] = np.random.default_rng(0).integers(0, 256, end - start, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


def text(path: Path, content: str = "Dear diary,\nnothing moved today.\n" * 200) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing.mp4": (lambda p: p, "no such file"),
    "folder.mp4": (folder, "is a folder"),
    "empty.mp4": (lambda p: raw(p, b""), "is empty"),
    "text.mp4": (text, "is text, not a video"),
    "umlauts.mp4": (lambda p: text(p, "äöü " * 2000), "is text, not a video"),
    "playlist.mp4": (lambda p: text(p, "#EXTM3U\n#EXTINF:9,\n/etc/passwd\n"), "is text, not a video"),
    "concat.mp4": (lambda p: text(p, "ffconcat version 1.0\nfile /etc/passwd\n"), "is text, not a video"),
    "noise.mp4": (
        lambda p: raw(p, np.random.default_rng(1).integers(0, 256, 50_000, dtype=np.uint8).tobytes()),
        "not a video in a known format",
    ),
    "zeros.mkv": (lambda p: raw(p, bytes(50_000)), "not a video in a known format"),
    "paper.mp4": (lambda p: raw(p, b"%PDF-1.7\n" + bytes(9000)), "is a PDF"),
    "archive.mp4": (lambda p: raw(p, b"PK\x03\x04" + bytes(9000)), "is a zip archive"),
    "photo.heic": (lambda p: raw(p, b"\0\0\0\x18ftypheic" + bytes(900)), "HEIC photo"),
    "noindex.mp4": (lambda p: cut(write_video(p), 0.5), "moov"),
    "halfindex.mp4": (lambda p: cut(write_video(p, container_options={"movflags": "faststart"}), 0.12), "moov"),
    "nopictures.mp4": (
        lambda p: cut_at(write_video(p, container_options={"movflags": "faststart"}), b"mdat", 10),
        "before the first picture",
    ),
    "header.avi": (lambda p: cut(write_video(p, codec="mpeg4"), 0.3), "cut-off or damaged AVI"),
    "scrambled.mp4": (lambda p: scrambled(write_video(p)), "no picture could be decoded"),
    "tiny.mkv": (lambda p: cut(write_video(p), 0.02), "cut-off or damaged Matroska"),
    "sound.mp4": (write_sound, "holds only sound .aac., no pictures"),
    "sound.mkv": (write_sound, "holds only sound .aac., no pictures"),
    "pipe.mp4": (pipe, "is a pipe"),
    "loop.mp4": (loop, "cannot be opened"),
    "nul\0.mp4": (lambda p: p, "cannot be opened"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_their_name_and_the_reason_at_once(tmp_path: Path, reader: FrameReader, name: str) -> None:
    make, reason = BAD[name]
    path = make(tmp_path / name)
    for look in (lambda: reader.read(path, SamplingPlan()), lambda: probe_clip(path, reader=reader)):
        begin = time.monotonic()
        with pytest.raises(ClipError, match=reason) as caught:
            look()
        assert time.monotonic() - begin < 5
        assert caught.value.exit_code is ExitCode.INPUT
        assert caught.value.path == str(path) and str(caught.value).startswith(str(path))
        assert "\n" not in caught.value.line()
    # The child is still there and answers.
    assert reader.read(write_video(tmp_path / "good.mp4", count=2), SamplingPlan(frames=1)).frames.shape[0] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, reader: FrameReader) -> None:
    path = write_video(tmp_path / "a.mp4", count=2)
    path.chmod(0)
    with pytest.raises(ClipError, match="cannot be opened"):
        reader.read(path, SamplingPlan())


@pytest.mark.parametrize("plan", [SamplingPlan(start=3), SamplingPlan(start=50, end=60), SamplingPlan(at=(0.5, 3.2))])
def test_a_range_behind_the_end(tmp_path: Path, reader: FrameReader, plan: SamplingPlan) -> None:
    with pytest.raises(ClipError, match=r"but the clip is 3\.000 s long"):
        reader.read(write_video(tmp_path / "a.mp4"), plan)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.ts", "cut.avi"])
def test_what_is_left_of_a_cut_off_file_is_seen_and_said(tmp_path: Path, reader: FrameReader, name: str) -> None:
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = cut(write_video(tmp_path / name, codec="mpeg4", size=(384, 256), container_options=options), 0.6)
    clip = reader.read(path, SamplingPlan(frames=4))
    info = probe_clip(path, reader=reader)
    assert 0.8 < clip.receipt.duration < 2.7
    assert clip.receipt.duration == pytest.approx(info.duration, abs=0.11)
    numbers = [number_of(f) for f in clip.frames]
    assert numbers == sorted(set(numbers)), "each quarter of what is left shows its own frame"
    if name != "cut.ts":  # a transport stream has no header that could claim more
        assert "the file is cut off" in clip.receipt.line()
        assert info.damage and "cut off" in info.damage[0]


def test_damage_in_the_middle_is_survived_and_found(tmp_path: Path, reader: FrameReader) -> None:
    path = write_video(tmp_path / "a.mp4", count=100, options={"g": "5"})
    assert probe_clip(path, reader=reader).damage == ()
    content = bytearray(path.read_bytes())
    start, end = content.index(b"mdat"), content.rindex(b"moov")
    for at in range(start + (end - start) // 3, start + (end - start) * 2 // 3, 50):
        content[at] ^= 0xFF
    path.write_bytes(content)
    assert any("decoding" in line for line in probe_clip(path, reader=reader).damage)
    numbers = [number_of(f) for f in reader.read(path, SamplingPlan(frames=15)).frames]
    assert numbers[0] == 3 and numbers[-1] == 96


def test_names_are_data(tmp_path: Path, reader: FrameReader) -> None:
    good = write_video(tmp_path / "good.mp4", count=2)
    names = ["http:x.mp4", "-i.mp4", "100%d.mp4", "a\nb\x1b[31m.mp4", "concat:a|b.mp4", "ü 視頻.mp4", "a?b#c.mp4"]
    for name in names:
        shutil.copy(good, tmp_path / name)
        clip = reader.read(tmp_path / name, SamplingPlan(frames=1))
        assert clip.receipt.path == str(tmp_path / name)
        with pytest.raises(ClipError) as caught:
            reader.read(tmp_path / ("no" + name), SamplingPlan())
        assert str(caught.value).startswith(str(tmp_path / ("no" + name)))
    not_unicode = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    shutil.copy(good, not_unicode)
    assert reader.read(not_unicode, SamplingPlan(frames=1)).receipt.path == not_unicode


def test_boxes_of_a_whole_and_a_cut_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    boxes, whole = top_level_boxes(str(path))
    assert whole and {b"ftyp", b"mdat", b"moov"} <= set(boxes)
    boxes, whole = top_level_boxes(str(cut(path, 0.5)))
    assert not whole and b"moov" not in boxes


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.gif", "a.webm"])
def test_whatever_is_cut_or_changed_gives_frames_or_a_reason(tmp_path: Path, reader: FrameReader, name: str) -> None:
    codec = {"a.gif": "gif", "a.webm": "libvpx"}.get(name, "mpeg4")
    path = write_video(tmp_path / name, codec=codec, pixels="rgb8" if codec == "gif" else "yuv420p")
    whole = path.read_bytes()
    random = np.random.default_rng(3)
    for _ in range(15):
        content = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.4 else whole)
        for at in random.integers(0, len(content), random.integers(0, 20)):
            content[at] = random.integers(0, 256)
        path.write_bytes(content)
        for look in (
            lambda: len(reader.read(path, SamplingPlan(frames=3)).frames),
            lambda: probe_clip(path, reader=reader),
        ):
            try:
                assert look()
            except ClipError as error:
                # Refused for a reason that we know, not because something unforeseen was raised, crashed or hung.
                assert "cannot be decoded (" not in error.reason
                assert "crashed" not in error.reason and "did not end" not in error.reason
