"""The guards of the hub that are on this machine, by their cards. Weights are read when a guard is first asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gpt4video_cli.safety.guard import FrameGuard, TextGuard
from gpt4video_cli.safety.policy import FRAMES, TEXT, Policy
from gpt4video_cli.weights.find_guard import installed_guards
from gpt4video_cli.weights.guard_card import GuardCard


def text_guards(policy: Policy) -> Sequence[TextGuard]:
    """Those for text that ``policy`` leaves on, by name."""
    from gpt4video_cli.safety.hub_text import GuardLanguageModel, TextClassifier

    kinds: dict[str, Callable[[GuardCard, Path], TextGuard]] = {
        "text-classifier": TextClassifier,
        "language-model": GuardLanguageModel,
    }
    found = installed_guards().values()
    return [kinds[card.model](card, folder) for card, folder in found if _wanted(card, policy, TEXT)]


def frame_guards(policy: Policy) -> Sequence[FrameGuard]:
    """Those for pictures that ``policy`` leaves on, by name."""
    from gpt4video_cli.safety.frame_guards import ImageClassifier, SafetyChecker

    kinds: dict[str, Callable[[GuardCard, Path], FrameGuard]] = {
        "image-classifier": ImageClassifier,
        "safety-checker": SafetyChecker,
    }
    found = installed_guards().values()
    return [kinds[card.model](card, folder) for card, folder in found if _wanted(card, policy, FRAMES)]


def _wanted(card: GuardCard, policy: Policy, kind: str) -> bool:
    return card.judges_text == (kind == TEXT) and policy.is_on(card.name, kind)
