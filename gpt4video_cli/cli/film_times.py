"""What filming took on this machine, kept between runs, so that the cost of the next clip can be told before."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4video_cli.cli.folders import data_folder
from gpt4video_cli.strict_json import StrictJsonError, from_json, loads
from gpt4video_cli.whole_file import write_whole

if TYPE_CHECKING:
    from gpt4video_cli.gallery.generator import Film, FilmRequest

NAME = "film_times.json"
VERSION = 1
MOST = 200
"""Models that are remembered; the oldest go first."""


@dataclass(frozen=True)
class FilmTime:
    """Seconds: ``load`` once; ``step`` for each step of denoising and ``decode`` once, both for a million pixels of
    the whole clip (frames x width x height). ``revision`` of the model."""

    revision: str
    load: float
    step: float
    decode: float


@dataclass(frozen=True)
class _File:
    version: int = VERSION
    times: tuple[FilmTime, ...] = ()


def remember(film: Film) -> None:
    """Keep what ``film`` took. Where the folder cannot be written nothing is kept, and nothing is said."""
    seconds, size = film.seconds, _millions(film.request)
    if size <= 0 or not film.request.steps or "denoise" not in seconds:
        return
    known = _read()
    before = known.pop(film.revision, None)
    load = seconds.get("load") or (before.load if before else 0.0)  # 0: the model was loaded already
    step, decode = seconds["denoise"] / film.request.steps / size, seconds.get("decode", 0.0) / size
    kept = [*known.values(), FilmTime(film.revision, load, step, decode)][-MOST:]
    with suppress(OSError):
        write_whole(_path(), json.dumps(asdict(_File(times=tuple(kept))), indent=1, allow_nan=False))


def expected_seconds(request: FilmRequest, revision: str, *, loaded: bool) -> float | None:
    """How long the completed ``request`` will take; None where this model has not filmed here yet."""
    time = _read().get(revision)
    if time is None:
        return None
    size = _millions(request)
    return (0.0 if loaded else time.load) + size * (time.step * (request.steps or 0) + time.decode)


def _millions(request: FilmRequest) -> float:
    return (request.frames or 0) * (request.width or 0) * (request.height or 0) / 1e6


def _path() -> Path:
    return data_folder() / NAME


def _read() -> dict[str, FilmTime]:
    try:
        file = from_json(loads(_path().read_bytes()), _File, NAME)
    except (OSError, StrictJsonError):
        return {}
    return {time.revision: time for time in file.times} if file.version == VERSION else {}
