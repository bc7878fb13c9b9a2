"""``--explain``: which part of a model would go where, in GB, before anything is loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpt4video_cli.cli.terminal import clean_line
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.language.choose_engine import choose_engine
from gpt4video_cli.model.llama_placement import place_llama
from gpt4video_cli.model.placement import LoadWish, Placement, gigabytes, plan_model
from gpt4video_cli.weights.locate import find_model


def explain_model(name_or_dir: str, wish: LoadWish, *, json: bool) -> int:
    """Print the plan for a model; one that does not fit is a ``WeightsError``, as when it is loaded."""
    card, folder = find_model(name_or_dir)
    choice = choose_engine(folder, card.name, wish)
    placement = (
        plan_model(card, folder, wish) if choice.file is None else place_llama(card.name, folder, choice.file, wish)
    )
    if json:
        from gpt4video_cli.cli.render import print_json

        print_json({**as_dict(placement), "engine": choice.as_dict()})
    else:
        print("\n".join(map(clean_line, [*as_lines(placement), f"engine: {choice.line()}"])), flush=True)
    return int(ExitCode.DONE)


def as_dict(placement: Placement) -> dict[str, Any]:
    """The plan, ready for JSON; sizes in bytes."""
    return {
        "model": placement.sizes.name,
        "rows": [asdict(row) for row in placement.rows],
        "devices": [{**asdict(device), "used": placement.used(device.name)} for device in placement.devices],
        "total": sum(row.bytes for row in placement.rows),
        "context_length": placement.sizes.context,
        "device_map": placement.device_map,
    }


def as_lines(placement: Placement) -> list[str]:
    """The plan as a table, then a line for each device."""
    head = ("part", "parameters", "type", "place", "GB")
    table = [head]
    for row in placement.rows:
        parameters = f"{row.parameters:,}" if row.parameters else "-"
        table.append((row.what, parameters, row.dtype, row.place, gigabytes(row.bytes)))
    parameters = f"{sum(row.parameters for row in placement.rows):,}"
    table.append(("total", parameters, "", "", gigabytes(sum(row.bytes for row in placement.rows))))
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = []
    for line in table:
        cells = [
            cell.rjust(width) if column in (1, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.append("")
    for device in placement.devices:
        used, free, total = (gigabytes(size) for size in (placement.used(device.name), device.free, device.total))
        lines.append(f"{device.name}: {used} GB of {free} GB free ({total} GB in all)")
    return lines
