"""Guards of the hub for pictures: real classes with small weights made here, found by their cards and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.safety.frame_guards import ImageClassifier, SafetyChecker, pixels
from gpt4video_cli.safety.gates import MOST_FRAMES, Gates
from gpt4video_cli.safety.policy import STANDARD
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.weights.guard_card import GuardCard, parse_guard_card

CARD = """
schema = 1
kind = "guard"
name = "red-vit"
summary = "Takes red pictures for violence"
licence = "Apache-2.0"
[guard]
model = "image-classifier"
[labels]
red = "violence"
"""


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of 2 layers, trained here for a second to tell red pictures from others, with its card."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("guards") / "red-vit"
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=8,
            id2label={0: "other", 1: "red"},
            label2id={"other": 0, "red": 1},
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(120):
        colours = torch.rand(48, 3, 1, 1) * 2 - 1
        colours[:24] = torch.tensor([1.0, -1.0, -1.0])[:, None, None] * (1 - 0.2 * torch.rand(24, 3, 1, 1))
        seen = (colours + 0.2 * torch.randn(48, 3, 16, 16)).clamp(-1, 1)
        labels = torch.cat([torch.ones(24), torch.zeros(24)]).long()
        loss = model(pixel_values=seen, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 16, "width": 16}}))
    (folder / "card.toml").write_text(CARD)
    return folder


def pictures(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((20, 30, 3), colour, np.uint8) for colour in colours])


def test_a_classifier_by_its_card(vit: Path) -> None:
    guard = ImageClassifier(parse_guard_card(CARD), vit)
    red, grey, blue = guard.score(pictures((250, 5, 5), (90, 90, 90), (10, 20, 240)))
    assert red["violence"] > 0.8 and grey["violence"] < 0.2 and blue["violence"] < 0.2
    many = guard.score(pictures(*[(90, 90, 90)] * 20, (250, 5, 5)))  # more than one batch
    assert [score["violence"] > 0.5 for score in many] == [False] * 20 + [True]


def install(vit: Path, own_home: Path) -> None:
    (own_home / "models").mkdir()
    (own_home / "models" / "red-vit").symlink_to(vit)


def test_one_frame_among_3000_is_found_by_an_installed_classifier(
    vit: Path, own_home: Path, long_clip: Path, clean_clip: Path, reader: FrameReader
) -> None:
    install(vit, own_home)
    gates = Gates.open()
    verdict = gates.clip(str(long_clip), reader)
    assert (verdict.outcome, verdict.guard, verdict.category) == ("refused", "red-vit", "violence")
    assert verdict.seconds == pytest.approx(60.0)
    assert gates.clip(str(clean_clip), reader).outcome == "allowed"
    film = np.full((100, 16, 16, 3), 60, np.uint8)
    assert gates.film(film, 8).outcome == "allowed"
    film[70] = (250, 5, 5)
    assert gates.film(film, 8).outcome == "refused" and MOST_FRAMES < 100
    for off in ("frames", "red-vit"):
        assert Gates.open(STANDARD.without([off], ["red-vit"])).film(film, 8).outcome == "not screened"


def test_models_list_shows_guards(vit: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gpt4video_cli.cli.app import run

    install(vit, own_home)
    assert run(["models", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["models"]}
    assert (listed["red-vit"]["kind"], listed["red-vit"]["state"]) == ("guard", "installed")
    for name in ("nsfw-image-vit", "sd-safety-checker", "toxic-bert", "llama-guard-3-1b"):
        assert (listed[name]["kind"], listed[name]["state"]) == ("guard", "available")
    assert run(["models", "show", "nsfw-image-vit"]) == 0
    assert "nsfw: sexual" in capsys.readouterr().out


def test_damaged_guards_are_errors_and_no_passes(vit: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    def broken(name: str) -> Path:
        return Path(shutil.copytree(vit, tmp_path / name))

    frames, card = pictures((0, 0, 0)), parse_guard_card(CARD)
    folder = broken("missing")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("classifier.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"classifier\.weight is missing"):
        ImageClassifier(card, folder).score(frames)
    folder = broken("pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no weights in safetensors"):
        ImageClassifier(card, folder).score(frames)
    folder = broken("cut")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be loaded") as error:
        ImageClassifier(card, folder).score(frames)
    assert "--no-guard red-vit goes on without it" in error.value.line()
    other = parse_guard_card(CARD.replace("\nred =", "\nblue ="))
    with pytest.raises(WeightsError, match="no label 'blue', it has other, red"):
        ImageClassifier(other, vit).score(frames)


def test_the_pixels_are_those_of_transformers(vit: Path, tmp_path: Path) -> None:
    """Against ViT's own processor, on its PIL backend."""
    from transformers import ViTImageProcessor

    kinds: list[Any] = [ViTImageProcessor]
    try:
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        kinds.insert(0, ViTImageProcessorPil)
    except ImportError:
        pass
    processor = None
    for kind in kinds:
        try:
            processor = kind(size={"height": 16, "width": 16})
            break
        except ImportError:
            continue
    if processor is None:
        pytest.skip("this transformers has no image processor without torchvision")
    processor.save_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    expected = processor(list(frames), return_tensors="pt")["pixel_values"]
    assert (pixels(frames, tmp_path) - expected).abs().max() < 1e-5


def test_the_safety_checker_decides_as_diffusers_does(tmp_path: Path) -> None:
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    from gpt4video_cli.video.preprocess import PreprocessConfig

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "projection_dim": 8,
    }
    model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
    with torch.no_grad():
        for name in ("concept_embeds", "special_care_embeds"):
            getattr(model, name).copy_(torch.randn(getattr(model, name).shape))
        model.concept_embeds_weights.fill_(0.62)
        model.special_care_embeds_weights.fill_(0.0)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PreprocessConfig.square(16).as_dict()))
    frames = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), np.uint8).repeat(20, 1).repeat(20, 2)
    card = GuardCard("checker", "", "", "safety-checker")
    scores = SafetyChecker(card, tmp_path).score(frames)
    seen = pixels(frames, tmp_path)
    _, flagged = model(seen, torch.zeros(len(frames), 3, 16, 16))
    assert 0 < sum(flagged) < len(frames)  # or the comparison says little
    # diffusers rounds to 0.001 of similarity, so what lies nearer than that to the threshold may differ.
    for score, flag in zip(scores, flagged):
        if abs(score["sexual"] - 0.5) > 0.02:
            assert (score["sexual"] > 0.5) == bool(flag)
        assert score["minors"] <= score["sexual"]
    assert sum(abs(score["sexual"] - 0.5) > 0.02 for score in scores) > 30
    assert any(score["minors"] > 0.5 for score in scores) and any(score["minors"] < 0.3 for score in scores)
