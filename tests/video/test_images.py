"""Stills are clips of one frame; animations are clips."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan
from tests.video.films import HEIGHT, WIDTH, number_of, numbered

LOSSLESS = {"png", "bmp", "tiff", "gif"}


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_still_is_a_clip_of_one_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(numbered(37)).save(path)
    for plan in (SamplingPlan(), SamplingPlan(frames=1, mode="keyframe"), SamplingPlan(at=(0,)), SamplingPlan(fps=3)):
        clip = read_clip(path, plan)
        assert clip.frames.shape == (1, HEIGHT, WIDTH, 3) and list(clip.times) == [0.0]
        assert number_of(clip.frames[0]) == 37
    if kind in LOSSLESS:
        assert np.array_equal(clip.frames[0], numbered(37))
    assert clip.receipt.still and "a still image; 96x64" in clip.receipt.line()
    assert clip.receipt.largest_gap == 0


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_come_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    # What has to be done to the stored picture, by EXIF 2.32, tag 274; here its opposite is done to the upright one.
    undo = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.ascontiguousarray(undo[orientation](numbered(37)))).save(path, exif=exif)
    clip = read_clip(path, SamplingPlan(), min_side=32)
    assert clip.frames.shape == (1, 32, 48, 3)
    assert number_of(clip.frames[0]) == 37
    assert (clip.receipt.width, clip.receipt.height) == (WIDTH, HEIGHT)


def test_a_transparent_image_stands_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:4, :, 3], rgba[4:, :, :] = 0, (200, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    frame = read_clip(tmp_path / "a.png", SamplingPlan()).frames[0]
    assert frame[0, 0].tolist() == [255, 255, 255]
    assert frame[7, 0] == pytest.approx([227, 127, 127], abs=1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(numbered(37)[..., 0])
    if mode == "I;16":
        image = Image.fromarray(numbered(37)[..., 0].astype(np.uint16) * 257)
    else:
        image = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    frame = read_clip(path, SamplingPlan()).frames[0]
    assert number_of(frame) == 37
    if mode != "1":
        assert np.abs(frame.astype(int) - numbered(37)).max() <= 2


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
@pytest.mark.parametrize("mode", ["exact", "keyframe"])
def test_an_animation_is_a_clip_with_its_own_times(tmp_path: Path, kind: str, mode: str) -> None:
    pictures = [Image.fromarray(numbered(i + 1)) for i in range(4)]
    options = {"lossless": True} if kind == "webp" else {}
    path = tmp_path / f"a.{kind}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 100, 700, 100], **options)
    clip = read_clip(path, SamplingPlan(frames=5, mode=mode))
    assert clip.receipt.duration == pytest.approx(1.0, abs=0.01)
    assert [number_of(f) for f in clip.frames] == [2, 3, 3, 3, 4]
    assert clip.times == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.9])
    assert [number_of(f) for f in read_clip(path, SamplingPlan(at=(0, 0.95))).frames] == [1, 4]


def test_a_still_has_no_later_moments(tmp_path: Path) -> None:
    Image.fromarray(numbered(1)).save(tmp_path / "a.png")
    for plan in (SamplingPlan(start=2), SamplingPlan(at=(0, 2))):
        with pytest.raises(ClipError, match="still image; it has no moment at 2 s"):
            read_clip(tmp_path / "a.png", plan)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_cut_off_images(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    if kind == "webp":
        with pytest.raises(ClipError, match="damaged image"):
            read_clip(path, SamplingPlan())
    else:
        clip = read_clip(path, SamplingPlan())
        assert "cut off" in clip.receipt.line()
        assert np.abs(clip.frames[0, :20].astype(int) - noise[:20]).mean() < 50
    path.write_bytes(whole[:40])
    with pytest.raises(ClipError, match="damaged image"):
        read_clip(path, SamplingPlan())


def test_an_image_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(numbered(1)).save(path)
    content = bytearray(path.read_bytes())
    # PNG: 8 bytes of signature, then the header chunk: length, name, width, height, ..., check sum.
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(ClipError, match="too many pixels"):
        read_clip(path, SamplingPlan())
