"""Pulled files that become a folder of our own: the public assistant's format, an assembly of parts, pickles."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from gpt4video_cli.errors import ExitCode
from tests.conftest import write_tiny_language
from tests.weights.hub_server import Repository
from tests.weights.machine import NAME, UNET, Machine

OWL = Path(__file__).resolve().parents[1] / "data" / "mplug-owl-video-small"
CARD = """\
schema = 1
name = "{name}"
summary = "for a test"
licence = "CC0-1.0"
[prompt]
template = "{template}"
[sampling]
frames = 2
[vision]
final_norm = {final_norm}
{parts}
"""


def write_card(machine: Machine, name: str, template: str, parts: dict[str, tuple[str, str]]) -> None:
    tables = [f'[parts.{part}]\nrepository = "{repo}"\nformat = "{kind}"' for part, (repo, kind) in parts.items()]
    norm = "true" if template == "mplug-owl" else "false"
    text = CARD.format(name=name, template=template, final_norm=norm, parts="\n".join(tables))
    (machine.folder / "gpt4video" / "cards" / f"{name}.toml").write_text(text)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_public_assistant_is_converted_when_it_is_pulled(machine: Machine) -> None:
    found = {name: content for name, content in contents(OWL).items() if not name.startswith("expected")}
    machine.hub.repositories["team/owl"] = Repository(found)
    write_card(machine, "owl", "mplug-owl", {"model": ("team/owl", "mplug-owl-video")})
    code, _, err = machine.run("chat", "--model", "owl", "--prompt", "hello")
    assert code == ExitCode.WEIGHTS and "models pull owl" in err
    code, out, err = machine.run("models", "pull", "owl", "--yes")
    assert code == ExitCode.DONE, err
    folder = Path(out.strip())
    assert folder == machine.folder / "gpt4video" / "models" / "owl"
    assert {path.name for path in folder.iterdir()} >= {"vision", "language", "abstractor.safetensors", "card.toml"}
    assert 'name = "owl"' in (folder / "card.toml").read_text()
    machine.hub.requests.clear()
    code, again, _ = machine.run("models", "path", "owl", HF_HUB_OFFLINE="1")
    assert (code, again) == (ExitCode.DONE, out) and machine.hub.requests == []
    code, _, err = machine.run("models", "rm", "owl", "--yes")
    assert code == ExitCode.DONE and not folder.exists()
    assert not (machine.folder / "hf" / "hub" / "models--team--owl").exists()


def test_an_assembly_gets_an_abstractor_to_train_and_answers(machine: Machine, tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96}
    CLIPVisionModel(CLIPVisionConfig(**sizes, patch_size=14, image_size=28)).save_pretrained(tmp_path / "clip")
    write_tiny_language(tmp_path / "llama")
    machine.hub.repositories["team/clip"] = Repository(contents(tmp_path / "clip"))
    machine.hub.repositories["team/llama"] = Repository(contents(tmp_path / "llama"))
    parts = {"vision": ("team/clip", "hf-clip"), "language": ("team/llama", "hf-llama")}
    write_card(machine, "assembly", "paper", parts)
    code, out, err = machine.run("models", "pull", "assembly", "--yes")
    assert code == ExitCode.DONE, err
    assert (Path(out.strip()) / "abstractor.safetensors").is_file()
    clip = Path(__file__).resolve().parents[2] / "gpt4video_cli" / "bundle" / "clips"
    (one, *_) = sorted(clip.glob("*.mp4"))
    arguments = ("chat", str(one), "--model", "assembly", "--prompt", "what?", "--max-tokens", "4", "--no-generate")
    code, _, err = machine.run(*arguments, HF_HUB_OFFLINE="1")
    assert code == ExitCode.DONE, err


def test_pickles_are_converted_once_and_film(machine: Machine, files: dict[str, bytes]) -> None:
    repository = machine.hub.repositories[NAME]
    old = {name: content for name, content in repository.files.items() if not name.endswith((".safetensors", ".bin"))}
    for name, content in repository.files.items():
        if name.endswith(".safetensors") and "/" in name:
            pickled = io.BytesIO()
            torch.save(load(content), pickled)
            new = name.replace("/model.safetensors", "/pytorch_model.safetensors").replace(".safetensors", ".bin")
            old[new] = pickled.getvalue()
    repository.files = old
    code, out, err = machine.pull()
    assert code == ExitCode.DONE, err
    folder = Path(out.strip())
    assert folder == machine.folder / "gpt4video" / "models" / "tiny"
    assert not list(folder.rglob("*.bin")) and (folder / UNET).is_file()
    made = load((folder / UNET).read_bytes())
    assert all(torch.equal(made[name], tensor) for name, tensor in load(files[UNET]).items())
    code, _, err = machine.run(
        "generate", "--raw", "--generator", "tiny", "-o", str(machine.folder / "x.mp4"), "a", HF_HUB_OFFLINE="1"
    )
    assert code == ExitCode.DONE, err


def test_what_was_converted_is_verified_too(machine: Machine) -> None:
    found = {name: content for name, content in contents(OWL).items() if not name.startswith("expected")}
    machine.hub.repositories["team/owl"] = Repository(found)
    write_card(machine, "owl", "mplug-owl", {"model": ("team/owl", "mplug-owl-video")})
    folder = Path(machine.run("models", "pull", "owl", "--yes")[1].strip())
    code, out, _ = machine.run("models", "verify", "owl")
    assert code == ExitCode.DONE and "as they were fetched" in out
    weights = folder / "abstractor.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    code, out, _ = machine.run("models", "verify", "owl", "--repair")
    assert code == ExitCode.WEIGHTS and f"{weights}: its content changed" in out
    machine.hub.requests.clear()
    assert machine.run("models", "pull", "owl", "--yes")[0] == ExitCode.DONE
    assert machine.hub.fetched() == [], "the cache was whole: only the conversion was to be done again"
    assert machine.run("models", "verify", "owl")[0] == ExitCode.DONE


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('ran').touch()",)


def test_a_pickle_that_holds_code_does_not_run_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine.folder)
    repository = machine.hub.repositories[NAME]
    pickled = io.BytesIO()
    torch.save({"weight": _Code()}, pickled)
    repository.files = {
        name: content for name, content in repository.files.items() if not name.startswith("transformer/diff")
    } | {"transformer/diffusion_pytorch_model.bin": pickled.getvalue()}
    code, _, err = machine.pull()
    assert code == ExitCode.WEIGHTS and "diffusion_pytorch_model.bin" in err, err
    assert not (machine.folder / "ran").exists()
    assert not (machine.folder / "gpt4video" / "models" / "tiny").exists()


def test_list_and_show_as_json(machine: Machine) -> None:
    code, out, _ = machine.run("models", "list", "--json")
    states = {model["name"]: model["state"] for model in json.loads(out)["models"]}
    assert code == ExitCode.DONE
    assert (states["bundle"], states["tiny"], states["gpt4video-7b"]) == ("installed", "available", "available")
    about = json.loads(machine.run("models", "show", "gpt4video-7b", "--json")[1])
    assert about["repositories"] == ["MAGAer13/mplug-owl-llama-7b-video (model, main)"]
    assert "7B" in about["summary"] and about["limits"] and about["licence"]
