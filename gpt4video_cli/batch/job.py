"""A job: clips, what is asked about them, and how. READ FIRST in this room.

The path of a job, in the order of the files: ``read_jobs.py`` (a line of a file, or a clip, becomes a job),
``job_key.py`` (what names a job by its content), ``results.py`` (what earlier runs did), ``shard.py`` (what this run
does), ``decoding.py`` and ``pipeline.py`` (decoding, vision and language side by side), ``answering.py`` (a job becomes
a record), ``run.py`` (all of it, and the summary). ``on_ray.py`` has the same pipeline on many machines.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from gpt4video_cli.errors import Gpt4VideoError, JobError, UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.strict_json import StrictJsonError, from_json
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import is_url
from gpt4video_cli.weights.card import Card

DESCRIBE = "Describe this video in detail."
"""What ``describe`` asks."""
LARGEST_SEED = 2**63 - 1
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HOW_MANY = ("frames", "fps", "max_frames", "at")
_PLAN = (*_HOW_MANY, "start", "end", "sampling")
_ANSWER = ("temperature", "top_p", "top_k", "repetition_penalty", "seed", "max_tokens", "stop")
_OF_THE_RUN = (*_ANSWER, "schema")


@dataclass(frozen=True)
class Job:
    """``clips`` are paths and http(s) addresses, shown with the first of ``prompts``, which are the messages of one
    conversation, in order.

    ``generate``: the answers are to ask for clips, which are filmed. ``line``: where it stands in its file, from 1.
    """

    id: str
    prompts: tuple[str, ...]
    clips: tuple[str, ...]
    plan: SamplingPlan
    options: SamplingOptions
    generate: bool = False
    line: int | None = None


@dataclass(frozen=True)
class JobFault:
    """A job that could not be read: where it stands, its id if that much is known, and why."""

    line: int | None
    id: str | None
    error: Gpt4VideoError


@dataclass(frozen=True)
class JobFields:
    """A job as it is written. None and nothing: not given. Times in seconds; ``clip`` is a list of one."""

    id: str | None = None
    clip: str | None = None
    clips: tuple[str, ...] = ()
    prompt: str | None = None
    prompts: tuple[str, ...] = ()
    describe: bool = False
    generate: bool = False
    frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    at: tuple[float, ...] = ()
    sampling: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


NAMES = tuple(one.name for one in dataclasses.fields(JobFields))


@dataclass(frozen=True)
class Defaults:
    """What holds where a job says nothing: the command line's ``prompt`` and ``fields`` (by the names of
    ``JobFields``), then the model's card. ``folder``: where relative paths of clips start."""

    card: Card
    prompt: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()


def check_names(names: Any) -> None:
    """Raise ``JobError`` for a field that no job has, with the nearest that one has."""
    for name in names:
        if name not in NAMES:
            near = get_close_matches(str(name), NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(NAMES)}"
            raise JobError(f"unknown field {str(name)[:40]!r}", hint=hint)


def make_job(value: Any, defaults: Defaults, *, line: int | None, name: str) -> Job:
    """The job that a JSON object says. ``name``: its id where it has none. Raises ``JobError`` or ``UsageError``."""
    if not isinstance(value, dict):
        raise JobError("not a job: a JSON object was expected", hint='{"id": "a", "clips": ["a.mp4"], "prompt": "..."}')
    check_names(value)
    if type(value.get("id")) is int:
        value = {**value, "id": str(value["id"])}
    try:
        fields = from_json({key: item for key, item in value.items() if item is not None}, JobFields, "job")
    except StrictJsonError as error:
        raise JobError(str(error)) from error
    job_id = name if fields.id is None else fields.id
    if not job_id.strip():
        raise JobError("the id is empty")
    if "schema" in defaults.fields and (fields.generate or fields.stop):
        raise JobError(f"{'generate' if fields.generate else 'stop'} and --schema contradict each other")
    return Job(
        id=job_id,
        prompts=_prompts(fields, defaults),
        clips=_clips(fields, defaults.folder),
        plan=_plan(_given(fields, _PLAN), defaults),
        options=_options(_given(fields, _ANSWER), defaults),
        generate=fields.generate,
        line=line,
    )


def _given(fields: JobFields, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(fields, name) for name in names}
    return {name: value for name, value in values.items() if value not in (None, ())}


def _prompts(fields: JobFields, defaults: Defaults) -> tuple[str, ...]:
    ways = [way for way in ("prompt", "prompts", "describe") if getattr(fields, way) not in (None, (), False)]
    if len(ways) > 1:
        raise JobError(f"{' and '.join(ways)} contradict each other; give one of them")
    if fields.describe:
        return (DESCRIBE,)
    found = fields.prompts or ((fields.prompt,) if fields.prompt is not None else ())
    if not found and defaults.prompt is not None:
        found = (defaults.prompt,)
    if not found:
        raise JobError("nothing is asked", hint='give a "prompt", "prompts", or "describe": true; or -p for all jobs')
    if any(not prompt.strip() for prompt in found):
        raise JobError("a prompt is empty")
    return found


def _clips(fields: JobFields, folder: Path) -> tuple[str, ...]:
    if fields.clip is not None and fields.clips:
        raise JobError("clip and clips contradict each other; give one of them")
    paths = fields.clips or ((fields.clip,) if fields.clip is not None else ())
    for path in paths:
        if not path or "\0" in path:
            raise JobError("the path of a clip is empty" if not path else "the path of a clip has a zero byte")
        if _SCHEME.match(path) and not is_url(path):
            raise JobError(f"{path}: of addresses only those with http and https are fetched", hint="fetch it first")
    return tuple(str(folder / path) if folder != Path() and not is_url(path) else path for path in paths)


def _plan(given: dict[str, Any], defaults: Defaults) -> SamplingPlan:
    base = {name: value for name, value in defaults.fields.items() if name in _PLAN}
    if any(name in given for name in _HOW_MANY):  # another way to choose moments takes the place of the first
        dropped = (*_HOW_MANY, "start", "end") if "at" in given else _HOW_MANY
        base = {name: value for name, value in base.items() if name not in dropped}
    values = base | given
    mode = values.pop("sampling", defaults.card.mode)
    if not any(name in values for name in _HOW_MANY):
        values["frames"] = defaults.card.frames
    return SamplingPlan(**values, mode=cast(Any, mode))  # the plan checks the spelling


def _options(given: dict[str, Any], defaults: Defaults) -> SamplingOptions:
    card = defaults.card
    base = {"temperature": card.temperature, "top_p": card.top_p, "max_tokens": card.max_tokens}
    values = base | {name: value for name, value in defaults.fields.items() if name in _OF_THE_RUN} | given
    if not 0 <= values.get("seed", 0) <= LARGEST_SEED:
        raise UsageError(f"seed is {values['seed']}; it must be between 0 and {LARGEST_SEED}")
    if "" in values.get("stop", ()):
        raise UsageError("stop has an empty text")
    return SamplingOptions(**values)
