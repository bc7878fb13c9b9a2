"""``gpt4video models``: list, fetch, check and remove models, and what can be done with their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt4video_cli.cli.completion import card_names
from gpt4video_cli.cli.confirm import confirm
from gpt4video_cli.cli.models_export import export
from gpt4video_cli.cli.models_import import import_
from gpt4video_cli.cli.models_pull import human, pull
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain, Quiet
from gpt4video_cli.cli.table import print_table
from gpt4video_cli.cli.terminal import Status, clean, clean_line, say
from gpt4video_cli.errors import ExitCode

models = typer.Typer(
    help="List, fetch, check and remove models.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@models.callback()
def _models() -> None:
    """List, fetch, check and remove models."""


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A model of gpt4video models list.", autocompletion=card_names)
]


@models.command("list", short_help="Which models are here, and which can be fetched.")
def list_(
    json: Json = False, quiet: Quiet = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False
) -> int:
    """List all models that the program knows: on this machine, half fetched, or to be fetched.

    Sizes are of what lies on the disk; with ~ they are estimates from the number of parameters, at two bytes each.
    """
    from gpt4video_cli.weights.installed import AVAILABLE, entries

    found = entries()
    if json:
        from dataclasses import asdict

        from gpt4video_cli.cli.render import print_json

        print_json({"models": [asdict(entry) for entry in found]})
        return int(ExitCode.DONE)
    rows = []
    for entry in found:
        size = "?" if entry.bytes is None else ("~" if entry.state == AVAILABLE else "") + human(entry.bytes)
        rows.append((entry.name, entry.kind, entry.state, size, entry.licence))
    print_table(("NAME", "KIND", "STATE", "SIZE", "LICENCE"), rows)
    for entry in found:
        if entry.licence == "?" and not quiet:  # its card cannot be read: the reason stands where the summary would
            say(entry.summary)
    return int(ExitCode.DONE)


@models.command(short_help="What a model is, needs and cannot do.")
def show(name: Name, json: Json = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """Show a model's card: what it is, its licence, where it comes from, memory by precision, limits, measurements."""
    from gpt4video_cli.weights import installed

    about = installed.about(name)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json(about)
        return int(ExitCode.DONE)
    for key, value in about.items():
        if isinstance(value, list):
            print(f"{key}:")
            for item in value:
                print(f"  - {clean_line(str(item))}")
        elif isinstance(value, dict):
            print(f"{key}:")
            for line in _nested(value):
                print(f"  {line}")
        elif value not in (None, ""):
            print(f"{key}: {clean_line(str(value))}")
    return int(ExitCode.DONE)


def _nested(values: dict[str, object], before: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _nested(value, f"{before}{key}.")
        else:
            lines.append(clean(f"{before}{key}: {value}"))
    return lines


@models.command(short_help="Hash a fetched model's files again.")
def verify(
    name: Name,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take faulty files away, so that pull fetches them.")
    ] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Compare every file of a fetched model with the hash that it had then; ends with exit code 4 if one differs."""
    from gpt4video_cli.weights import installed

    with Status("hashing ...", quiet=quiet):
        count, found = installed.faults(name)
        if found and repair:
            installed.drop_faulty(name)
    for line in found:
        print(clean_line(line), flush=True)
    if not found:
        print(f"{clean_line(name)}: {count} files are as they were fetched", flush=True)
    elif not quiet:
        say(f"gpt4video models pull {name} fetches them again" if repair else "--repair takes faulty files away")
    return int(ExitCode.WEIGHTS if found else ExitCode.DONE)


@models.command(short_help="The folder that a model is loaded from.")
def path(name: Name, no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """Print the folder that a model is loaded from; exit code 4 where it is not here."""
    from gpt4video_cli.weights import installed

    print(clean_line(str(installed.path_of(name))), flush=True)
    return int(ExitCode.DONE)


@models.command(short_help="Remove a fetched or trained model.")
def rm(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Remove a model's folder and the files that its pull brought; says what that frees.

    Files that another model uses, or that were in the Hugging Face cache before, stay.
    """
    from gpt4video_cli.weights import installed

    removal = installed.plan_removal(name)
    places = [str(removal.folder)] if removal.folder else []
    places += [f"{len(files)} files of {part.repository}" for part, files in removal.parts if files]
    say(f"frees {human(removal.bytes)}: {', '.join(places) or 'its lock file'}", style="0")
    for line in removal.kept:
        say(f"stays: {line}")
    if not yes:
        confirm("Remove it?", refused="not removed", yes="--yes removes it")
    installed.remove(removal)
    return int(ExitCode.DONE)


models.command(short_help="Fetch a model's weights.")(pull)
models.command("import", short_help="Convert weights that you have.")(import_)
models.command(short_help="Write the language model as GGUF, for llama.cpp.")(export)


@models.command(short_help="Fold an adapter into its language model.")
def merge(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A model with an adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The new model folder.")],
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Write a model whose adapter is part of its language model's weights, for programs that know no adapters."""
    from gpt4video_cli.training.merge import merge_adapter

    with Status("merging ...", quiet=quiet):
        folder = merge_adapter(model, output)
    print(clean_line(str(folder)), flush=True)
    return int(ExitCode.DONE)
