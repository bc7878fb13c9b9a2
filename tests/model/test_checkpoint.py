"""A whole model folder: what it gives, what it refuses, and that it is the same folder every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.language.engine import EmbeddingSegment, GenerationStats, SamplingOptions, TextSegment
from gpt4video_cli.model import checkpoint
from gpt4video_cli.model.checkpoint import load_model
from gpt4video_cli.model.random_model import write_random_model
from gpt4video_cli.video.preprocess import preprocess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "model", adapter=True)


def frames(count: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)


def test_frames_become_embeddings_that_the_engine_takes(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    assert model.card.name == "random" and model.template.name == "paper"
    assert model.timings == {}  # nothing loads before it is needed
    embeddings = model.embed(frames())
    assert embeddings.shape == (4, 64) and embeddings.dtype == torch.float32
    pixels = preprocess(frames(), model.preprocess_config)
    by_hand = model.abstractor(model.visual_encoder(pixels)[None])[0]
    torch.testing.assert_close(embeddings, by_hand)
    assert set(model.timings) == {"load_vision", "load_abstractor"}

    def answer(clip: np.ndarray) -> list[int]:
        segments = [TextSegment("<s>", trusted=True), EmbeddingSegment("k", model.embed(clip)), TextSegment("What?")]
        stats = GenerationStats()
        options = SamplingOptions(max_tokens=8)
        return list(model.engine.generate(segments, options, cache=model.engine.new_cache(), stats=stats))

    assert answer(frames()) != answer(frames(seed=1))
    assert set(model.timings) == {"load_vision", "load_abstractor", "load_language"}
    assert model.engine is model.engine


def test_chunks_of_frames_equal_all_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(folder, device="cpu")
    whole = model.encode(frames(7))
    monkeypatch.setattr(checkpoint, "FRAMES_AT_ONCE", 3)
    torch.testing.assert_close(model.encode(frames(7)), whole, atol=1e-5, rtol=1e-5)


def test_warm_loads_once_in_the_background(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    model.warm()
    model.warm()
    engine = model.engine
    assert "load_language" in model.timings
    assert model.engine is engine


def test_an_error_in_the_background_is_raised_where_the_part_is_needed(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    (folder / "language" / "model.safetensors").unlink()
    model.warm()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        _ = model.engine


def test_the_same_seed_writes_the_same_folder(tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        written = write_random_model(tmp_path / name, seed=seed)
        contents.append({str(p.relative_to(written)): p.read_bytes() for p in written.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == contents[2].keys() and contents[0] != contents[2]
    assert not any("tmp" in name for name in contents[0])


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("language/config.json", "hidden_size", 96, "made for a language model of width 64"),
        ("vision/config.json", "hidden_size", 48, "made for features of width 32, the visual encoder gives 48"),
        ("vision/config.json", "image_size", 64, "frames have 64 x 64 pixels"),
    ],
)
def test_parts_that_do_not_fit_are_told_before_loading(
    folder: Path, part: str, key: str, value: int, said: str
) -> None:
    config = json.loads((folder / part).read_text())
    (folder / part).write_text(json.dumps({**config, key: value}))
    with pytest.raises(WeightsError, match=said):
        load_model(folder, device="cpu")


@pytest.mark.parametrize(
    "part", ["vision/config.json", "vision/preprocessor_config.json", "abstractor.safetensors", "language/config.json"]
)
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(WeightsError, match=Path(part).name):
        load_model(folder, device="cpu")


def test_unknown_device_and_dtype(folder: Path) -> None:
    with pytest.raises(UsageError, match="toaster"):
        load_model(folder, device="toaster")
    with pytest.raises(UsageError, match="int3"):
        load_model(folder, device="cpu", dtype="int3")


def test_eyes_open_without_transformers(folder: Path) -> None:
    """Decoding and encoding a clip must not wait for transformers' four seconds of imports, nor for sympy's second."""
    program = (
        "import sys, numpy\n"
        "from gpt4video_cli.model.checkpoint import load_model\n"
        f"model = load_model({str(folder)!r}, device='cpu')\n"
        "print(tuple(model.embed(numpy.zeros((2, 32, 32, 3), numpy.uint8)).shape))\n"
        "print([name for name in ('transformers', 'diffusers', 'peft', 'sympy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(4, 64)", "[]"]


def test_opening_needs_no_torch(folder: Path) -> None:
    """Everything that is checked before the first part loads, and what names the embeddings of kept clips."""
    program = (
        "import sys\n"
        "from gpt4video_cli.assistant import Assistant\n"
        "from gpt4video_cli.model.checkpoint import open_model\n"
        "from gpt4video_cli.model.placement import LoadWish\n"
        f"model = open_model({str(folder)!r}, LoadWish('cpu'))\n"
        "assert model.encoder_digest and model.preprocess_config and model.template\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
