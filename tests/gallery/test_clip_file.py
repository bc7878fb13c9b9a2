"""Clips on disk: right in every format, and never in the place of something else."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery import clip_file, new_file
from gpt4video_cli.gallery.clip_file import write_clip
from gpt4video_cli.gallery.container_tags import tags_of
from tests.gallery.clips import ENDINGS, decoded, film

TAGS = {"gpt4video": '{"prompt":"caf\\u00e9"}', "title": "café — 中文", "comment": "made here"}

pytestmark = pytest.mark.usefixtures("nothing_left")


def gif_seconds(path: Path) -> float:
    with Image.open(path) as picture:
        total = 0
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            total += picture.info["duration"]
    return total / 1000


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    frames = film()
    path = write_clip(tmp_path / f"a{ending}", frames, 8, metadata=TAGS)
    read = decoded(path)
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < (5 if ending in (".mp4", ".webm") else 0.01)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "h264"), (".webm", "vp9")])
@pytest.mark.parametrize("size", [(64, 48), (65, 49), (64, 49), (1, 1), (576, 320)])
@pytest.mark.parametrize("fps", [8, 23.976, 0.5])
def test_streams_are_what_players_expect(
    tmp_path: Path, ending: str, codec: str, size: tuple[int, int], fps: float
) -> None:
    width, height = size
    path = write_clip(tmp_path / f"a{ending}", film(5, height, width), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        even = (width + width % 2, height + height % 2)
        assert (stream.codec_context.name, stream.pix_fmt) == (codec, "yuv420p")
        assert (stream.width, stream.height) == even
        assert float(stream.average_rate) == pytest.approx(fps, rel=2e-3)
        assert container.duration / 1e6 == pytest.approx(5 / fps, rel=5e-3)
        assert len(list(container.decode(video=0))) == 5


@pytest.mark.parametrize(("fps", "seconds"), [(8, 1.5), (24, 0.5), (15, 0.8), (50, 0.24), (60, 0.2), (0.5, 24)])
def test_a_gif_lasts_as_long_as_the_clip(tmp_path: Path, fps: float, seconds: float) -> None:
    path = write_clip(tmp_path / "a.gif", film(), fps)
    assert gif_seconds(path) == pytest.approx(seconds, abs=0.011)
    assert decoded(path).shape[0] == (10 if fps == 60 else 12)
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0
    still = write_clip(tmp_path / "b.gif", np.zeros((12, 8, 8, 3), np.uint8), fps)
    assert gif_seconds(still) == pytest.approx(seconds, abs=0.011)


def test_a_gif_keeps_odd_sizes_and_most_of_many_colours(tmp_path: Path) -> None:
    y, x = np.mgrid[:61, :83]
    frames = np.stack([np.stack([x * 3, y * 4, x + y + t], -1) for t in range(3)]).astype(np.uint8)
    read = decoded(write_clip(tmp_path / "a.gif", frames, 8))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 12


def test_pictures_are_numbered_and_exact(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (11, 5, 7, 3)).astype(np.uint8)
    path = write_clip(f"{tmp_path}/frames/", frames, 8)
    assert sorted(os.listdir(path)) == [f"frame_{n:04}.png" for n in range(1, 12)]
    assert np.array_equal(decoded(path), frames)


@pytest.mark.parametrize("ending", ENDINGS)
def test_metadata_survives(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", film(), 8, metadata=TAGS)
    tags = {name.lower(): text for name, text in tags_of(str(path if ending else path / "frame_0001.png")).items()}
    assert {name: tags[name] for name in TAGS} == TAGS
    bare = write_clip(tmp_path / f"b{ending}", film(), 8)
    assert not set(TAGS) & set(tags_of(str(bare if ending else bare / "frame_0001.png")))


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_replaced_without_force(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", film(5), 8)
    with pytest.raises(UsageError, match=r"exists") as caught:
        write_clip(path, film(7), 8)
    assert "--force" in caught.value.line()
    assert len(decoded(path)) == 5
    write_clip(path, film(7), 8, force=True)
    assert len(decoded(path)) == 7
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, links: bool
) -> None:
    target = tmp_path / f"a{ending}"

    def late(temporary: Path, path: Path, *, force: bool) -> None:
        if ending:
            target.write_text("mine")
        else:
            target.mkdir()
            (target / "notes.txt").write_text("mine")
        new_file.put_in_place(temporary, path, force=force)

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clip_file, "put_in_place", late)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UsageError, match="exists"):
        write_clip(target, film(), 8)
    assert (target if ending else target / "notes.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == [target.name]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert len(decoded(write_clip(tmp_path / "a.mp4", film(), 8))) == 12
    assert os.listdir(tmp_path) == ["a.mp4"]
