"""``gpt4video models pull``: show what will be fetched and under which licence, then fetch it."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4video_cli.cli.completion import card_names
from gpt4video_cli.cli.confirm import confirm
from gpt4video_cli.cli.options import Debug, NoColor, Plain, Quiet
from gpt4video_cli.cli.progress import ProgressLines
from gpt4video_cli.cli.terminal import Status, clean_line, columns, may_draw, say
from gpt4video_cli.errors import CancelledError, ExitCode

if TYPE_CHECKING:
    from gpt4video_cli.weights.pull import PullPlan


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model of gpt4video models list.", autocompletion=card_names)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be fetched.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network: only say whether it is here.")
    ] = False,
    quiet: Quiet = False,
    no_color: NoColor = False,
    plain: Plain = False,
    debug: Debug = False,
) -> int:
    """Fetch a model's weights and print the folder they are loaded from.

    Shows sizes and licences first and asks. Files go into the Hugging Face cache, so that nothing is fetched twice;
    what was interrupted goes on where it stopped; every file's hash is checked. HF_TOKEN, HF_ENDPOINT (a mirror),
    HF_HOME and the usual proxy variables are heeded.
    """
    from gpt4video_cli.weights import hub as hubs
    from gpt4video_cli.weights import installed
    from gpt4video_cli.weights import pull as pulling

    if offline or hubs.offline():
        print(clean_line(str(installed.path_of(name))), flush=True)
        return int(ExitCode.DONE)
    pulling.find_card(name)  # an unknown name is told before anybody is asked
    with Status("asking for sizes ...", quiet=quiet):
        hub = hubs.Hub()
        plan = pulling.plan_pull(name, hub)
    for line in _lines(plan):
        if dry_run or not quiet:
            say(line, style="0")
    if dry_run:
        return int(ExitCode.DONE)
    if plan.here < plan.total and not yes:
        confirm("Fetch it under this licence?", refused="not fetched", yes="--yes fetches it and accepts its licence")
    stop = threading.Event()
    with _Bars(plan, quiet=quiet) as bars:
        try:
            folder = pulling.pull(
                plan,
                hub,
                bars.report,
                stop=stop,
                waiting=lambda: say("another process is fetching this model; waiting for it"),
                making=lambda: say("converting ..."),
            )
        except KeyboardInterrupt:
            stop.set()
            raise CancelledError(f"stopped; gpt4video models pull {name} goes on with it") from None
    print(clean_line(str(folder)), flush=True)
    return int(ExitCode.DONE)


def _lines(plan: PullPlan) -> list[str]:
    lines = [f"{plan.card.name}: {plan.card.summary}"]
    for wanted in plan.parts:
        size = sum(file.size for file in wanted.files)
        lines.append(
            f"{wanted.listing.repository} at {wanted.listing.commit[:12]}: {len(wanted.files)} files, {human(size)}"
        )
    lines.append(f"licence: {'; '.join(plan.licences())}")
    lines.append(f"to fetch: {human(plan.total - plan.here)} of {human(plan.total)}")
    if plan.makes_folder:
        lines.append(f"then converted into a folder of about {human(plan.total)}")
    return lines


FULL_WIDTH = 100
"""Columns that a bar with a file's name, sizes, speed and time takes; narrower terminals get less of it."""


def human(size: float) -> str:
    """Bytes in the unit that suits: ``14.1 GB``, ``320 MB``, ``5 kB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            number = size / scale
            return f"{number:.1f} {unit}" if unit == "GB" or number < 10 else f"{number:.0f} {unit}"
    return f"{size:.0f} bytes"


class _Bars:
    """A bar for each file that is being fetched and one for all, on a terminal's stderr; nothing elsewhere."""

    def __init__(self, plan: PullPlan, *, quiet: bool) -> None:
        self._sizes = {f"{w.listing.repository}/{file.path}": file.size for w in plan.parts for file in w.files}
        self._done: dict[str, int] = {}
        self._tasks: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._possible = may_draw(sys.stderr) and not quiet
        self._lines = ProgressLines(quiet=quiet)
        self._progress: Any = None
        self._total: Any = None
        self._room = 0

    def __enter__(self) -> _Bars:
        if self._possible:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            wide = columns(sys.stderr) >= FULL_WIDTH
            self._room = max(10, min(40, columns(sys.stderr) - 20))
            more = [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()] if wide else [TimeRemainingColumn()]
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20 if wide else 8),
                *more,
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
            self._total = self._progress.add_task("all files", total=sum(self._sizes.values()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def report(self, name: str, done: int) -> None:
        """Called from several threads."""
        if name not in self._sizes:
            return
        with self._lock:
            self._done[name] = done
            total = sum(self._sizes.values())
            self._lines.show("fetching", f"{human(sum(self._done.values()))} of {human(total)}")
            if self._progress is None:
                return
            if name not in self._tasks and done < self._sizes[name]:
                short = clean_line(name.split("/", 2)[2])[-self._room :]  # without OWNER/NAME
                self._tasks[name] = self._progress.add_task(short, total=self._sizes[name])
            if name in self._tasks:
                self._progress.update(self._tasks[name], completed=done, visible=done < self._sizes[name])
            self._progress.update(self._total, completed=sum(self._done.values()))
