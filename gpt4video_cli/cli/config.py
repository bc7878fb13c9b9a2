"""``gpt4video config``: what is set for good, where each value comes from, and a file to begin with."""

from __future__ import annotations

import json as json_text
import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gpt4video_cli.cli.completion import section_names
from gpt4video_cli.cli.configurable import SECTIONS, SHARED, Configurable
from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain
from gpt4video_cli.cli.terminal import clean_line, say
from gpt4video_cli.errors import ExitCode, UsageError

config = typer.Typer(
    help="See and write what is set for good.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DEFAULT = "default"


@config.callback()
def _config() -> None:
    """See and write what is set for good.

    An option can be set in the configuration file, by a variable such as GPT4VIDEO_MODEL (for all commands) or
    GPT4VIDEO_CHAT_MODEL (for one), or by its flag. A flag goes before a variable, a variable before the file.
    """


@config.command(short_help="What holds for each command.")
def show(
    command: Annotated[
        str | None,
        typer.Argument(
            metavar="COMMAND", help=f"One of {', '.join(SECTIONS)}.", autocompletion=section_names, show_default=False
        ),
    ] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the program's own default.")] = False,
    json: Json = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Print what holds for each command, as it could stand in the file. All of the file is checked.

    What is not set and has no default of its own, because the model decides or it is off, is not printed.
    """
    from gpt4video_cli.cli.config_file import read_config
    from gpt4video_cli.cli.configuration import options_of, settings_by_command
    from gpt4video_cli.cli.folders import config_file

    if command is not None and command not in SECTIONS:
        raise UsageError(f"no section {command!r}", hint=f"there are {', '.join(SECTIONS)}")
    file = read_config(config_file())
    shown: dict[str, dict[str, dict[str, Any]]] = {}
    for name, found in settings_by_command(file).items():
        options = options_of(name)
        values = {key: {"value": option.default, "origin": DEFAULT} for key, option in options.items()}
        values |= {key: {"value": setting.value, "origin": setting.origin} for key, setting in found.items()}
        if changed:
            values = {key: values[key] for key in options if key in found}
        if command in (None, name):
            shown[name] = values
    _warn_of_variables()
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({"file": str(file.path), "exists": file.path.exists(), "commands": shown})
        return int(ExitCode.DONE)
    if not file.path.exists():
        say(f"note: {file.path} does not exist; gpt4video config init writes it")
    blocks = [_block(name, values, origin=origin) for name, values in shown.items()]
    print("\n\n".join(block for block in blocks if block), flush=True)
    return int(ExitCode.DONE)


@config.command(short_help="The file's path.")
def path(no_color: NoColor = False, plain: Plain = False, debug: Debug = False) -> int:
    """Print the path of the configuration file, whether it exists or not."""
    from gpt4video_cli.cli.folders import config_file

    print(clean_line(str(config_file())), flush=True)
    return int(ExitCode.DONE)


@config.command(short_help="Write a file to begin with.")
def init(
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if there is one.")] = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Write a configuration file in which every option stands behind a #, with what it means; print its path."""
    from gpt4video_cli.cli.configuration import options_of
    from gpt4video_cli.cli.folders import config_file
    from gpt4video_cli.errors import Gpt4VideoError
    from gpt4video_cli.whole_file import write_whole

    target = config_file()
    if os.path.lexists(target) and not force:
        raise UsageError(f"{target} exists", hint="edit it, or --force replaces it")
    try:
        write_whole(target, commented_file({name: options_of(name) for name in SECTIONS}))
    except OSError as error:
        raise Gpt4VideoError(f"{target}: cannot be written: {error.strerror or error}") from error
    print(clean_line(str(target)), flush=True)
    return int(ExitCode.DONE)


def commented_file(options: Mapping[str, Mapping[str, Configurable]]) -> str:
    """A configuration file that sets nothing: every key of ``options``, by command, behind a ``#``."""
    lines = [
        "# What is set for good. Take away the # before a key, and write a value behind its =.",
        "# Flags and variables such as GPT4VIDEO_MODEL go before this file.",
        "",
        "# For all commands that have the option:",
    ]
    for key in SHARED:
        known = [by_key[key] for by_key in options.values() if key in by_key]
        lines += _commented(known[0]) if known else []
    for command, by_key in options.items():
        lines += ["", f"[{command}]"]
        for key, option in by_key.items():
            lines += _commented(option) if key not in SHARED else []
    return "\n".join(lines) + "\n"


def _commented(option: Configurable) -> list[str]:
    value = option.metavar  # stands for what a person writes there
    if option.default is not None:
        value = _toml(option.default)
    elif option.kind is str:
        value = _toml([value] if option.many else value)
    return [f"# {option.about}", f"#{option.key} = {value}"]


def _block(command: str, values: dict[str, dict[str, Any]], *, origin: bool) -> str:
    lines = []
    for key, one in values.items():
        if one["value"] is None:
            continue
        line = f"{key} = {_toml(one['value'])}"
        lines.append(clean_line(f"{line:<32}  # {one['origin']}" if origin else line))
    return "\n".join([f"[{command}]", *lines]) if lines else ""


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON writes texts, lists, numbers and truth values in the same way."""
    return json_text.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _warn_of_variables() -> None:
    from difflib import get_close_matches

    from gpt4video_cli.cli.configuration import PREFIX, known_variables

    known = sorted(known_variables())
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            say(f"note: the variable {name} means nothing here" + (f"; did you mean {near[0]}?" if near else ""))
