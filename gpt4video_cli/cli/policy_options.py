"""What the options ``--policy`` and ``--no-guard`` mean, and what is said at every start where a guard is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli.completion import guard_names, policy_names
from gpt4video_cli.cli.option_panels import OUTPUT, SAFETY
from gpt4video_cli.cli.terminal import YELLOW, say
from gpt4video_cli.safety.policy import STANDARD, Policy, find_policy

if TYPE_CHECKING:
    from gpt4video_cli.events import Refusal
    from gpt4video_cli.safety.gates import Gates

PolicyName = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="strict|standard|FILE",
        autocompletion=policy_names,
        help="What the safety guards refuse.",
        rich_help_panel=SAFETY,
    ),
]
NoGuard = Annotated[
    list[str] | None,
    typer.Option(
        "--no-guard",
        metavar="NAME",
        autocompletion=guard_names,
        help="Turn a guard off, or all for text or frames (repeat it).",
        rich_help_panel=SAFETY,
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Say every verdict of the safety guards.", rich_help_panel=OUTPUT)
]


def read_policy(name_or_file: str = STANDARD.name, no_guard: Sequence[str] | None = None) -> Policy:
    """The policy that the options ask for. Raises ``UsageError`` or ``InputError``; loads no guard."""
    from gpt4video_cli.safety.gates import BUILTIN
    from gpt4video_cli.weights.find_guard import known_guards

    known = [BUILTIN, *known_guards()]
    return find_policy(name_or_file, known).without(no_guard or (), known)


def open_gates(policy: Policy) -> Gates:
    """The gates of ``policy``, after a line about what it turns off, which ``--quiet`` does not silence."""
    from gpt4video_cli.safety.gates import Gates

    if policy.off:
        from gpt4video_cli.cli.configuration import where_set

        still = "; texts that involve minors in what is sexual are refused all the same"
        where = where_set("policy", "no_guard")
        say(f"safety: guards are turned off: {', '.join(sorted(policy.off))}{still}{where}", style=YELLOW)
    return Gates.open(policy)


def refusal_as_dict(refusal: Refusal | None) -> dict[str, Any] | None:
    """A refusal for ``--json``."""
    if refusal is None:
        return None
    return {name: getattr(refusal, name) for name in ("guard", "category", "subject", "message")}
