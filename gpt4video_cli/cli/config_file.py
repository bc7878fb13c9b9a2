"""The configuration file: TOML with one section for each command, and keys for several commands before them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gpt4video_cli.cli.configurable import FOLDERS, ONE_RUN, PLACES, SECTIONS, SHARED, Configurable
from gpt4video_cli.cli.folders import CONFIG_VARIABLE
from gpt4video_cli.errors import InputError

LARGEST_FILE = 1 << 20
"""Bytes."""
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True)
class ConfigFile:
    """The keys of a file as they are written, but with ``_`` for ``-``: those of several commands, and by command."""

    path: Path
    shared: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def section(self, command: str, options: Iterable[str]) -> dict[str, Any]:
        """The keys for ``command`` alone. Raises ``InputError`` for one that is not among ``options``."""
        found = self.sections.get(command, {})
        for key in found:
            if key not in options:
                raise self._unknown(key, command, options)
        return found

    def value(self, option: Configurable, value: Any, section: str = "") -> Any:
        """``value`` of the file as ``option`` takes it. Raises ``InputError`` for one of another kind."""
        items = value if option.many and isinstance(value, list) else [value]
        checked = []
        for item in items:
            fits = type(item) is option.kind or (option.kind is float and type(item) is int)
            if not fits:
                where = f"{section}.{option.key}" if section else option.key
                more = ", or a list of them" if option.many else ""
                shown = str(value).lower() if isinstance(value, bool) else repr(value)
                raise InputError(f"{self.path}: {where} is {shown}; it must be {KINDS[option.kind]}{more}")
            checked.append(self._place(item, option.key) if option.key in PLACES else item)
        return checked if option.many else checked[0]

    def _place(self, text: str, key: str) -> str:
        """A path of the file as one from anywhere. Names, such as those of models, stay, and so does ``.``, which is
        wherever the program is called."""
        if text.startswith("~"):
            return os.path.expanduser(text)
        is_path = "/" in text or text.endswith(".toml") or (key in FOLDERS and text != ".")
        return str(self.path.parent / text) if is_path else text

    def _unknown(self, key: str, section: str, known: Iterable[str]) -> InputError:
        where = f"{section}.{key}" if section else key
        if section and key in ONE_RUN:
            flag = "--" + key.replace("_", "-")
            return InputError(f"{self.path}: {where} is said for each run", hint=f"give {flag} on the command line")
        if not section and (homes := _sections_with(key)):
            hint = f"it has a place in {' and '.join(f'[{name}]' for name in homes)}"
        elif near := get_close_matches(key, list(known), n=2, cutoff=0.6):
            hint = f"did you mean {' or '.join(near)}?"
        else:
            hint = "gpt4video config show lists the keys, in their sections"
        return InputError(f"{self.path}: unknown key {where}", hint=hint)


def read_config(path: Path) -> ConfigFile:
    """The file, empty where there is none. Raises ``InputError`` for what can be told without knowing the commands."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(CONFIG_VARIABLE):
            raise InputError(f"{path}: no such file", hint=f"{CONFIG_VARIABLE} names it") from None
        return ConfigFile(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    import tomllib

    if len(content) > LARGEST_FILE:
        raise InputError(f"{path}: too large for a configuration (more than {LARGEST_FILE} bytes)")
    try:
        written = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from error
    sections = {name: written.pop(name) for name in SECTIONS if name in written}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise InputError(f"{path}: {name} is {section!r}; it must be a section, [{name}]")
    found = ConfigFile(path, _keys(path, written), {name: _keys(path, keys, name) for name, keys in sections.items()})
    for key, value in found.shared.items():
        if key not in SHARED:
            raise found._unknown(key, "", SECTIONS if isinstance(value, dict) else [*SHARED, *SECTIONS])
    return found


def _keys(path: Path, written: dict[str, Any], section: str = "") -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, value in written.items():
        key = name.replace("-", "_")
        if key in keys:
            raise InputError(f"{path}: {section + '.' if section else ''}{key} stands there twice, with - and with _")
        keys[key] = value
    return keys


def _sections_with(key: str) -> list[str]:
    """The commands that have an option ``key``; imports them, which only an error is worth."""
    from gpt4video_cli.cli.configuration import options_of

    return [command for command in SECTIONS if key in options_of(command)]
