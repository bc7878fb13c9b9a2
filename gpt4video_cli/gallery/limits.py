"""A request is completed from the model's card, or refused with what the model can do, before anything is loaded."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import TypeVar

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.schedulers import SCHEDULERS
from gpt4video_cli.gallery.shortcuts import check_shortcuts, shortcuts
from gpt4video_cli.weights.generator_card import GeneratorCard, Rules

LARGEST_SEED = 2**63 - 1
VIDEO_TO_VIDEO = frozenset({"VideoToVideoSDPipeline"})
"""Pipelines that start from a clip."""

T = TypeVar("T")


def complete(request: FilmRequest, card: GeneratorCard) -> FilmRequest:
    """``request`` with every field filled in. Raises ``UsageError`` for what the model cannot do."""
    prompt = " ".join(request.prompt.encode("utf-8", "replace").decode().split())
    if not prompt:
        raise UsageError("the prompt is empty", hint="say what the clip shall show")
    given, defaults = request, card.defaults
    negative = defaults.negative_prompt if given.negative_prompt is None else given.negative_prompt
    request = replace(
        given,
        prompt=prompt,
        negative_prompt=" ".join(negative.split()),
        frames=_or(given.frames, defaults.frames),
        fps=_or(given.fps, defaults.fps),
        width=_or(given.width, defaults.width),
        height=_or(given.height, defaults.height),
        steps=_or(given.steps, defaults.steps),
        guidance=_or(given.guidance, defaults.guidance),
        scheduler=_or(given.scheduler, defaults.scheduler),
    )
    if card.pipeline in VIDEO_TO_VIDEO:
        if not request.video:
            raise UsageError(f"{card.name} starts from a clip", hint="name it with --video")
        strength = _or(given.strength, defaults.strength)
        request = replace(request, video=os.path.abspath(request.video), strength=strength)
    elif request.video is not None or request.strength is not None:
        raise UsageError(f"{card.name} films from text alone; --video and --strength are for models that redraw a clip")
    _check(request, card)
    check_shortcuts(request, card)
    return replace(request, **shortcuts(request, card))


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _check(request: FilmRequest, card: GeneratorCard) -> None:
    rules, name = card.rules, card.name
    if not 0 <= request.seed <= LARGEST_SEED:
        raise UsageError(f"--seed is {request.seed}; it must be between 0 and {LARGEST_SEED}")
    _check_size(int(request.width or 0), int(request.height or 0), rules, name)
    _check_frames(int(request.frames or 0), rules, name)
    _check_number("--fps", request.fps, above=0, most=240)
    steps = int(request.steps or 0)
    if steps < rules.min_steps or steps > 1000:
        raise UsageError(f"--steps is {steps}; {name} can do {rules.min_steps} to 1000")
    guidance = request.guidance
    if guidance is None or not math.isfinite(guidance) or not rules.min_guidance <= guidance <= 100:
        raise UsageError(f"--guidance is {guidance}; {name} can do {rules.min_guidance:g} to 100")
    if request.strength is not None and not 0 < request.strength <= 1:
        raise UsageError(f"--strength is {request.strength}; it must be above 0 and at most 1")
    allowed = rules.schedulers or tuple(SCHEDULERS)
    if request.scheduler not in ("default", *allowed):
        what = "is not known" if request.scheduler not in SCHEDULERS else f"does not work with {name}"
        raise UsageError(f"the scheduler {request.scheduler!r} {what}", hint=f"possible: {', '.join(allowed)}")


def _check_size(width: int, height: int, rules: Rules, name: str) -> None:
    found = f"the size is {width}x{height}"
    if rules.sizes:
        if f"{width}x{height}" not in rules.sizes:
            raise UsageError(f"{found}; {name} can do {', '.join(rules.sizes)} only")
        return
    step = rules.size_multiple
    low, high = -(-rules.min_side // step) * step, rules.max_side // step * step
    if not all(low <= side <= high and side % step == 0 for side in (width, height)):
        near = "x".join(str(min(high, max(low, round(side / step) * step))) for side in (width, height))
        raise UsageError(
            f"{found}; {name} can do multiples of {step} from {low} to {high}", hint=f"the nearest is {near}"
        )


def _check_frames(frames: int, rules: Rules, name: str) -> None:
    step, offset = rules.frames_multiple, rules.frames_offset
    if rules.min_frames <= frames <= rules.max_frames and (frames - offset) % step == 0:
        return
    low = rules.min_frames + (offset - rules.min_frames) % step
    high = rules.max_frames - (rules.max_frames - offset) % step
    if low >= high:
        raise UsageError(f"--frames is {frames}; {name} can do {low} only")
    near = min(high, max(low, round((frames - offset) / step) * step + offset))
    shape = "" if step == 1 else f" of the form {step}k{f'+{offset}' if offset else ''}"
    raise UsageError(
        f"--frames is {frames}; {name} can do {low} to {high}{shape}",
        hint=f"the nearest is {near}" if step > 1 else None,
    )


def _check_number(option: str, value: float | None, *, above: float, most: float) -> None:
    if value is None or not math.isfinite(value) or not above < value <= most:
        raise UsageError(f"{option} is {value}; it must be above {above:g} and at most {most:g}")
