"""A guard's folder -> a model of transformers or diffusers, strictly: local, safetensors, no code from the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.weights.guard_card import GuardCard

if TYPE_CHECKING:
    import torch

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_NEVER_STORED = "position_ids"
"""Counted by the program: old files hold them, and newer classes do not ask for them."""


class HubGuard:
    """A guard whose weights are in ``folder``. They are read when the first text or picture comes."""

    def __init__(self, card: GuardCard, folder: Path) -> None:
        self._card, self._folder = card, folder

    @property
    def name(self) -> str:
        """The card's."""
        return self._card.name


def load_model(kind: Any, folder: Path, card: GuardCard) -> tuple[Any, torch.device]:
    """The model in ``folder`` as the class ``kind`` reads it, on the GPU where there is one, and its device.

    Raises ``WeightsError`` for weights that are missing, do not fit or are pickled: a guard with random weights would
    let everything pass.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    from gpt4video_cli.model.strict_load import choose_device, choose_dtype

    logging.disable_progress_bar()  # cli/ alone prints
    without = f"--no-guard {card.name} goes on without it"
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{folder}: guard {card.name!r} has no weights in safetensors", hint=without)
    device = choose_device()
    options = {**LOCAL, "use_safetensors": True, "output_loading_info": True, "dtype": choose_dtype("auto", device)}
    try:
        model, info = kind.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{folder}: guard {card.name!r} cannot be loaded: {reason}", hint=without) from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = sorted(str(name) for name in info.get(what, ()) if not str(name).endswith(_NEVER_STORED))
        if names:
            raise WeightsError(
                f"{folder}: guard {card.name!r}: tensor {names[0]} is {what.split('_')[0]}", hint="fetch it again"
            )
    return model.eval().to(device), device


def label_columns(model: Any, card: GuardCard) -> dict[int, str]:
    """Output -> category. Raises ``WeightsError`` for a label of the card that the model does not have."""
    known = {str(label): int(index) for index, label in model.config.id2label.items()}
    for label in card.labels:
        if label not in known:
            raise WeightsError(f"guard {card.name!r}: its model has no label {label!r}, it has {', '.join(known)}")
    return {known[label]: category for label, category in card.labels.items()}


def scores_of(logits: torch.Tensor, columns: dict[int, str], *, many: bool) -> list[dict[str, float]]:
    """``logits`` [N, labels] -> for each of N the likelihood by category: the sum of its labels where they exclude each
    other, the largest where ``many`` can be true at once."""
    logits = logits.float().cpu()
    likely = logits.sigmoid() if many else logits.softmax(dim=-1)
    found = []
    for row in likely.tolist():
        scores: dict[str, float] = {}
        for column, category in columns.items():
            before = scores.get(category, 0.0)
            scores[category] = max(before, row[column]) if many else min(1.0, before + row[column])
        found.append(scores)
    return found
