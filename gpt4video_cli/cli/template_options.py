"""``--template NAME --var NAME=VALUE``: a saved prompt in the place of a written one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.errors import UsageError

if TYPE_CHECKING:
    from gpt4video_cli.saved_prompt import PromptStore


def template_names(incomplete: str) -> list[str]:
    """For the completion of the shell."""
    return [name for name in open_prompts().names() if name.startswith(incomplete)]


Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="NAME",
        help="Ask a saved prompt (gpt4video templates list).",
        autocompletion=template_names,
    ),
]
Var = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="Fill in a variable of --template (repeat it).")
]


def open_prompts() -> PromptStore:
    """The user's own."""
    from gpt4video_cli.cli.folders import templates_folder
    from gpt4video_cli.saved_prompt import PromptStore

    return PromptStore(templates_folder())


def chosen_prompt(
    prompt: str | None, template: str | None, variables: Sequence[str] | None, *, written: str = "--prompt"
) -> str | None:
    """``prompt``, which the option ``written`` gives, or the template filled in; None: neither was given."""
    if template is None:
        if variables:
            raise UsageError("--var fills in a template; --template is missing")
        return prompt
    if prompt is not None:
        raise UsageError(f"{written} and --template contradict each other; give one of them")
    from gpt4video_cli.saved_prompt import read_variables

    values = read_variables(variables or ())
    saved = open_prompts().load(template)
    try:
        return saved.fill(values)
    except UsageError as error:
        raise UsageError(f"template {template!r}: {error}", hint=error.hint) from None
