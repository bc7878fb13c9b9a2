"""``gpt4video safety``: ask the safety guards directly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli.options import Debug, Json, NoColor, Plain
from gpt4video_cli.cli.policy_options import NoGuard, PolicyName, open_gates, read_policy
from gpt4video_cli.cli.terminal import clean_line
from gpt4video_cli.errors import ExitCode, InputError

if TYPE_CHECKING:
    from gpt4video_cli.safety.gates import Gates
    from gpt4video_cli.safety.verdict import Verdict
    from gpt4video_cli.video.reader import FrameReader

LINES = (".txt",)
"""Files of these names are judged line by line; every other file is a clip or a picture."""
MEDIA = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".webp")
"""A single word that ends like this is a file that is missing, and not a harmless text."""

safety = typer.Typer(
    help="Ask the safety guards.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@safety.callback()
def _group() -> None:
    """Ask the safety guards."""


@safety.command(short_help="Judge texts, clips and pictures.")
def check(
    things: Annotated[
        list[str], typer.Argument(metavar="TEXT|FILE...", help="A text, a .txt file of lines, a clip or a picture.")
    ],
    policy: PolicyName = "standard",
    no_guard: NoGuard = None,
    json: Json = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Judge texts, clips and pictures as chat and generate do.

    Prints for each what the guards say: the verdict, the category, score and threshold, and who decided. Never quotes
    what was judged. An argument that names a file is that file. Ends with exit code 5 if anything is refused.
    """
    from gpt4video_cli.video.reader import FrameReader

    gates = open_gates(read_policy(policy, no_guard))
    refused = False
    with FrameReader() as reader:
        for place, verdict in _verdicts(things, gates, reader):
            refused = refused or verdict.outcome == "refused"
            _show(place, verdict, json)
    return int(ExitCode.REFUSED if refused else ExitCode.DONE)


def _verdicts(things: list[str], gates: Gates, reader: FrameReader) -> Iterator[tuple[str, Verdict]]:
    """What was judged, by name and never by content, and the verdict."""
    for number, thing in enumerate(things, 1):
        path = Path(thing)
        if not _is_file(path):
            if path.suffix.lower() in (*LINES, *MEDIA) and not any(letter.isspace() for letter in thing):
                raise InputError(f"{thing}: no such file", hint="put a text between quotes, with its blanks")
            yield f"text {number}", gates.text(thing, "user text")
        elif path.suffix.lower() in LINES:
            for line, text in enumerate(_read_lines(path), 1):
                if text.strip():
                    yield f"{thing}:{line}", gates.text(text, "user text")
        else:
            yield thing, gates.clip(thing, reader)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte: a text
        return False


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _show(place: str, verdict: Verdict, json: bool) -> None:
    if json:
        from gpt4video_cli.cli.render import print_json

        values: dict[str, Any] = {"what": place, **verdict.as_dict()}
        print_json(values)
        return
    said: str = verdict.outcome
    if verdict.score is not None and verdict.threshold is not None:
        said += f": {verdict.category} {verdict.score:.2f} (refused from {verdict.threshold:g} on), by {verdict.guard}"
    if verdict.seconds is not None:
        said += f", at {verdict.seconds:.1f} s"
    print(clean_line(f"{place}: {said}"), flush=True)
