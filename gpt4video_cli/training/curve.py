"""The losses of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4video_cli.whole_file import whole_file


def draw_losses(records: Sequence[Mapping[str, Any]], path: Path, title: str) -> Path:
    """Write a PNG of 960 x 540 pixels: the training loss, and the validation loss where there is one, over the steps.

    ``records`` are those of the log (``report.Report.as_dict``).
    """
    # The object interface, without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.6, 5.4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], label="training", linewidth=1.2)
    evaluated = [r for r in records if "evaluation" in r]
    if evaluated:
        steps, losses = [r["step"] for r in evaluated], [r["evaluation"] for r in evaluated]
        axes.plot(steps, losses, "o-", label="validation", markersize=4)
    axes.set(title=title, xlabel="step", ylabel="loss of a token (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as temporary:
        with open(temporary, "wb") as file:
            FigureCanvasAgg(figure).print_png(file)
    return path
