"""What names a model's visual half, and how the hashes for it are remembered."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt4video_cli.model.encoder_digest import encoder_digest
from gpt4video_cli.weights import content_hashes
from gpt4video_cli.weights.content_hashes import remembered_sha256
from gpt4video_cli.weights.hub import sha256_of


def digest_of(folder: Path, **changes: object) -> str:
    options = {"final_norm": False, "device": "cpu", "dtype": "float32", "vision_dtype": "float32", **changes}
    return encoder_digest(folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that was written a while ago."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"first content")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the file system ticks so fast that a file counts as settled at once."""
    monkeypatch.setattr(content_hashes, "SETTLED_NS", -1)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed, in order."""
    names: list[str] = []

    def note(path: Path) -> str:
        names.append(Path(path).name)
        return sha256_of(path)

    monkeypatch.setattr(content_hashes, "sha256_of", note)
    return names


def other_dtype(model: Path) -> str:
    return digest_of(model, dtype="bfloat16")


def other_vision_dtype(model: Path) -> str:
    return digest_of(model, vision_dtype="int8")


def other_device(model: Path) -> str:
    return digest_of(model, device="cuda")


def other_norm(model: Path) -> str:
    return digest_of(model, final_norm=True)


def rewritten(name: str) -> Callable[[Path], str]:
    def change(model: Path) -> str:
        path = model / name
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(bytes(content))
        return digest_of(model)

    return change


CHANGES = {
    "dtype": other_dtype,
    "vision dtype": other_vision_dtype,
    "device": other_device,
    "final norm": other_norm,
    "abstractor": rewritten("abstractor.safetensors"),
    "vision weights": rewritten("vision/model.safetensors"),
    "vision configuration": rewritten("vision/config.json"),
    "preprocessing": rewritten("vision/preprocessor_config.json"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_embeddings_changes_the_name(model: Path, what: str) -> None:
    before = digest_of(model)
    assert digest_of(model) == before
    assert CHANGES[what](model) != before


def test_another_program_makes_its_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of(model)
    monkeypatch.setattr("gpt4video_cli.model.encoder_digest.__version__", "99.0")
    assert digest_of(model) != before


def test_the_language_model_and_the_place_do_not_matter(model: Path, tiny_model_folder: Path) -> None:
    (model / "language" / "model.safetensors").unlink()
    assert digest_of(model) == digest_of(tiny_model_folder)


def test_shards_count(model: Path) -> None:
    vision = model / "vision"
    (vision / "model.safetensors").rename(vision / "model-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "model-00001.safetensors"}}
    (vision / "model.safetensors.index.json").write_text(json.dumps(index))
    before = digest_of(model)
    assert rewritten("vision/model-00001.safetensors")(model) != before
    (vision / "model-00001.safetensors").unlink()
    with pytest.raises(OSError, match="model-00001"):
        digest_of(model)


def test_a_file_is_hashed_once(weights: Path, settled: None, hashed: list[str]) -> None:
    assert remembered_sha256(weights) == sha256_of(weights) == remembered_sha256(weights)
    assert hashed == [weights.name]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(weights.parent)
        assert remembered_sha256(Path(weights.name)) == sha256_of(weights)
    assert hashed == [weights.name]


def test_a_replaced_file_of_the_same_size_and_date_is_noticed(weights: Path, settled: None) -> None:
    before, status = remembered_sha256(weights), weights.stat()
    weights.write_bytes(b"other content")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights.stat().st_size == status.st_size and weights.stat().st_mtime_ns == status.st_mtime_ns
    assert remembered_sha256(weights) == sha256_of(weights) != before


def test_a_file_that_changed_a_moment_ago_is_hashed_again(weights: Path, hashed: list[str]) -> None:
    remembered_sha256(weights)
    remembered_sha256(weights)
    assert hashed == [weights.name] * 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 9, "files": {}}', '{"version": 1, "files": {"a": [1]}}']
)
def test_damaged_notes_are_forgotten(weights: Path, own_home: Path, settled: None, content: str) -> None:
    (own_home / "hashes.json").write_text(content)
    assert remembered_sha256(weights) == sha256_of(weights)
    assert str(weights) in json.loads((own_home / "hashes.json").read_text())["files"]


def test_files_that_are_gone_are_forgotten(weights: Path, own_home: Path, settled: None, tmp_path: Path) -> None:
    remembered_sha256(weights)
    weights.rename(tmp_path / "moved.safetensors")
    remembered_sha256(tmp_path / "moved.safetensors")
    assert list(json.loads((own_home / "hashes.json").read_text())["files"]) == [str(tmp_path / "moved.safetensors")]


def test_without_room_for_notes_the_hash_comes_anyway(
    weights: Path, own_home: Path, settled: None, hashed: list[str]
) -> None:
    own_home.rmdir()
    own_home.write_text("a file in the place of the folder")
    assert remembered_sha256(weights) == remembered_sha256(weights) == sha256_of(weights)
    assert hashed == [weights.name] * 2


def test_it_costs_nothing_the_second_time(model: Path, settled: None) -> None:
    """A look at five files and a small JSON file: 0.3 ms on the machine this was written on."""
    digest_of(model)
    began = time.process_time()
    for _ in range(20):
        digest_of(model)
    assert (time.process_time() - began) / 20 < 0.01
