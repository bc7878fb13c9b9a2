"""What is refused: a threshold for each category, and which guards are on. Profiles, and a file (TOML, read strictly).

schema = 1
profile = "standard"        what the file starts from: standard (the default) or strict
[guards]
text = true                 all guards for text; false turns them off
frames = true               all guards for pictures
toxic-bert = false          one guard, by its name
[thresholds]                0..1: a score of this much or more is refused
violence = 0.7
[thresholds.toxic-bert]     the same for one guard alone
hate = 0.9

What involves minors is refused at every setting: its threshold can be lowered and not raised, and the shipped text
guard goes on looking for it where text guards are turned off.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.safety.categories import CATEGORIES, MINORS

SCHEMA = 1
TEXT, FRAMES = "text", "frames"
KINDS = (TEXT, FRAMES)
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Policy:
    """``name``: of the profile, or the file's path. ``off``: guards that are turned off, by kind or by name."""

    name: str
    thresholds: Mapping[str, float]
    """By category, of all guards."""
    by_guard: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Guard -> category -> threshold, before those of all guards."""
    off: frozenset[str] = frozenset()

    def threshold(self, guard: str, category: str) -> float:
        """A score of ``guard`` for ``category`` of this much or more is refused."""
        return self.by_guard.get(guard, {}).get(category, self.thresholds[category])

    def is_on(self, guard: str, kind: str) -> bool:
        """Whether the guard of this name and kind (``KINDS``) is asked."""
        return not self.off & {guard, kind}

    def without(self, names: Iterable[str], known: Iterable[str]) -> Policy:
        """The policy with more guards turned off; ``UsageError`` for a name that is neither a kind nor ``known``."""
        names = list(names)
        for name in names:
            _check_name(name, [*KINDS, *known], "guard")
        return replace(self, off=self.off | set(names))


# 0.5 is where a guard finds both equally likely. Strict refuses what is merely possible. Minors have one threshold, the
# strict one: the highest that any policy may set.
PROFILES: Mapping[str, Policy] = MappingProxyType(
    {
        "standard": Policy("standard", {category: 0.3 if category == MINORS else 0.5 for category in CATEGORIES}),
        "strict": Policy("strict", dict.fromkeys(CATEGORIES, 0.3)),
    }
)
STANDARD = PROFILES["standard"]


def find_policy(name_or_file: str, known: Iterable[str]) -> Policy:
    """A profile by its name, or the policy in a file. ``known``: names of the guards that there are.

    Raises ``UsageError`` for what is neither, and ``InputError`` with file and key for what is wrong in a file.
    """
    if name_or_file in PROFILES:
        return PROFILES[name_or_file]
    path = Path(name_or_file).expanduser()
    if not path.exists() and path.suffix != ".toml":
        _check_name(name_or_file, list(PROFILES), "policy")
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"{name_or_file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        if len(content) > _LARGEST_FILE:
            raise UsageError(f"too large for a policy (more than {_LARGEST_FILE} bytes)")
        return parse_policy(content.decode("utf-8"), name_or_file, known)
    except UnicodeDecodeError as error:
        raise InputError(f"{name_or_file}: not text in UTF-8") from error
    except UsageError as error:
        raise InputError(f"{name_or_file}: {error}", hint=error.hint) from error


def parse_policy(text: str, name: str, known: Iterable[str]) -> Policy:
    """The policy that ``text`` holds. Raises ``UsageError`` with the key."""
    known = list(known)
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"not valid TOML ({error})") from error
    for key in content:
        _check_name(key, ["schema", "profile", "guards", "thresholds"], "key")
    if content.get("schema") != SCHEMA:
        raise UsageError(f"schema is {content.get('schema')!r}; this program reads {SCHEMA}")
    profile = content.get("profile", STANDARD.name)
    if not isinstance(profile, str):
        raise UsageError(f"profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    _check_name(profile, list(PROFILES), "profile")
    base, off = PROFILES[profile], set()
    for guard, on in _table(content, "guards").items():
        _check_name(guard, [*KINDS, *known], "key guards.")
        if not isinstance(on, bool):
            raise UsageError(f"guards.{guard} is {on!r}; it must be true or false")
        if not on:
            off.add(guard)
    given = _table(content, "thresholds")
    by_guard = {
        key: _thresholds(value, f"thresholds.{key}.", base) for key, value in given.items() if isinstance(value, dict)
    }
    for guard in by_guard:
        _check_name(guard, known, "key thresholds.")
    own = {key: value for key, value in given.items() if key not in by_guard}
    thresholds = {**base.thresholds, **_thresholds(own, "thresholds.", base, others=known)}
    return Policy(name, thresholds, by_guard, frozenset(off))


def _thresholds(table: Mapping[str, Any], where: str, base: Policy, others: Iterable[str] = ()) -> dict[str, float]:
    found = {}
    for category, value in table.items():
        if category not in CATEGORIES:
            _check_name(category, [*CATEGORIES, *others], f"key {where}")
            raise UsageError(f"{where}{category} is {value!r}; it must be a table of thresholds by category")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise UsageError(f"{where}{category} is {value!r}; it must be a number above 0, at most 1")
        most = base.thresholds[MINORS]
        if category == MINORS and value > most:
            raise UsageError(f"{where}{category} is {value}; what involves minors is refused from {most:g} on, or less")
        found[category] = float(value)
    return found


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} must be a table")
    return table


def _check_name(name: str, known: list[str], what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    space = "" if what.endswith(".") else " "
    raise UsageError(f"unknown {what}{space}{name}", hint=hint)
