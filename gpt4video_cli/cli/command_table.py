"""Which commands there are, one line about each, and where each is written.

A command's module is imported, and its options are built, when the command is called or its page is asked for: with all
of them at every start, ``--help`` took 0.15 s longer (2 cores). ``gpt4video --help`` and the completion of names need
this table only.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer

from gpt4video_cli.cli.option_panels import PanelCommand, PanelGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "chat": ("chat:chat", "Talk about clips."),
    "generate": ("generate:generate", "Film a text."),
    "batch": ("batch:batch", "Answer many jobs."),
    "probe": ("probe:probe", "Say what is in a clip."),
    "frames": ("frames:frames", "Show what is seen of a clip, and when."),
    "sessions": ("sessions:sessions", "Work with the conversations that were kept."),
    "replay": ("replay:replay", "Ask everything in a conversation again."),
    "train": ("train:train", "Train a model."),
    "models": ("models:models", "List, fetch, check and remove models."),
    "data": ("data:data", "Check and convert training data."),
    "cache": ("cache:cache", "See and clear what is kept of clips."),
    "safety": ("safety:safety", "Ask the safety guards."),
    "eval": ("eval:evaluation", "Measure guards and models."),
    "config": ("config:config", "See and write what is set for good."),
    "templates": ("templates:templates", "List, read, write and remove saved prompts."),
    "doctor": ("doctor:doctor", "Say what is installed and what is missing."),
}
"""Name: the module of this room and what it calls the command (a function, or a ``Typer`` with commands of its own),
and what the list of commands says about it: how its own page begins."""

HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class CommandTable(PanelGroup):
    """A group whose commands are only names and lines until one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The name, the command itself and the arguments that are left; see click."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known if name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """The command ``name`` with all its options, or with its own commands."""
    module, attribute = COMMANDS[name][0].split(":")
    found = getattr(import_module(f"gpt4video_cli.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        found.info.cls = PanelGroup
        for info in found.registered_commands:
            info.cls = PanelCommand
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP_NAMES)
    alone.command(name, cls=PanelCommand)(found)
    return typer.main.get_command(alone)


def add_names(app: typer.Typer) -> None:
    """Put every name and its line into ``app``, whose class is ``CommandTable``."""
    for name, (_, about) in COMMANDS.items():
        app.command(name, short_help=about)(_not_loaded)


def _not_loaded() -> None:
    raise RuntimeError("a command is called through CommandTable.resolve_command, which loads it")
