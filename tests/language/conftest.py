"""The small language model of the other tests as GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4video_cli.weights.gguf_export import export_adapter_gguf, export_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny_language_folder: Path) -> Path:
    """``tiny_language_folder`` in float32. Do not change it: all tests share it."""
    return export_gguf(tiny_language_folder, tmp_path_factory.mktemp("gguf") / "model-f32.gguf", "f32")


@pytest.fixture(scope="session")
def tiny_adapter_gguf(
    tmp_path_factory: pytest.TempPathFactory, tiny_language_folder: Path, tiny_adapter_folder: Path
) -> Path:
    """``tiny_adapter_folder`` in float32."""
    place = tmp_path_factory.mktemp("gguf") / "adapter-f32.gguf"
    return export_adapter_gguf(tiny_adapter_folder, tiny_language_folder, place, "f32")
