"""Clips that the bundled model knows, and damaged ones."""

from __future__ import annotations

import random

import pytest


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twelve ShapeWorld clips of a second and a half. Do not change them: all tests share them."""
    from gpt4video_cli.shapeworld.render import render_clip
    from gpt4video_cli.shapeworld.scene import sample_scene
    from gpt4video_cli.video.writer import write_mp4

    folder = tmp_path_factory.mktemp("clips")
    paths = []
    for number in range(12):
        scene = sample_scene(random.Random(number), plain=True)
        paths.append(str(write_mp4(folder / f"{number:02}.mp4", render_clip(scene, side=96, frames=12), 8)))
    return paths
