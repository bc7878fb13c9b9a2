"""Tiny real text-to-video models with random weights, made once for this folder's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.random_generator import write_random_generator

Folder = Callable[[str], Path]


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder of a random generator by its kind. Do not change it: all tests share it."""
    root = tmp_path_factory.mktemp("generators")

    @cache
    def make(kind: str) -> Path:
        return write_random_generator(root / kind, kind)

    return make


@pytest.fixture(scope="session")
def loaded(generator_folder: Folder) -> Callable[[str], DiffusersGenerator]:
    """A generator by its kind; its weights are read once for all tests."""
    return cache(lambda kind: DiffusersGenerator.open(str(generator_folder(kind))))


@pytest.fixture
def wan(loaded: Callable[[str], DiffusersGenerator]) -> DiffusersGenerator:
    return loaded("wan")


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No test leaves a temporary file."""
    yield
    assert [name for name in os.listdir(tmp_path) if name.startswith(".gpt4video")] == []
