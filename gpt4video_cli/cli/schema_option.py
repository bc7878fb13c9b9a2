"""``--schema FILE``: the answer is one JSON document. Read and refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.errors import UsageError

if TYPE_CHECKING:
    from gpt4video_cli.model.placement import LoadWish
    from gpt4video_cli.weights.card import Card

Schema = Annotated[
    str | None,
    typer.Option("--schema", metavar="FILE", help="Answer with one JSON document of this JSON schema; film nothing."),
]


def schema_text(path: str | None, **others: object) -> str | None:
    """The schema in the file as ``SamplingOptions`` takes it. ``others``: options by their names that cannot be given
    beside it, such as one that films."""
    if path is None:
        return None
    for name, value in others.items():
        if value:
            raise UsageError(f"--schema and --{name.replace('_', '-')} contradict each other")
    from gpt4video_cli.language.json_schema import read_schema

    return read_schema(path)


def check_grammar(schema: str | None, card: Card, folder: Path, loading: LoadWish) -> None:
    """Where the engine that will be chosen writes under a grammar, raise ``UsageError`` for a schema without one."""
    if schema is None:
        return
    from gpt4video_cli.language.choose_engine import choose_engine
    from gpt4video_cli.language.json_grammar import grammar_of

    if choose_engine(folder, card.name, loading).name == "llama":
        grammar_of(schema)
