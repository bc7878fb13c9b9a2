"""Which options the configuration file and the environment may set, and what kind of value each takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SECTIONS = ("chat", "generate", "batch", "frames")
"""Commands with a section of their own in the file. Of the others only what is in ``SHARED`` can be set."""

_TALKING = ("chat", "batch")
_ANSWERING = ("chat", "generate", "batch")
SHARED: dict[str, tuple[str, ...]] = {
    # What decides an answer stays out of `replay`, which needs the conversation's own, and out of training.
    **dict.fromkeys("model generator engine adapter context_length".split(), _ANSWERING),
    **dict.fromkeys("temperature top_p top_k repetition_penalty max_tokens stop sampling".split(), _TALKING),
    **dict.fromkeys("device threads gpu_layers flash_attention kv_type".split(), ()),
    **dict.fromkeys("time_limit url_size url_time no_cache no_save no_preview".split(), ()),
    **dict.fromkeys("policy no_guard".split(), ()),
    **dict.fromkeys("no_color plain quiet verbose debug".split(), ()),
}
"""Keys that may stand at the top of the file, and the commands that they hold for; none named: all that have them.
Options of the same name and different meaning, such as --frames, have a place in the sections only."""

ONE_RUN = frozenset(
    "allow_private_urls ask at describe dry_run end errors explain force from generate html json last limit log output "
    "prompt ray resume schema shard start strength template var video yes".split()
)
"""Options that say what one run is about, where its results go or what a person agrees to: by flag only."""

_LASTING = {("chat", "output")}
"""Exceptions from ``ONE_RUN``: for `chat` --output is a folder, and no result is lost if it is always the same."""

FOLDERS = frozenset(["output", "films"])
"""Options that name a folder, and nothing else."""

PLACES = FOLDERS | {"model", "generator", "policy", "adapter"}
"""Options that may name a file or a folder; in the file, relative ones start in its own folder."""

_MOMENTS: dict[str, tuple[str, ...]] = {
    "frames": ("fps", "at"),
    "fps": ("frames", "at"),
    "max_frames": ("frames", "at"),
}
_SCHEMA = {"stop": ("schema",)}
_ORDERED = (
    "samples seed frames fps size steps guidance guidance_pass guidance_until cache_threshold cache_every scheduler "
    "negative generator dtype"
).split()
GIVES_WAY: dict[str, dict[str, tuple[str, ...]]] = {
    "chat": {**_MOMENTS, **_SCHEMA, "model": ("resume", "last"), "no_generate": ("yes", "ask")},
    "batch": {**_MOMENTS, **_SCHEMA, "device": ("ray",)},
    "frames": _MOMENTS,
    "generate": dict.fromkeys(_ORDERED, ("from", "resume")),
}
"""Command -> option -> the options that it contradicts. It is left out where a stronger source has one of them, so
that ``--fps 2`` works although the file says ``frames = 8``, and a clip is made again as it was."""

LOUDNESS = {"quiet": ("verbose", "debug"), "verbose": ("quiet",)}
"""The same for all commands."""


@dataclass(frozen=True)
class Configurable:
    """An option as the configuration sees it. ``name`` is its parameter's, ``key`` that in the file (``max_tokens``).

    ``kind`` is str, int, float or bool; ``many``: a list of them.
    """

    key: str
    name: str
    kind: type
    many: bool
    default: Any
    metavar: str
    about: str


def option_key(param: Any) -> str:
    """``max_tokens`` for ``--max-tokens``; the name of the parameter may be another one (``from``)."""
    return str(max(param.opts, key=len)).lstrip("-").replace("-", "_")


def configurable(command: str, params: Iterable[Any]) -> dict[str, Configurable]:
    """Key -> option, of the parameters of ``command`` (such as ``chat`` or ``models pull``)."""
    found = {}
    for param in params:
        if param.param_type_name != "option":
            continue
        key = option_key(param)
        own = command in SECTIONS and (key not in ONE_RUN or (command, key) in _LASTING)
        if not own and not holds_for(key, command):
            continue
        default = param.default
        found[key] = Configurable(
            key=key,
            name=param.name,
            kind=_kind(param),
            many=bool(param.multiple),
            default=None if callable(default) else default,
            metavar=param.metavar or "",
            about=param.help or "",
        )
    return found


def holds_for(key: str, command: str) -> bool:
    """Whether a key at the top of the file is meant for ``command``, if that has the option at all."""
    return key in SHARED and (not SHARED[key] or command in SHARED[key])


def _kind(param: Any) -> type:
    if param.is_flag:
        return bool
    described = getattr(param, "type_descriptor", None)  # typer since 0.26; before, types are click's
    text = str(described.annotation) if described is not None else str(param.type.name)
    if re.search(r"\bint(eger)?\b", text):
        return int
    return float if "float" in text else str
