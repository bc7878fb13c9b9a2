"""``gpt4video train``: the paper's two stages, on one's own data."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.cli.completion import model_names
from gpt4video_cli.cli.option_panels import LOOKING, MODEL, RUNNING, TRAINING
from gpt4video_cli.cli.options import Debug, Device, Json, NoColor, Plain, Quiet
from gpt4video_cli.cli.terminal import DIM, clean_line, say
from gpt4video_cli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from gpt4video_cli.training.settings import Settings

HELP_DATA = "A JSONL file of dialogues (gpt4video data convert makes them); repeatable."


def train(
    stage: Annotated[int | None, typer.Option(metavar="1|2", help="1: align the abstractor; 2: instruct.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="FILE", help=HELP_DATA)] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="DIR", help="The run's folder.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME|FOLDER", autocompletion=model_names, help="Which model to start from."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML, as a run's settings.toml; flags win.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Dialogues to measure the loss on (else 1 % is held out).")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", help="End after N steps.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="X", help="How often all data is seen.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Dialogues in a step, over all processes.", rich_help_panel=TRAINING)
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Dialogues in memory at once; gradients add up to --batch-size.", rich_help_panel=TRAINING
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", metavar="X", help="Peak of the learning rate.", rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The same seed gives the same weights.", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="TYPE", help="auto, float32 or bfloat16.", rich_help_panel=MODEL)
    ] = None,
    device: Device = "auto",
    on_error: Annotated[
        str | None,
        typer.Option(
            metavar="stop|skip", help="What to do about a dialogue that cannot be used.", rich_help_panel=TRAINING
        ),
    ] = None,
    packing: Annotated[
        bool | None,
        typer.Option(
            "--packing/--no-packing", help="Stage 2: let short dialogues share rows.", rich_help_panel=TRAINING
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing", help="Less memory, a third more time.", rich_help_panel=MODEL),
    ] = None,
    four_bit: Annotated[
        bool | None,
        typer.Option(
            "--four-bit", help="Stage 2: hold the frozen weights in 4 bits (bitsandbytes).", rich_help_panel=MODEL
        ),
    ] = None,
    shard: Annotated[
        bool | None,
        typer.Option(
            "--shard", help="Several processes: each holds a piece of every weight (FSDP).", rich_help_panel=MODEL
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Where features of clips are kept (else the cache folder).", rich_help_panel=LOOKING
        ),
    ] = None,
    keep_features: Annotated[
        bool | None,
        typer.Option(
            "--keep-features/--no-keep-features", help="Stage 1: keep features of clips.", rich_help_panel=LOOKING
        ),
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(metavar="N", help="Steps between evaluations.", rich_help_panel=RUNNING)
    ] = None,
    save_every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between checkpoints.", rich_help_panel=RUNNING)
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="bundle|film", help="Make a bundled model from nothing instead.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, on what, and what it takes; read no weights.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Train a model: stage 1 (the abstractor, on clips) or 2 (an adapter of the language model, on text).

    The folder gets checkpoints, settings.toml, train.jsonl, loss.png and in the end a model that chat --model opens.
    """
    if recipe is not None:
        others = {"stage": stage, "data": data, "config": config, "model": model, "validation": validation}
        return _cook(recipe, output, [name for name, value in others.items() if value], resume=resume, dry_run=dry_run)
    from gpt4video_cli.training.settings import make_settings

    if resume and config is None and output is not None and (Path(output) / "settings.toml").is_file():
        config = Path(output) / "settings.toml"
    flags = {
        "stage": stage,
        "data": tuple(data) if data else None,
        "output": output,
        "model": model,
        "validation": tuple(validation) if validation else None,
        "max_steps": max_steps,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "learning_rate": lr,
        "seed": seed,
        "precision": precision,
        "device": None if device == "auto" else device,
        "on_error": on_error,
        "packing": packing,
        "gradient_checkpointing": gradient_checkpointing,
        "four_bit": four_bit,
        "shard": shard,
        "features": features,
        "keep_features": keep_features,
        "evaluate_every": evaluate_every,
        "save_every": save_every,
    }
    settings = make_settings(config, flags)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about its own attributes
    if dry_run:
        from gpt4video_cli.cli.dry_run import show_dry_run

        return show_dry_run(settings, json=json)
    return _train(settings, resume=resume, json=json, quiet=quiet)


def _cook(recipe: str, output: str | None, contradicting: list[str], *, resume: bool, dry_run: bool) -> int:
    """A recipe has its own data, order and numbers; its unfinished parts lie in ``OUTPUT.work``."""
    if recipe not in ("bundle", "film"):
        raise UsageError(f"--recipe is {recipe!r}; it must be bundle or film")
    if contradicting or dry_run:
        raise UsageError(f"--recipe and --{(contradicting or ['dry-run'])[0]} contradict each other")
    if output is None:
        raise UsageError("--output is missing")
    folder, work = Path(output), Path(output).with_name(Path(output).name + ".work")
    if work.exists() and not resume:
        raise UsageError(f"{work}: holds an unfinished run; --resume goes on with it")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise UsageError(f"{folder}: is not empty; --output must be a new folder")
    if recipe == "bundle":
        from gpt4video_cli.recipes.bundle import make
    else:
        from gpt4video_cli.recipes.video_model import make
    make(folder, work)
    print(clean_line(output), flush=True)
    return int(ExitCode.DONE)


def _train(settings: Settings, *, resume: bool, json: bool, quiet: bool) -> int:
    from gpt4video_cli.cli.training_view import TrainingView
    from gpt4video_cli.training.curve import draw_losses
    from gpt4video_cli.training.stage_run import Told, train_stage

    with TrainingView(Path(settings.output), stage=settings.stage, quiet=quiet) as view:
        result = train_stage(settings, resume=resume, told=Told(view.report, view.notice, view.answer))
    if view.leads:
        title = f"stage {settings.stage} on {len(result.plan.training.samples)} dialogues"
        draw_losses(result.records, result.folder / "loss.png", title)
        if result.skipped and not quiet:
            say(f"{len(result.skipped)} dialogues were skipped; skipped.jsonl says which and why", style=DIM)
        if json:
            from gpt4video_cli.cli.render import print_json

            last = result.records[-1] if result.records else {}
            skipped = len(result.skipped)
            print_json({"folder": str(result.folder), "steps": result.plan.steps, "skipped": skipped, "last": last})
        else:
            print(clean_line(str(result.folder)), flush=True)
    sys.stdout.flush()
    return int(ExitCode.DONE)
