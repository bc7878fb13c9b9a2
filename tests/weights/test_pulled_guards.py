"""A guard of the hub: fetched like any model, from safetensors as it is and from pickles converted, and then used."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from gpt4video_cli.errors import ExitCode
from tests.weights.hub_server import Repository
from tests.weights.machine import Machine

CARD = """\
schema = 1
kind = "guard"
name = "{name}"
summary = "for a test"
licence = "CC0-1.0"
repository = "{repository}"
[guard]
model = "image-classifier"
[labels]
{label} = "{category}"
"""


def classifier(folder: Path) -> dict[str, bytes]:
    """A ViT as a repository, which takes all pictures for ``bad``."""
    from transformers import ViTConfig, ViTForImageClassification

    labels = {0: "good", 1: "bad"}
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=16,
        patch_size=8,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-9.0, 9.0]))
    model.save_pretrained(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found | {"preprocessor_config.json": json.dumps({"size": {"height": 16, "width": 16}}).encode()}


@pytest.mark.slow  # three runs of the program: 13 s of processor time
def test_pulled_guards_are_used(machine: Machine, tmp_path: Path) -> None:
    files = classifier(tmp_path / "vit")
    pickled = dict(files)
    tensors = load(pickled.pop("model.safetensors"))
    content = io.BytesIO()
    torch.save(tensors, content)
    pickled["pytorch_model.bin"] = content.getvalue()
    machine.hub.repositories["team/plain"] = Repository(files)
    machine.hub.repositories["team/pickled"] = Repository(pickled)
    cards = machine.folder / "gpt4video" / "cards"
    (cards / "plain.toml").write_text(CARD.format(name="plain", repository="team/plain", label="good", category="hate"))
    (cards / "pickled.toml").write_text(
        CARD.format(name="pickled", repository="team/pickled", label="bad", category="violence")
    )
    picture = machine.folder / "a.png"
    Image.new("RGB", (32, 24), (90, 90, 90)).save(picture)
    for name in ("plain", "pickled"):
        code, out, err = machine.run("models", "pull", name, "--yes")
        assert code == ExitCode.DONE, err
        folder = Path(out.strip())
        assert (folder / "config.json").is_file() and not (folder / "pytorch_model.bin").exists()
        assert save(load((folder / "model.safetensors").read_bytes())) == save(tensors)
    code, out, err = machine.run("safety", "check", str(picture), "--json")
    verdict = json.loads(out)
    assert (code, verdict["outcome"], verdict["guard"]) == (ExitCode.REFUSED, "refused", "pickled"), err
    assert (verdict["category"], verdict["guards"]) == ("violence", ["pickled"])  # it is asked first, by its name
