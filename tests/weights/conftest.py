"""A hub with a tiny text-to-video model, and a machine that knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.hub_server import Repository, serve_hub
from tests.weights.machine import NAME, Machine


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny complete text-to-video model as a repository, with files that nobody needs."""
    from gpt4video_cli.gallery.random_generator import write_random_generator

    folder = write_random_generator(tmp_path_factory.mktemp("hub") / "film")
    (folder / "card.toml").rename(folder.parent / "card.toml")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found["README.md"] = b"what it is"
    found["sample.mp4"] = b"no weights"
    found["transformer/diffusion_pytorch_model.bin"] = b"the same once more"
    found["all_in_one.safetensors"] = b"for another program"
    return found


@pytest.fixture
def machine(tmp_path: Path, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    from gpt4video_cli.gallery.random_generator import KINDS, _card

    with serve_hub({NAME: Repository(dict(files))}) as hub:
        found = Machine(tmp_path, hub, _card(KINDS["wan"], "random"))
        found.write_card()
        yield found
