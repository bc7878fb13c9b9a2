"""``gpt4video models``: what can be done with model folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt4video_cli.cli.options import Debug, NoColor, Quiet
from gpt4video_cli.cli.terminal import Status, clean_line
from gpt4video_cli.errors import ExitCode

models = typer.Typer(
    help="Work with model folders.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@models.callback()
def _models() -> None:
    """Work with model folders."""


@models.command(short_help="Fold an adapter into its language model.")
def merge(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A model with an adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The new model folder.")],
    quiet: Quiet = False,
    no_color: NoColor = False,
    debug: Debug = False,
) -> int:
    """Write a model whose adapter is part of its language model's weights, for programs that know no adapters."""
    from gpt4video_cli.training.merge import merge_adapter

    with Status("merging ...", quiet=quiet):
        folder = merge_adapter(model, output)
    print(clean_line(str(folder)), flush=True)
    return int(ExitCode.DONE)
