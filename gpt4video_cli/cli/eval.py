"""``gpt4video eval``: measure guards and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.cli.options import Debug, Json, Model, NoColor, Plain, Quiet
from gpt4video_cli.cli.policy_options import NoGuard, PolicyName, open_gates, read_policy
from gpt4video_cli.cli.terminal import DIM, Status, clean, say
from gpt4video_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gpt4video_cli.evaluation.safety import Query

WHO = ("all", "model", "guards")

evaluation = typer.Typer(
    help="Measure guards and models.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@evaluation.callback()
def _group() -> None:
    """Measure guards and models."""


@evaluation.command(short_help="How well harm is refused, and nothing else.")
def safety(
    model: Model = "bundle",
    data: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A benchmark (repeat it); else the one that ships.")
    ] = None,
    gate: Annotated[str, typer.Option(metavar="all|model|guards", help="Who may refuse.")] = "all",
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the confusion as a PNG.")] = None,
    fuzz: Annotated[
        int, typer.Option(metavar="N", min=0, help="N disguised spellings and N harmless sentences instead.")
    ] = 0,
    policy: PolicyName = "standard",
    no_guard: NoGuard = None,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Ask guards and model the queries of a safety benchmark.

    Prints accuracy, precision, recall and F1 of refusals for each task beside the paper's, the benign queries that were
    refused, and who decided. With --gate guards no language model is loaded.
    """
    if gate not in WHO:
        raise UsageError(f"no gate {gate!r}", hint=f"known: {', '.join(WHO)}")
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"{picture}: the picture is a PNG", hint="name it FILE.png")
    if fuzz and (data or picture or gate == "model"):
        raise UsageError(
            "--fuzz asks the guards with sentences of its own", hint="leave --data, --picture and --gate out"
        )
    from gpt4video_cli.cli.render import print_json
    from gpt4video_cli.evaluation.safety import evaluate, lines, read_benchmark, shipped_files

    gates = open_gates(read_policy(policy, no_guard))
    if fuzz:
        from gpt4video_cli.evaluation.safety_fuzz import fuzz_lines, run_fuzz

        with Status("asking ...", quiet=quiet):
            found = run_fuzz(lambda text: gates.text(text, "user text").outcome == "refused", fuzz)
        if json:
            print_json(found)
        else:
            print("\n".join(map(clean, fuzz_lines(found))), flush=True)
        return int(ExitCode.DONE)

    folders: dict[int, Path] = {}
    queries: list[Query] = []
    for file in data or shipped_files():
        for query in read_benchmark(file):
            folders[id(query)] = file.parent
            queries.append(query)
    with Status(f"asking {len(queries)} queries ...", quiet=quiet):
        if gate == "guards":
            from gpt4video_cli.evaluation.safety import ask_guards
            from gpt4video_cli.video.reader import FrameReader

            with FrameReader() as reader:
                result = evaluate(queries, lambda q: ask_guards(gates, q, folders[id(q)], reader))
        else:
            from gpt4video_cli.assistant import Assistant
            from gpt4video_cli.evaluation.safety import ask_assistant
            from gpt4video_cli.safety.gates import Gates

            asked = gates if gate == "all" else Gates(gates.policy)  # no guards at all
            with Assistant.open(model, gates=asked) as assistant:
                result = evaluate(queries, lambda q: ask_assistant(assistant, q, folders[id(q)]))
    result = {"gate": gate, "model": model if gate != "guards" else None, "policy": gates.policy.name, **result}
    if picture is not None:
        from gpt4video_cli.evaluation.safety_picture import draw_confusion

        draw_confusion(result, picture)
    if json:
        print_json(result)
    else:
        print("\n".join(map(clean, lines(result))), flush=True)
    if picture is not None and not quiet:
        say(f"picture: {picture}", style=DIM)
    return int(ExitCode.DONE)
