"""Help pages on which options of one kind stand together, and options whose value may be left out.

Typer draws its panels with rich, as boxes; here they are headings, for which nothing is imported and which a screen
reader reads line by line.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

LOOKING = "Looking at clips"
ANSWERING = "Answering"
MODEL = "Model and machine"
FILMING = "Filming"
KEEPING = "Keeping the conversation"
SAFETY = "Safety"
OUTPUT = "Output"
RUNNING = "The run"
TRAINING = "Training"

NARROW = 60
"""Columns. On narrower terminals an explanation stands below its option, except beside a very short one."""
NARROWEST = 20


class PanelCommand(TyperCommand):
    """A command whose page lists its options by ``rich_help_panel``, those without one first.

    An option whose metavar is in brackets, such as ``[ID]``, may be given without a value; its value is then "".
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options by panel; see click."""
        _write_options(self, ctx, formatter)

    def get_params(self, ctx: Any) -> Any:
        """See click."""
        return _settled(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click. What the person has set for good becomes the options' defaults."""
        from gpt4video_cli.cli.configuration import use_configuration

        use_configuration(self, ctx, args)
        return super().parse_args(ctx, self.with_values(args))

    def with_values(self, args: Sequence[str]) -> list[str]:
        """``args`` with an empty value after each option that may be, and is, without one; none comes after ``--``."""
        bare = {
            name
            for param in self.params
            if (getattr(param, "metavar", None) or "").startswith("[") and param.param_type_name == "option"
            for name in param.opts
        }
        filled: list[str] = []
        end = list(args).index("--") if "--" in args else len(args)
        for place, word in enumerate(args):
            filled.append(word)
            follows = args[place + 1] if place + 1 < len(args) else "-"
            if place < end and word in bare and follows.startswith("-"):
                filled.append("")
        return filled


class PanelGroup(TyperGroup):
    """A group of commands whose page has the same form."""

    def get_params(self, ctx: Any) -> Any:
        """See click."""
        return _settled(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The group's own options, then its commands; see click."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def help_width() -> int:
    """Columns of a help page: click's own choice, but for terminals that are narrower than its least, 50."""
    return max(NARROWEST, min(80, shutil.get_terminal_size().columns) - 2)


def _settled(params: Any) -> Any:
    """``params``, where flags like --help that were not given are False.

    With None, typer 0.29 imports pydantic to find out that None is no bool, which takes longer than all the rest of a
    page: 0.12 s of 0.22 s (2 cores).
    """
    for param in params:
        if getattr(param, "is_flag", False) and not param.expose_value and param.default is None:
            param.default = False
    return params


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Panels come in the order in which each appears first, but what every command has is last."""
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            panel = OUTPUT if param.name == "help" else getattr(param, "rich_help_panel", None)
            panels.setdefault(panel or kind, []).append(record)
    panels[OUTPUT] = panels.pop(OUTPUT, [])
    widest = 30 if formatter.width >= NARROW else 8
    for heading, rows in panels.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=widest)
