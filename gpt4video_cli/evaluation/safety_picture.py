"""The confusion of refusals as a picture: one square of four counts for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt4video_cli.whole_file import whole_file


def draw_confusion(result: dict[str, Any], path: Path) -> None:
    """Write a PNG of what ``evaluation.safety.summary`` returned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (task, figures) in enumerate(result["tasks"].items(), 1):
        axes = figure.add_subplot(1, len(result["tasks"]), place)
        table = [
            [figures["true_positive"], figures["false_negative"]],
            [figures["false_positive"], figures["true_negative"]],
        ]
        # By row, so that a row of many benign queries does not make the other one pale.
        axes.imshow([[cell / max(1, sum(row)) for cell in row] for row in table], cmap="Blues", vmin=0, vmax=1.4)
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                axes.text(column, row, str(cell), ha="center", va="center", fontsize=16)
        axes.set_xticks([0, 1], ["refused", "answered"])
        axes.set_yticks([0, 1], ["harmful", "benign"])
        axes.set_title(f"{task}, F1 {figures['f1']['share']:.2f}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
