"""A hub with a tiny text-to-video model, and a machine that knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.hub_server import Repository, serve_hub
from tests.weights.machine import NAME, Machine


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny complete text-to-video model with its card. Do not change it: all tests share it."""
    from gpt4video_cli.gallery.random_generator import write_random_generator

    return write_random_generator(tmp_path_factory.mktemp("hub") / "film")


@pytest.fixture(scope="session")
def card(written: Path) -> str:
    """The text of the model's card."""
    return (written / "card.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def files(written: Path) -> dict[str, bytes]:
    """The model as a repository: without the card, with files that nobody needs."""
    found = {str(path.relative_to(written)): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    del found["card.toml"]
    found["README.md"] = b"what it is"
    found["sample.mp4"] = b"no weights"
    found["transformer/diffusion_pytorch_model.bin"] = b"the same once more"
    found["all_in_one.safetensors"] = b"for another program"
    return found


@pytest.fixture
def machine(tmp_path: Path, files: dict[str, bytes], card: str) -> Iterator[Machine]:
    with serve_hub({NAME: Repository(dict(files))}) as hub:
        found = Machine(tmp_path, hub, card)
        found.write_card()
        yield found
