"""A tiny real model, real clips, and the program as a shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gpt4video_cli.model.random_model import write_random_model

    return write_random_model(tmp_path_factory.mktemp("model") / "random", context_length=2048)


@pytest.fixture(scope="session")
def film_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-video model with random weights. Do not change it: all tests share it."""
    from gpt4video_cli.gallery.random_generator import write_random_generator

    return write_random_generator(tmp_path_factory.mktemp("film") / "random")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, 96 x 64: a red square moves to the right. Its name has a blank and needs quoting."""
    from gpt4video_cli.video.writer import write_mp4

    frames = np.full((20, 64, 96, 3), 60, np.uint8)
    for i in range(20):
        frames[i, 20:40, 4 * i : 4 * i + 16] = (255, 0, 0)
    path = tmp_path_factory.mktemp("clips") / "red square.mp4"
    write_mp4(path, frames, 10)
    return path


@pytest.fixture(scope="session")
def text_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "notes.mp4"
    path.write_text("this is not a video\n" * 50)
    return path


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A person without settings, whose files go to a new folder."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")}
    search = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    home = tmp_path_factory.mktemp("home")
    own = {"GPT4VIDEO_HOME": str(home), "OMP_NUM_THREADS": "1", "TERM": "xterm", "HF_HUB_OFFLINE": "1"}
    return {**kept, **own, "PYTHONPATH": os.pathsep.join(search)}


@pytest.fixture(scope="session")
def gpt4video(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the program in a process of its own: arguments, ``stdin`` as text, more environment."""
    folder = tmp_path_factory.mktemp("cwd")

    def run(*arguments: str | Path, stdin: str | bytes | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "gpt4video_cli", *map(str, arguments)],
            input=b"" if content is None else content,
            capture_output=True,
            env={**environment, **more},
            cwd=folder,
            timeout=90,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run
