"""Let a model folder inside the package be the one that ships: its card goes among the program's cards.

python -m gpt4video_cli.recipes.ship gpt4video_cli/bundle/model model_cards/bundle.toml
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from gpt4video_cli.weights.card import FILE_NAME, read_card, render_card
from gpt4video_cli.whole_file import write_whole


def ship(folder: Path, card: Path) -> None:
    """Write ``card``, which says that the weights are package data, in place of the one in ``folder``."""
    own = folder / FILE_NAME
    package, inside = ".".join(folder.parts[:-1]), folder.name
    write_whole(card, render_card(replace(read_card(own), folder=f"package:{package}/{inside}")))
    own.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m gpt4video_cli.recipes.ship FOLDER CARD")
    ship(Path(sys.argv[1]), Path(sys.argv[2]))
