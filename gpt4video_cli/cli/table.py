"""Tables on stdout that fit the terminal: in columns, or where it is narrow a few lines for each row.

Into a file or a pipe a table is always in columns and uncut: what a script reads does not depend on who watches.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from gpt4video_cli.cli.terminal import cells, clean_line, columns, is_plain

NARROWEST = 20
"""Columns of the last cell. With less room for it the table becomes lines."""
_GAP = 2


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows`` below ``headings``; each row has a cell for every heading. Cells are cleaned.

    On a terminal the last cell is cut to what is left of the line. With ``--plain`` each row is one line that names
    every cell, because a screen reader does not say which column it is in.
    """
    table = [[clean_line(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(cells(row[place]) for row in table) for place in range(len(headings) - 1)]
    terminal = sys.stdout.isatty()
    room = columns(sys.stdout) - 1 - sum(width + _GAP for width in widths)
    if terminal and is_plain():
        lines = [_named(table[0], row, ", ") for row in table[1:]]
    elif terminal and room < min(NARROWEST, max(cells(row[-1]) for row in table)):
        lines = [line for row in table[1:] for line in _stacked(table[0], row, columns(sys.stdout) - 1)]
    else:
        lines = [_in_columns(row, widths, room if terminal else None) for row in table]
    print("\n".join(lines), flush=True)


def _in_columns(row: Sequence[str], widths: Sequence[int], room: int | None) -> str:
    padded = [cell + " " * (width + _GAP - cells(cell)) for cell, width in zip(row, widths)]
    last = row[-1]
    while room is not None and cells(last) > room:
        last = last[:-1]
    return "".join([*padded, last]).rstrip()


def _named(headings: Sequence[str], row: Sequence[str], between: str) -> str:
    return between.join(f"{heading.lower()} {cell}" for heading, cell in zip(headings, row) if cell)


def _stacked(headings: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """The first cell on a line of its own, the others below it, the last one from the beginning of a line."""
    middle = _named(headings[1:-1], row[1:-1], ", ")
    parts = [row[0], *(f"  {part}" for part in (middle, row[-1]) if part)]
    return [line for part in parts for line in textwrap.wrap(part, max(NARROWEST, width), subsequent_indent="    ")]
