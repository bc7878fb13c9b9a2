"""Equal to transformers' CLIP image processor, without importing it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.video.preprocess import PreprocessConfig, preprocess

SIZES = [(224, 224), (720, 1280), (1279, 719), (101, 333), (333, 101), (225, 224), (31, 500), (1, 7), (64, 96)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", [PreprocessConfig(), PreprocessConfig.square(112), PreprocessConfig(60, 71, 48)])
def test_equals_transformers(size: tuple[int, int], config: PreprocessConfig) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(**{k: v for k, v in config.as_dict().items() if k != "image_processor_type"})
    expected = torch.tensor(np.stack(processor(list(frames), input_data_format="channels_last")["pixel_values"]))
    pixels = preprocess(frames, config)
    assert pixels.dtype == torch.float32 and pixels.is_contiguous()
    # 1/255 is what was promised; the arithmetic is the same, so much less is true.
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_frame_by_frame_is_the_same_to_the_bit_as_all_at_once() -> None:
    config = PreprocessConfig.square(16)
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    std, mean = (torch.tensor(three)[:, None, None] for three in (config.std, config.mean))
    expected = torch.from_numpy(frames).permute(0, 3, 1, 2) * (config.rescale_factor / std) - mean / std
    assert torch.equal(preprocess(frames, config), expected)


def test_a_folder_written_by_transformers_is_read(tmp_path: Path) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = {"size": {"shortest_edge": 96}, "crop_size": {"height": 90, "width": 80}}
    CLIPImageProcessorPil(**size, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    config = PreprocessConfig.from_folder(tmp_path)
    assert (config.shortest_edge, config.crop_height, config.crop_width) == (96, 90, 80)
    assert config.mean == (0.1, 0.2, 0.3) and config.std == PreprocessConfig().std


@pytest.mark.parametrize("config", [PreprocessConfig(), PreprocessConfig(60, 71, 48, 2)])
def test_a_configuration_survives_its_file(tmp_path: Path, config: PreprocessConfig) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config.as_dict()))
    assert PreprocessConfig.from_folder(tmp_path) == config


def test_old_configurations_hold_plain_numbers(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"size": 336, "crop_size": 336, "resample": 3}')
    assert PreprocessConfig.from_folder(tmp_path) == PreprocessConfig.square(336)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"do_center_crop": false}', "do_center_crop"),
        ('{"do_normalize": false}', "do_normalize"),
        ('{"size": {"height": 224, "width": 224}}', "size"),
        ('{"resample": 9}', "resample"),
        ('{"image_mean": [0.5]}', "image_mean"),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(tmp_path: Path, content: str | None, named: str) -> None:
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(WeightsError, match=named):
        PreprocessConfig.from_folder(tmp_path)


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)]
)
def test_other_arrays_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        preprocess(frames)


def test_transformers_is_not_imported() -> None:
    code = (
        "import sys, numpy; from gpt4video_cli.video.preprocess import preprocess;"
        "preprocess(numpy.zeros((1, 9, 9, 3), numpy.uint8)); sys.exit('transformers' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
