"""What the shell offers after TAB for names: of models, guards and policies. No model library is imported for it."""

from __future__ import annotations

from collections.abc import Iterable


def model_names(incomplete: str) -> list[str]:
    """Models that can answer. With a ``/`` it is a folder, and the shell offers files."""
    from gpt4video_cli.weights.locate import known_models

    return _beginning(incomplete, known_models())


def generator_names(incomplete: str) -> list[str]:
    """Models that can film."""
    from gpt4video_cli.weights.find_generator import known_generators

    return _beginning(incomplete, known_generators())


def card_names(incomplete: str) -> list[str]:
    """Models of every kind."""
    from gpt4video_cli.weights.locate import known_cards

    return _beginning(incomplete, known_cards())


def policy_names(incomplete: str) -> list[str]:
    """Profiles of the safety policy; the shell offers files for a policy of one's own."""
    from gpt4video_cli.safety.policy import PROFILES

    return _beginning(incomplete, PROFILES)


def guard_names(incomplete: str) -> list[str]:
    """What ``--no-guard`` takes; the built-in guard has the name of its kind."""
    from gpt4video_cli.safety.policy import KINDS
    from gpt4video_cli.weights.find_guard import known_guards

    return _beginning(incomplete, [*KINDS, *known_guards()])


def section_names(incomplete: str) -> list[str]:
    """Commands with a section in the configuration file."""
    from gpt4video_cli.cli.configurable import SECTIONS

    return _beginning(incomplete, SECTIONS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
