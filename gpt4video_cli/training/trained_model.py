"""A finished run -> a model folder that ``chat --model`` opens: the trained part, the frozen ones beside it, a card."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.model.abstractor import Abstractor, save_abstractor
from gpt4video_cli.training.stage_model import StageModel
from gpt4video_cli.training.stages import Stage
from gpt4video_cli.video.fingerprint import fingerprint
from gpt4video_cli.weights.card import FILE_NAME, Card, render_card
from gpt4video_cli.whole_file import write_whole

FOLDERS = ("vision", "language", "adapter")
ABSTRACTOR = "abstractor.safetensors"


def write_trained(
    output: Path,
    base: Path,
    card: Card,
    stage: Stage,
    model: StageModel,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Any],
) -> Path:
    """Write the folder; its card comes last, so that half a folder is no model. ``weights``: what was trained of
    ``model``, by name, each tensor whole.

    Frozen parts are hard links to those of ``base`` where the file system has them, else copies.
    """
    try:
        (output / FILE_NAME).unlink(missing_ok=True)
        for name in FOLDERS:
            if (base / name).is_dir() and name != stage.trains:
                link_folder(base / name, output / name)
        if stage.trains == "abstractor" and model.abstractor is not None:
            abstractor = Abstractor(model.abstractor.config)
            abstractor.load_state_dict({name.removeprefix("abstractor."): value for name, value in weights.items()})
            save_abstractor(abstractor, output / ABSTRACTOR)
        else:
            link_file(base / ABSTRACTOR, output / ABSTRACTOR)
            save_adapter(model.language_model, weights, output / "adapter")
        training = {**training, "weights": part_hashes(output)}
        write_whole(output / FILE_NAME, render_card(_card(output, card, stage, training)))
    except OSError as error:
        raise Gpt4VideoError(
            f"{output}: the model cannot be written: {error.strerror or error}",
            hint="its checkpoints are there; --resume writes it again",
        ) from error
    return output


def _card(output: Path, card: Card, stage: Stage, training: Mapping[str, Any]) -> Card:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", output.resolve().name).strip("-._") or "trained"
    done = f"{card.name} after stage {stage.number} ({stage.name}), {training['steps']} steps"
    return replace(
        card,
        name=name,
        summary=f"{card.summary} [{done}]" if card.summary else done,
        folder=None,
        made_from=f"{done}, by gpt4video train. Before: {card.made_from or 'not said'}",
        measured={},  # what was measured of the model before does not hold for this one
        training=training,
    )


def link_folder(source: Path, target: Path) -> None:
    """``target`` with the same files as ``source``, its subfolders left out."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file():
            link_file(file, target / file.name)


def link_file(source: Path, target: Path) -> None:
    """Make ``target`` the file that ``source`` is; one that is there already is replaced whole."""
    real = source.resolve()  # the hub's cache has symbolic links
    if target.exists() and target.samefile(real):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        try:
            os.link(real, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(real, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def save_adapter(adapted: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """A PEFT folder of ``adapted`` with ``weights``, that names its base by the place it has in a model folder."""
    from gpt4video_cli.language.llama_folder import quiet

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adapter.") as scratch:
        with quiet():
            state = {name.removeprefix("language_model."): value.cpu() for name, value in weights.items()}
            adapted.save_pretrained(scratch, state_dict=state)
        config = Path(scratch) / "adapter_config.json"
        write_whole(folder / config.name, relocated(config.read_text(encoding="utf-8")))
        file = Path(scratch) / "adapter_model.safetensors"
        file.chmod(0o644)  # safetensors makes its files readable by their owner alone
        os.replace(file, folder / file.name)


def relocated(adapter_config: str) -> str:
    """``adapter_config.json`` for a model folder: peft notes where the base lay in training, here it lies next door."""
    values = json.loads(adapter_config)
    values["base_model_name_or_path"] = "../language"
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def part_hashes(folder: Path) -> dict[str, str]:
    """``fingerprint`` of each weights file of a model folder, by its path there."""
    found = sorted(folder.glob("*.safetensors")) + sorted(
        file for part in FOLDERS for file in (folder / part).glob("*.safetensors")
    )
    return {str(file.relative_to(folder)): fingerprint(file) for file in found}
