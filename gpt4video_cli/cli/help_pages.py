"""The help pages as Markdown: ``python -m gpt4video_cli.cli.help_pages docs/commands`` writes one file a command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from gpt4video_cli.cli.app import app
from gpt4video_cli.whole_file import write_whole

WIDTH = 78
"""Columns of a page, as on a terminal of 80."""
MADE_BY = "<!-- Written by: python -m gpt4video_cli.cli.help_pages docs/commands -->"


def every_command() -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """The words of each command, the command with its options, and a context for it: the program first."""
    return _below(typer.main.get_command(app), ("gpt4video",), None)


def _below(command: Any, words: tuple[str, ...], parent: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = command.context_class(command, info_name=words[-1], parent=parent, **settings)
    yield words, command, context
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [name])
            yield from _below(found, (*words, name), context)


def pages() -> dict[str, str]:
    """File name -> Markdown: a file for the program itself, and one for each command with those below it."""
    found: dict[str, str] = {}
    for words, command, context in every_command():
        name = "README.md" if len(words) == 1 else f"{words[1]}.md"
        page = f"```text\n{command.get_help(context).strip()}\n```\n"
        if len(words) == 1:
            found[name] = f"# The commands\n\n{page}\n"
            continue
        level = "#" if len(words) == 2 else "##"
        found[name] = found.get(name, "") + f"{level} {' '.join(words)}\n\n{page}\n"
        if len(words) == 2:
            found["README.md"] += f"- [{' '.join(words)}]({name})\n"
    return {name: f"{MADE_BY}\n\n{text.rstrip()}\n" for name, text in found.items()}


def main(arguments: list[str]) -> int:
    """Write the pages into the folder that is named, and take away those of commands that are gone."""
    if len(arguments) != 1:
        print("error: name the folder: python -m gpt4video_cli.cli.help_pages docs/commands", file=sys.stderr)
        return 2
    folder, made = Path(arguments[0]), pages()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        write_whole(folder / name, text)
    for old in folder.glob("*.md"):
        if old.name not in made and old.read_text(encoding="utf-8").startswith(MADE_BY):
            old.unlink()
    print(f"{folder}: {len(made)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
