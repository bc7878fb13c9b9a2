"""``gpt4video models import``: weights in public formats become a model folder, or a part of one."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt4video_cli.cli.options import Debug, NoColor, Plain, Quiet
from gpt4video_cli.cli.progress import WIDE_ENOUGH, ProgressLines
from gpt4video_cli.cli.terminal import clean_line, columns, may_draw, say
from gpt4video_cli.errors import ExitCode, UsageError

DTYPES = ("float32", "bfloat16", "float16")


def import_(
    source: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A checkpoint: its folder, or its weights.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="mplug-owl-video, hf-clip, hf-llama or peft.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The model folder.")],
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Write float32, bfloat16 or float16 (else as they are).")
    ] = None,
    shard_size: Annotated[float, typer.Option(metavar="GB", help="Largest file of weights.")] = 2.0,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Convert downloaded weights into a model folder: safetensors that other tools open too.

    mplug-owl-video makes a whole model. hf-clip makes its vision part, hf-llama its language part, peft its adapter:
    imported into one folder, one after another, they come together. Pickles are read without running code in them.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if not (math.isfinite(shard_size) and shard_size > 0):
        raise UsageError(f"--shard-size is {shard_size}; it must be a number of GB above 0")
    import torch

    from gpt4video_cli.weights.convert import import_weights

    def tell(note: str) -> None:
        bar.clear()
        if not quiet:
            say(note)

    with Bar("importing", quiet=quiet) as bar:
        made = import_weights(
            source,
            format_,
            output,
            dtype=None if dtype is None else getattr(torch, dtype),
            shard_bytes=max(1, int(shard_size * 1e9)),
            tell=tell,
            progress=bar.show,
        )
    print(clean_line(str(made)), flush=True)
    return int(ExitCode.DONE)


class Bar:
    """How much is written, on a terminal's stderr; nothing elsewhere. It goes away when it is done."""

    def __init__(self, text: str, *, quiet: bool) -> None:
        self._text = text
        self._possible = may_draw(sys.stderr) and not quiet
        self._lines = ProgressLines(quiet=quiet)
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are written."""
        self._lines.show(self._text, f"{100 * done // max(1, total)} %" if done else "")
        if not self._possible:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            bar = [BarColumn(), DownloadColumn()] if columns(sys.stderr) >= WIDE_ENOUGH else []
            parts = (TextColumn("{task.description}"), *bar, TimeRemainingColumn())
            self._progress = Progress(*parts, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task(self._text, total=total)
        self._progress.update(self._task, completed=done)

    def clear(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
