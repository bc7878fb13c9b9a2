"""Options that commands share, and how their text becomes the program's own types. Nothing heavy is imported here."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gpt4video_cli.cli.completion import generator_names, model_names
from gpt4video_cli.cli.option_panels import ANSWERING, FILMING, LOOKING, MODEL, OUTPUT
from gpt4video_cli.cli.terminal import PLAIN
from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.video.sampling import SamplingPlan

if TYPE_CHECKING:
    from gpt4video_cli.weights.card import Card

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_DTYPES = ("auto", "float32", "bfloat16", "float16")
_LARGEST_SEED = 2**63 - 1


@dataclass
class Switches:
    """What holds for the whole program run. ``started``: when this module was imported, by ``time.perf_counter``.

    ``settings``: what the configuration set for the command that runs, see ``configuration.py``.
    """

    debug: bool = False
    started: float = field(default_factory=time.perf_counter)
    settings: dict[str, Any] = field(default_factory=dict)


switches = Switches()


def _debug(value: bool) -> bool:
    switches.debug = switches.debug or value
    return value


def _no_colour(value: bool) -> bool:
    if value:
        os.environ["NO_COLOR"] = "1"  # libraries and child processes honour it too
    return value


def _plain(value: bool) -> bool:
    if value:
        os.environ[PLAIN] = "1"
    return value


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error.", callback=_debug, is_eager=True, rich_help_panel=OUTPUT
    ),
]
NoColor = Annotated[
    bool,
    typer.Option(
        "--no-color", help="No colour (also: NO_COLOR=1).", callback=_no_colour, is_eager=True, rich_help_panel=OUTPUT
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Line by line, for screen readers: no colour, nothing drawn, nothing rewritten (also: GPT4VIDEO_PLAIN=1).",
        callback=_plain,
        is_eager=True,
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.", rich_help_panel=OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]

Model = Annotated[
    str, typer.Option("--model", "-m", metavar="NAME|FOLDER", autocompletion=model_names, help="Which model answers.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=MODEL)]
DType = Annotated[
    str, typer.Option("--dtype", metavar="TYPE", help="auto, float32, bfloat16 or float16.", rich_help_panel=MODEL)
]
Precision = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="auto, float32, bfloat16, float16; 8bit, 4bit with bitsandbytes.",
        rich_help_panel=MODEL,
    ),
]
VisionDType = Annotated[
    str,
    typer.Option(
        "--vision-dtype",
        metavar="TYPE",
        help="Of the visual encoder alone: auto, float32, bfloat16, float16; int8 on a CPU.",
        rich_help_panel=MODEL,
    ),
]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="Layers that no GPU has room for stay in the main memory.", rich_help_panel=MODEL),
]
ContextLength = Annotated[
    int | None,
    typer.Option(
        "--context-length",
        metavar="N",
        help="Remember N tokens at most, which takes less memory.",
        rich_help_panel=MODEL,
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Print which part of the model would go where, in GB, and load nothing.",
        rich_help_panel=MODEL,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Look at all clips anew, and keep nothing of them for the next time.",
        rich_help_panel=LOOKING,
    ),
]

Frames = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Look at N moments of each clip, evenly spread (else the model's own).",
        rich_help_panel=LOOKING,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(metavar="RATE", help="Look at this many moments a second instead.", rich_help_panel=LOOKING),
]
MaxFrames = Annotated[
    int | None, typer.Option(metavar="N", help="With --fps: at most N moments.", rich_help_panel=LOOKING)
]
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="Look from here on: seconds or [H:]MM:SS.", rich_help_panel=LOOKING)
]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Look up to here.", rich_help_panel=LOOKING)]
At = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TIMES", help="Look at exactly these times (repeat it, or use commas).", rich_help_panel=LOOKING
    ),
]
Sampling = Annotated[
    str | None,
    typer.Option(
        metavar="exact|keyframe",
        help="exact: the frame shown at each time; keyframe: one near it, faster.",
        rich_help_panel=LOOKING,
    ),
]
TimeLimit = Annotated[
    float,
    typer.Option(metavar="SECONDS", help="Give up on a clip that takes longer to decode.", rich_help_panel=LOOKING),
]

Temperature = Annotated[
    float | None,
    typer.Option(metavar="X", help="0: the likeliest words (default); above: varied.", rich_help_panel=ANSWERING),
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", metavar="P", help="Choose among words of this total chance.", rich_help_panel=ANSWERING),
]
TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="K", help="Choose among the K likeliest words; 0: all.", rich_help_panel=ANSWERING),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option("--repetition-penalty", metavar="X", help="Above 1: repeat less.", rich_help_panel=ANSWERING),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", help="The same seed gives the same answer (default 0).", rich_help_panel=ANSWERING),
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", help="Longest answer, in tokens.", rich_help_panel=ANSWERING)
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End the answer before this text (repeatable).", rich_help_panel=ANSWERING),
]
Generator = Annotated[
    str | None,
    typer.Option(
        "--generator",
        "-g",
        metavar="NAME|DIR",
        autocompletion=generator_names,
        help="Which text-to-video model films.",
        rich_help_panel=FILMING,
    ),
]

GuidancePass = Annotated[
    str | None,
    typer.Option(metavar="batched|in-turn", help="Both texts of a step in one batch, or not.", rich_help_panel=FILMING),
]
GuidanceUntil = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Guide this share of the steps only, 0 to 1.", rich_help_panel=FILMING),
]
CacheThreshold = Annotated[
    float | None,
    typer.Option(
        metavar="X", help="Transformers: skip blocks where the first changed less than this.", rich_help_panel=FILMING
    ),
]
CacheEvery = Annotated[
    int | None,
    typer.Option(metavar="N", help="UNets: run the inner levels in every Nth step only.", rich_help_panel=FILMING),
]


def seconds(text: str, option: str) -> float:
    """``12.5``, ``1:02.5`` or ``1:00:02`` in seconds."""
    parts = text.strip().split(":")
    try:
        if len(parts) > 3 or not all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", part) for part in parts[-1:]):
            raise ValueError
        numbers = [float(int(part)) for part in parts[:-1]] + [float(parts[-1])]
    except ValueError:
        raise UsageError(f"{option} is {text!r}; it must be seconds (12.5) or [H:]MM:SS (1:02.5)") from None
    total = 0.0
    for number in numbers:
        total = total * 60 + number
    return total


def sampling_plan(
    *,
    frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    start: str | None = None,
    end: str | None = None,
    at: Sequence[str] | None = None,
    sampling: str | None = None,
    card: Card | None = None,
) -> SamplingPlan:
    """The plan that the options ask for, the rest from the model's card; contradictions raise ``UsageError``."""
    times = [part for text in at or () for part in text.split(",") if part.strip()]
    if card is not None and frames is None and fps is None and max_frames is None and not times:
        frames = card.frames
    return SamplingPlan(
        frames=frames,
        fps=fps,
        max_frames=max_frames,
        start=None if start is None else seconds(start, "--start"),
        end=None if end is None else seconds(end, "--end"),
        at=tuple(seconds(text, "--at") for text in times),
        mode=cast(Any, sampling or (card.mode if card is not None else "exact")),  # the plan checks the spelling
    )


def answer_options(given: Mapping[str, Any], card: Card | None = None) -> SamplingOptions:
    """What the person gave (None: not given), the rest from the model's card; wrong values raise ``UsageError``."""
    values = {name: value for name, value in given.items() if value is not None}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be a number")
    if not 0 <= values.get("seed", 0) <= _LARGEST_SEED:
        raise UsageError(f"--seed is {values['seed']}; it must be between 0 and {_LARGEST_SEED}")
    if "stop" in values:
        values["stop"] = tuple(values["stop"])
        if "" in values["stop"]:
            raise UsageError("--stop is empty; it must be a text")
    if card is not None:
        default = {"temperature": card.temperature, "top_p": card.top_p, "max_tokens": card.max_tokens}
        values = default | values
    return SamplingOptions(**values)


def check_device(device: str, dtype: str, time_limit: float) -> None:
    """Spelling only: whether the device exists is seen when the model is loaded."""
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"--device is {device!r}; it must be auto, cpu, cuda, cuda:N or mps")
    if dtype not in _DTYPES:
        raise UsageError(f"--dtype is {dtype!r}; it must be one of {', '.join(_DTYPES)}")
    check_time_limit(time_limit)


def check_time_limit(time_limit: float) -> None:
    """Seconds for a clip: a number above 0."""
    if not (math.isfinite(time_limit) and time_limit > 0):
        raise UsageError(f"--time-limit is {time_limit}; it must be a number of seconds above 0")


def parse_size(text: str | None) -> dict[str, int]:
    """``576x320`` as width and height in pixels."""
    if text is None:
        return {}
    found = re.fullmatch(r"\s*(\d{1,5})\s*[xX×*]\s*(\d{1,5})\s*", text)
    if not found:
        raise UsageError(f"--size is {text!r}; it must be WIDTHxHEIGHT, such as 576x320")
    return {"width": int(found[1]), "height": int(found[2])}
