"""Options of the language engine, and its ``/adapter`` command: which one, how it runs, with which adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpt4video_cli.cli.option_panels import MODEL
from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.adapters import OFF, AdapterWish, parse_adapters
from gpt4video_cli.language.engine_wish import EngineWish
from gpt4video_cli.language.llama_options import LlamaOptions
from gpt4video_cli.weights.find_adapter import known_adapters

if TYPE_CHECKING:
    from gpt4video_cli.model.checkpoint import Model

Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="auto, torch, llama (llama.cpp) or llama:KIND such as llama:q8_0. auto: llama.cpp where there is no GPU "
        "and a GGUF file lies there.",
        rich_help_panel=MODEL,
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME[:SCALE]",
        help="LoRA adapter of the model, or a path (repeat it, or use commas); off: none, not even the model's own.",
        rich_help_panel=MODEL,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", help="llama.cpp: CPU threads (default: one for each core).", rich_help_panel=MODEL
    ),
]
GpuLayers = Annotated[
    int | None,
    typer.Option(
        "--gpu-layers", metavar="N", help="llama.cpp: layers on the GPU (default: all it can).", rich_help_panel=MODEL
    ),
]
FlashAttention = Annotated[
    str,
    typer.Option(
        "--flash-attention",
        metavar="auto|on|off",
        help="llama.cpp: auto is off for weights of 16 and 32 bits.",
        rich_help_panel=MODEL,
    ),
]
KvType = Annotated[
    str,
    typer.Option(
        "--kv-type", metavar="TYPE", help="llama.cpp: keys and values as auto, f32, f16 or q8_0.", rich_help_panel=MODEL
    ),
]


def read_engine(
    engine: str,
    adapters: Sequence[str] | None,
    *,
    threads: int | None,
    gpu_layers: int | None,
    flash_attention: str,
    kv_type: str,
) -> EngineWish:
    """What the options ask for; ``UsageError`` for wrong values and contradictions."""
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; it must be 1 or more")
    if gpu_layers is not None and gpu_layers < 0:
        raise UsageError(f"--gpu-layers is {gpu_layers}; it must be 0 or more")
    llama = LlamaOptions(
        threads=threads or 0,
        gpu_layers=-1 if gpu_layers is None else gpu_layers,
        flash_attention=flash_attention,
        kv_type=kv_type,
    )
    return EngineWish.parse(engine, llama, None if not adapters else parse_adapters(adapters))


def change_adapters(model: Model, text: str) -> None:
    """What ``/adapter`` is given: ``NAME[:SCALE]`` puts one in force beside the others, or scales it anew; ``off``."""
    if not text:
        return
    wishes = parse_adapters([text], "/adapter")
    named = {wish.name for wish in wishes}
    kept = [AdapterWish(a.name, a.scale) for a in model.engine.adapters if a.name not in named] if wishes else []
    model.use_adapters([wish for wish in (*kept, *wishes) if wish.scale != 0])


def adapter_lines(model: Model) -> list[str]:
    """The adapters that there are, and those in force."""
    force = {adapter.name: adapter for adapter in model.adapters}
    names = list(dict.fromkeys([*known_adapters(model.folder), *force]))
    if not names:
        return ["this model has no adapters; /adapter PATH takes one from elsewhere"]
    lines = [f"{name}: {f'in force, scale {force[name].scale:g}' if name in force else 'off'}" for name in names]
    return [*lines, f"/adapter NAME[:SCALE] puts one in force, NAME:0 takes it out, {OFF} all of them"]
