"""What a person has set for good: the configuration file and ``GPT4VIDEO_*`` variables, as defaults of the options.

A flag goes before a variable, a variable before the file, the file before the program's own default. What is set
becomes the option's default, so that the code which checks flags checks it too, and no command asks where it is from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

from gpt4video_cli.cli.config_file import KINDS, ConfigFile, read_config
from gpt4video_cli.cli.configurable import (
    GIVES_WAY,
    LOUDNESS,
    SECTIONS,
    SHARED,
    Configurable,
    configurable,
    holds_for,
    option_key,
)
from gpt4video_cli.cli.folders import CONFIG_VARIABLE, config_file
from gpt4video_cli.cli.options import switches
from gpt4video_cli.errors import UsageError

PREFIX = "GPT4VIDEO_"
OTHER_VARIABLES = ("GPT4VIDEO_HOME", CONFIG_VARIABLE, "GPT4VIDEO_CACHE_SIZE")
"""Variables that are no options."""
_REPAIR = ("config", "doctor")
_SWITCH = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_FILE, _FILE_SECTION, _VARIABLE, _OWN_VARIABLE, _FLAG = range(5)


@dataclass(frozen=True)
class Setting:
    """A value that was set. ``origin`` says where, for a person; of two sources the one of more ``strength`` holds."""

    value: Any
    origin: str
    strength: int


def use_configuration(command: Any, context: Any, arguments: Sequence[str]) -> None:
    """Make what was set the defaults of ``command``, which is about to read ``arguments``; both are click's.

    Raises ``InputError`` for a wrong file, ``UsageError`` for a wrong variable. A page of help comes whatever is set,
    and so do the commands that say what is wrong and repair it.
    """
    names: list[str] = []
    at = context
    while at.parent is not None:
        names.insert(0, str(at.info_name))
        at = at.parent
    if context.resilient_parsing or {"-h", "--help"} & set(arguments) or set(names[:1]) & set(_REPAIR):
        return
    name = " ".join(names)
    file = read_config(config_file())
    if not (file.shared or file.sections or any(variable.startswith(PREFIX) for variable in os.environ)):
        return
    options = configurable(name, command.params)
    found = settings(name, options, file, given=_given(command, arguments))
    switches.settings = found
    context.default_map = {options[key].name: setting.value for key, setting in found.items()}


def settings(
    command: str,
    options: Mapping[str, Configurable],
    file: ConfigFile,
    environment: Mapping[str, str] = os.environ,
    given: Set[str] = frozenset(),
) -> dict[str, Setting]:
    """Key -> what holds for ``command`` where no flag says otherwise; ``given``: keys whose flags are given.

    Raises ``InputError`` for what is wrong in ``file``, ``UsageError`` for what is wrong in ``environment``.
    """
    section = file.section(command, options)
    found: dict[str, Setting] = {}
    for key, option in options.items():
        shared = holds_for(key, command)
        if shared and key in file.shared:
            found[key] = Setting(file.value(option, file.shared[key]), str(file.path), _FILE)
        if key in section:
            origin = f"[{command}] in {file.path}"
            found[key] = Setting(file.value(option, section[key], command), origin, _FILE_SECTION)
        for strength, variable in _variables(option, command, shared=shared):
            if environment.get(variable):
                found[key] = Setting(_from_text(option, environment[variable], variable), variable, strength)
    strengths = {key: setting.strength for key, setting in found.items()} | dict.fromkeys(given, _FLAG)
    for key, rivals in {**LOUDNESS, **GIVES_WAY.get(command, {})}.items():
        if key in found and any(strengths.get(rival, -1) > strengths[key] for rival in rivals):
            del found[key]
    return {key: setting for key, setting in found.items() if key not in given}


@cache
def options_of(command: str) -> Mapping[str, Configurable]:
    """Key -> option of a command by its name; imports it."""
    from gpt4video_cli.cli.command_table import load_command

    return configurable(command, load_command(command).params)


def settings_by_command(file: ConfigFile | None = None) -> dict[str, dict[str, Setting]]:
    """What is set for each command with a section; imports them, and checks all of the file."""
    file = file or read_config(config_file())
    return {command: settings(command, options_of(command), file) for command in SECTIONS}


def known_variables() -> set[str]:
    """Every variable that means something to the program; imports the commands with a section."""
    found = {*OTHER_VARIABLES, *(PREFIX + key.upper() for key in SHARED)}
    for command in SECTIONS:
        for option in options_of(command).values():
            found.update(variable for _, variable in _variables(option, command, shared=False))
    return found


def where_set(*keys: str) -> str:
    """`` (no_guard is set in FILE)`` for those of ``keys`` that were not given by a flag; else nothing."""
    return _said({key: switches.settings[key] for key in keys if key in switches.settings})


def blame(message: str) -> str:
    """``where_set`` of what an error's ``message`` is about: options that it names, values that it quotes."""
    return _said({key: one for key, one in switches.settings.items() if _is_about(message, key, one.value)})


def _is_about(message: str, key: str, value: Any) -> bool:
    if re.search(rf"--{key.replace('_', '-')}(?![\w-])", message):
        return True
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    return any(repr(text) in message or message.startswith(f"{text}: ") for text in texts)


def _said(found: Mapping[str, Setting]) -> str:
    parts = [f"{key} is set in {setting.origin}" for key, setting in found.items()]
    return f" ({', '.join(parts)})" if parts else ""


def _variables(option: Configurable, command: str, *, shared: bool) -> Iterator[tuple[int, str]]:
    """The variables for an option, the stronger one last."""
    if shared:
        yield _VARIABLE, PREFIX + option.key.upper()
    if command in SECTIONS:
        yield _OWN_VARIABLE, f"{PREFIX}{command.upper()}_{option.key.upper()}"


def _from_text(option: Configurable, text: str, variable: str) -> Any:
    """A variable's text as ``option`` takes it. Several values stand on a line each."""
    if option.many:
        return [line for line in text.splitlines() if line.strip()]
    try:
        return _SWITCH[text.strip().lower()] if option.kind is bool else option.kind(text)
    except (KeyError, ValueError):
        kind = "1 or 0" if option.kind is bool else KINDS[option.kind]
        raise UsageError(f"{variable} is {text!r}; it must be {kind}") from None


def _given(command: Any, arguments: Sequence[str]) -> set[str]:
    """The keys of the options that are on the command line."""
    words = set()
    for word in arguments:
        if word == "--":
            break
        words.add(word.partition("=")[0] if word.startswith("--") else word)
    options = [param for param in command.params if param.param_type_name == "option"]
    return {option_key(param) for param in options if words & {*param.opts, *param.secondary_opts}}
