"""``gpt4video data``: check files of training dialogues, and make them from public datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.data_safety_set import safety_set
from gpt4video_cli.cli.options import Debug, Device, Json, NoColor, Plain, Quiet
from gpt4video_cli.cli.terminal import DIM, Status, clean, clean_line, say
from gpt4video_cli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4video_cli.data.check import Report
    from gpt4video_cli.data.dialogue_file import DataDialogue

SHOWN = 5
"""Examples of each kind of mistake, unless all are asked for."""

data = typer.Typer(
    help="Check and convert training data.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.command(short_help="Find what training would stumble over.")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="JSONL files of dialogues.")],
    test: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A test file, whose dialogues and clips must not occur.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|FOLDER",
            autocompletion=model_names,
            help="Count tokens for this model's context.",
        ),
    ] = None,
    no_decode: Annotated[bool, typer.Option("--no-decode", help="Only look whether clips are there.")] = False,
    all_: Annotated[bool, typer.Option("--all", help=f"Name every place, not the first {SHOWN} of each kind.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Check files of training dialogues.

    Missing and undecodable clips, duplicates, empty turns, mistakes in tags, dialogues longer than the context, and
    what is in the test data too. Ends with exit code 3 if something was found.
    """
    from gpt4video_cli.data.check import Checker
    from gpt4video_cli.data.layout import Layout

    checker = Checker(decode=not no_decode, layout=Layout(model) if model else None)
    with Status("checking ...", quiet=quiet):
        checker.remember_test(test or [])
        report = checker.check(files)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json(report.as_dict())
    else:
        print("\n".join(map(clean_line, _lines(report, all_=all_))), flush=True)
    if not report.dialogues and not report.found:
        raise InputError(f"{', '.join(map(str, files))}: no dialogues")
    return int(ExitCode.INPUT if report.found else ExitCode.DONE)


def _lines(report: Report, *, all_: bool) -> list[str]:
    from gpt4video_cli.data.check import KINDS
    from gpt4video_cli.data.layout import spread

    lines = [
        f"{report.dialogues} dialogues with {report.turns} turns, {report.clips} clips and {report.prompts} prompts",
        "sources: " + ", ".join(f"{name} {count}" for name, count in report.sources.most_common()),
        "licences: " + ", ".join(f"{name} {count}" for name, count in report.licences.most_common()),
    ]
    if report.lengths:
        size = spread(report.lengths)
        lines.append(
            f"tokens: median {size['median']}, 95 % up to {size['p95']}, longest {size['largest']}; "
            f"the context has {report.context}"
        )
    for kind, meaning in KINDS.items():
        findings = report.found.get(kind, [])
        if findings:
            lines.append(f"{kind}: {len(findings)} ({meaning})")
            shown = findings if all_ else findings[:SHOWN]
            lines += [f"- {place}: {why}" for place, why in shown]
            if len(shown) < len(findings):
                lines.append(f"- and {len(findings) - len(shown)} more; --all names them")
    fit = report.dialogues + len(report.found.get("not a dialogue", [])) - len(report.unfit)
    lines.append("nothing is wrong" if not report.found else f"{fit} fit for training, {len(report.unfit)} not")
    return lines


@data.command(short_help="Show which tokens of a dialogue a stage learns.")
def labels(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A JSONL file of dialogues.")],
    stage: Annotated[int, typer.Option(metavar="1|2", help="1: clips are watched; 2: descriptions stand for them.")],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|FOLDER", autocompletion=model_names, help="Whose tokens.")
    ] = "bundle",
    count: Annotated[int, typer.Option("--count", "-n", metavar="N", help="How many dialogues.")] = 1,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Show the first dialogues as training sees them: what is learned stands between [[ and ]]."""
    from gpt4video_cli.data.layout import Layout
    from gpt4video_cli.training.dialogue_set import read_training_data
    from gpt4video_cli.training.labels import marked
    from gpt4video_cli.training.stages import find_stage

    layout = Layout(model)
    found = read_training_data((file,), find_stage(stage), layout, on_error="skip")
    for sample in found.samples[: max(1, count)]:
        print(f"{clean_line(sample.place)}: {len(sample.ids)} tokens, {sample.learned} learned")
        print(clean(marked(sample, layout)))
    return int(ExitCode.DONE)


@data.command(short_help="Compute what the visual encoder says of clips, once.")
def precompute(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="JSONL files of dialogues.")],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|FOLDER", autocompletion=model_names, help="Whose encoder.")
    ] = "bundle",
    features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep them (else the cache folder).")
    ] = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Compute the features of all clips of some files, for stage 1.

    What is there already is left; the key is the clip's content, the moments looked at and the encoder. Prints how many
    clips were found, computed and failed; ends with exit code 6 if some failed.
    """
    from gpt4video_cli.training.precompute import precompute_files

    failed: list[tuple[str, str]] = []
    with Status("computing ...", quiet=quiet):
        counts = precompute_files(files, model, features, device=device, failed=failed)
    for place, why in failed if not quiet else ():
        say(f"{place}: {why}", style=DIM)
    values = {"computed": counts.computed, "found": counts.found, "failed": counts.failed}
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({**values, "failures": [{"place": place, "why": why} for place, why in failed]})
    else:
        print(", ".join(f"{count} {name}" for name, count in values.items()), flush=True)
    return int(ExitCode.PARTIAL if failed else ExitCode.DONE)


@data.command(short_help="Make a file of dialogues from a public dataset.")
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The dataset's JSON, JSONL or CSV file.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="videochat, video-chatgpt, llava, webvid or realtoxicity.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The JSONL file to write.")],
    clips: Annotated[
        str, typer.Option(metavar="FOLDER", help="The folder of the clips, as seen from the new file's folder.")
    ] = "",
    ending: Annotated[str, typer.Option(metavar=".EXT", help="Of clips that the dataset names by an id.")] = ".mp4",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="The dataset's licence, noted in each dialogue.")] = "",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Convert a public dataset to training dialogues.

    Records that give no dialogue are listed on stderr. The path of the new file goes to stdout.
    """
    from dataclasses import replace

    from gpt4video_cli.data.dialogue_file import write_dialogues
    from gpt4video_cli.data.public_formats import FORMATS, Options, Unusable, read_public

    if format_ not in FORMATS:
        raise UsageError(f"no format {format_!r}", hint=f"known: {', '.join(FORMATS)}")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists", hint="--force replaces it")
    left_out: list[Unusable] = []

    def usable() -> Iterator[DataDialogue]:
        found = False
        for read in read_public(source, format_, Options(clips, ending)):
            if isinstance(read, Unusable):
                left_out.append(read)
            else:
                found = True
                yield replace(read, licence=licence)
        if not found:  # before the old file is replaced
            raise InputError(f"{source}: no dialogues in it", hint=f"is it a {format_} file?")

    count = write_dialogues(output, usable())
    print(clean_line(str(output)), flush=True)
    if not quiet:
        for unusable in left_out[:SHOWN]:
            say(f"left out: {unusable.place}: {unusable.reason}", style=DIM)
        say(f"{count} dialogues, {len(left_out)} records left out", style=DIM)
    return int(ExitCode.DONE)


data.command("safety-set", short_help="Make dialogues in which harm is refused.")(safety_set)
