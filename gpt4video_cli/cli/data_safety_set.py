"""``gpt4video data safety-set``: training dialogues in which harm is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt4video_cli.cli.options import Debug, NoColor, Plain, Quiet
from gpt4video_cli.cli.terminal import DIM, clean_line, say
from gpt4video_cli.errors import ExitCode, UsageError

SHOWN = 5
"""Texts that gave no dialogue are named up to so many."""
STEP = 50
"""So many texts between two lines of progress."""


def safety_set(
    source: Annotated[Path, typer.Argument(metavar="RTP.JSONL", help="RealToxicityPrompts, as it is published.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The JSONL file to write.")],
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help="An OpenAI-compatible endpoint that writes the dialogues; else templates do."),
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="The endpoint's model.")] = "",
    per_kind: Annotated[int, typer.Option(metavar="N", min=1, help="Texts of each kind at most.")] = 1500,
    seed: Annotated[int, typer.Option(metavar="N", help="Which texts are taken.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Make dialogues with polite refusals from RealToxicityPrompts, for train --stage 2.

    Takes texts whose score for sexually explicit or severely toxic content is over 0.9. The texts are sent to the
    endpoint, if one is given, with the key in OPENAI_API_KEY. The path of the new file goes to stdout.
    """
    from gpt4video_cli.data.public_formats import Unusable
    from gpt4video_cli.data.safety_set import SafetySetOrder, build_safety_set

    order = SafetySetOrder(source, output, per_kind, seed, endpoint, model)
    if output.exists() and not force:
        raise UsageError(f"{output}: exists", hint="--force replaces it")
    left_out: list[Unusable] = []

    def listen(done: int, total: int) -> None:
        if not quiet and (done % STEP == 0 or done == total):
            say(f"{done} of {total} texts", style=DIM)

    count = build_safety_set(order, resume=resume, unusable=left_out, listen=listen)
    print(clean_line(str(output)), flush=True)
    if not quiet:
        for unusable in left_out[:SHOWN]:
            say(f"left out: {unusable.place}: {unusable.reason}", style=DIM)
        say(f"{count} dialogues, {len(left_out)} texts left out", style=DIM)
    return int(ExitCode.DONE)
