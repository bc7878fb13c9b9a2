"""``gpt4video train --dry-run``: parameters, steps, data, memory and time, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpt4video_cli.cli.terminal import Status, clean_line
from gpt4video_cli.cli.training_view import duration
from gpt4video_cli.errors import ExitCode

if TYPE_CHECKING:
    from gpt4video_cli.training.dry_run import DryRun
    from gpt4video_cli.training.settings import Settings


def show_dry_run(settings: Settings, *, json: bool) -> int:
    """Print what ``settings`` would do."""
    with Status("counting ...", quiet=json):
        from gpt4video_cli.training.dry_run import dry_run

        found = dry_run(settings)
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json(found.as_dict())
    else:
        print("\n".join(map(clean_line, _lines(found))), flush=True)
    return int(ExitCode.DONE)


def _lines(run: DryRun) -> list[str]:
    lines = [f"stage {run.stage} ({run.name}) on {run.device}, computing in {run.compute}"]
    for part in run.parts:
        lines.append(f"{part.name}: {part.trained:,} parameters trained, {part.frozen:,} frozen")
    size = run.lengths
    lines += [
        f"{run.dialogues} dialogues, {run.held_out} held out, {run.skipped} skipped, {run.clips} clips; sources: "
        + ", ".join(f"{name} {count}" for name, count in run.sources.items()),
        f"{run.tokens:,} tokens, {run.learned:,} of them learned; a dialogue: median {size['median']}, "
        f"95 % up to {size['p95']}, longest {size['largest']}",
        f"{run.steps} steps of {run.batch_size} dialogues, {run.micro_batch_size} at once, learning rate up to "
        f"{run.learning_rate:g}",
        f"memory: about {run.memory:,.0f} MiB at the peak, {run.tensors:,.0f} of them tensors",
        f"time: about {duration(max(1.0, run.seconds))}, decoding of clips and evaluations left out "
        f"({run.multiplications / 1e9:,.1f} billion multiplications a step)",
    ]
    return lines
