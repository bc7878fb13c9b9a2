"""``gpt4video templates``: prompts that are kept under a name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain
from gpt4video_cli.cli.table import print_table
from gpt4video_cli.cli.template_options import open_prompts, template_names
from gpt4video_cli.cli.terminal import clean, clean_line, say
from gpt4video_cli.errors import ExitCode, InputError, UsageError

templates = typer.Typer(
    help="List, read, write and remove saved prompts.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A template of gpt4video templates list.", autocompletion=template_names)
]


@templates.callback()
def _templates() -> None:
    """List, read, write and remove saved prompts.

    A saved prompt may have variables: "What is {colour}?" is asked with --template NAME --var colour=red, and with
    "What is {colour=red}?" red is meant where nothing is given. {{ and }} are braces.
    """


@templates.command("list", short_help="Which saved prompts there are.")
def list_(json: Json = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """List the saved prompts: name, variables (with their own values) and text."""
    store = open_prompts()
    rows: list[dict[str, Any]] = []
    for name in store.names():
        try:
            prompt = store.load(name)
        except InputError as error:
            say(f"note: {error}")
            continue
        rows.append({"name": name, "variables": dict(prompt.variables), "text": prompt.text})
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"folder": str(store.folder), "templates": rows})
        return int(ExitCode.DONE)
    if not rows:
        say(f"no saved prompts in {store.folder}", style="0")
        return int(ExitCode.DONE)
    table = []
    for row in rows:
        variables = [name if value is None else f"{name}={value}" for name, value in row["variables"].items()]
        table.append((row["name"], " ".join(variables), row["text"]))
    print_table(("NAME", "VARIABLES", "TEXT"), table)
    return int(ExitCode.DONE)


@templates.command(short_help="Read a saved prompt.")
def show(name: Name, json: Json = False, no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """Print the text of a saved prompt as it was written."""
    prompt = open_prompts().load(name)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"name": name, "variables": dict(prompt.variables), "text": prompt.text})
        return int(ExitCode.DONE)
    print(clean(prompt.text), flush=True)
    return int(ExitCode.DONE)


@templates.command(short_help="Keep a prompt.")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.", show_default=False)],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The prompt; '-' or nothing reads it from stdin.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a template of this name.")] = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Keep a prompt under a name; print its file, which any editor can change."""
    from gpt4video_cli.cli.chat import read_prompt

    content = read_prompt(text)
    if content is None:
        raise UsageError("there is no text to keep", hint='gpt4video templates new NAME "What is {colour}?"')
    store = open_prompts()
    prompt = store.keep(name, content, replace=force)
    if prompt.variables:
        say(f"variables: {', '.join(prompt.variables)}")
    print(clean_line(str(store.path(name))), flush=True)
    return int(ExitCode.DONE)


@templates.command(short_help="Remove saved prompts.")
def rm(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Which templates.", autocompletion=template_names, show_default=False),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Remove saved prompts."""
    from gpt4video_cli.cli.confirm import confirm

    store = open_prompts()
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in store.names():
            store.load(name)  # raises, with the nearest names
    if not yes:
        confirm(f"Remove {', '.join(map(clean_line, chosen))}?", refused="not removed", yes="--yes removes it")
    for name in chosen:
        store.remove(name)
    return int(ExitCode.DONE)
