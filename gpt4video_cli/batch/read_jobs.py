"""Where jobs come from: a JSONL or CSV file, stdin, clips, folders. A line that holds no job stops none of the others.

JSONL: one JSON object a line, the fields of ``job.JobFields``. CSV: a header with the same names; a cell of ``clips``
holds paths separated by ``;``, one of ``at`` times, one of ``prompts`` or ``stop`` a text on each of its lines; an
empty cell is not given. A relative path starts in the folder of the file; from stdin in the current one.
"""

from __future__ import annotations

import csv
import io
import os
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from gpt4video_cli.batch.job import Defaults, Job, JobFault, JobFields, check_names, make_job
from gpt4video_cli.errors import Gpt4VideoError, InputError, JobError, UsageError
from gpt4video_cli.strict_json import StrictJsonError, loads

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes. A file without line ends must not fill the memory."""
JSON_ENDINGS = (".jsonl", ".ndjson")
CSV_ENDING = ".csv"
CLIP_ENDINGS = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # what a folder gives
)
_SEPARATORS = {"clips": ";", "at": ";", "prompts": "\n", "stop": "\n"}
_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES = typing.get_type_hints(JobFields)

Read = Job | JobFault


def is_jobs_file(path: str) -> bool:
    """Whether ``path`` names jobs and not a clip: by its ending, or ``-`` for stdin."""
    return path == "-" or path.lower().endswith((*JSON_ENDINGS, CSV_ENDING))


def read_jobs(paths: Sequence[str], defaults: Defaults, stdin: BinaryIO | None = None) -> list[Read]:
    """All jobs of one jobs file or of stdin (``-``), or one job for each of the clips and of the clips in the folders.

    Of two jobs with one id the second is a fault. Raises ``InputError`` for a file or folder that cannot be read.
    """
    if any(is_jobs_file(path) for path in paths):
        if len(paths) > 1:
            raise InputError(f"{paths[0]}, {paths[1]}: jobs come from one file, or from clips and folders")
        return list(_unique(_from_file(paths[0], defaults, stdin)))
    if defaults.prompt is None:
        raise UsageError("nothing is asked about these clips", hint="give a question with -p, or --describe")
    return list(_unique(_from_clips(paths, defaults)))


def _from_file(path: str, defaults: Defaults, stdin: BinaryIO | None) -> Iterator[Read]:
    if path == "-":
        if stdin is None:
            raise InputError("stdin is closed; jobs were to come from it")
        yield from jsonl_jobs(stdin, defaults)
        return
    reader = csv_jobs if path.lower().endswith(CSV_ENDING) else jsonl_jobs
    try:
        with open(path, "rb") as file:
            yield from reader(file, replace(defaults, folder=Path(path).parent))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except JobError as error:  # the header of a CSV file
        raise InputError(f"{path}: {error}", hint=error.hint) from error


def jsonl_jobs(file: BinaryIO, defaults: Defaults) -> Iterator[Read]:
    """A job or a fault for each line that is not blank. A job without an id is called after its line: ``line-7``."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            yield JobFault(number, None, JobError(f"the line is longer than {LONGEST_LINE} bytes"))
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
        elif content := line.removeprefix(b"\xef\xbb\xbf").strip():
            try:
                value = loads(content)
            except StrictJsonError as error:
                yield JobFault(number, None, JobError(str(error)))
            else:
                yield _job(value, defaults, number)


def csv_jobs(file: BinaryIO, defaults: Defaults) -> Iterator[Read]:
    """A job or a fault for each row. Raises ``JobError`` for a header with a name that no field has."""
    # What is no UTF-8 becomes half characters, which name the row that has them.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text)
    header = [name.strip() for name in next(rows, [])]
    check_names(header)
    if len(set(header)) < len(header):
        raise JobError("the header names a field twice")
    while True:
        before = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            text.detach()
            return
        except csv.Error as error:
            yield JobFault(before, None, JobError(f"not CSV: {error}"))
            continue
        if not any(cell.strip() for cell in row):
            continue
        try:
            value = _row(header, row)
        except JobError as error:
            yield JobFault(before, dict(zip(header, row, strict=False)).get("id") or None, error)
        else:
            yield _job(value, defaults, before)


def _row(header: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    if len(row) > len(header):
        raise JobError(f"the row has {len(row)} cells, the header {len(header)}")
    if any("\udc80" <= letter <= "\udcff" for cell in row for letter in cell):
        raise JobError("not text in UTF-8")
    return {name: _cell(name, cell) for name, cell in zip(header, row, strict=False) if cell.strip()}


def _cell(name: str, text: str) -> Any:
    """A cell as JSON would say it."""
    if separator := _SEPARATORS.get(name):
        parts = [part.strip() for part in text.split(separator) if part.strip()]
        return [_number(name, part, float) for part in parts] if name == "at" else parts
    kinds = typing.get_args(_TYPES[name]) or (_TYPES[name],)
    if bool in kinds:
        if text.strip().lower() not in _SWITCH:
            raise JobError(f"{name} is {text[:40]!r}; it must be true or false")
        return _SWITCH[text.strip().lower()]
    for kind in (int, float):
        if kind in kinds:
            return _number(name, text, kind)
    return text


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise JobError(f"{name} is {text[:40]!r}; it must be {expected}") from None


def _from_clips(paths: Iterable[str], defaults: Defaults) -> Iterator[Read]:
    """A job for each clip, called after its path."""
    for path in paths:
        clips = _clips_in(path) if os.path.isdir(path) else [path]
        if not clips:
            raise InputError(
                f"{path}: no clips in this folder", hint=f"it is searched for {' '.join(sorted(CLIP_ENDINGS))}"
            )
        for clip in clips:
            yield _job({"id": clip, "clips": [clip]}, defaults, None)


def _clips_in(folder: str) -> list[str]:
    """The clips in ``folder`` and its folders, by name; hidden ones are left out."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in CLIP_ENDINGS
        ]
    return sorted(found)


def _job(value: Any, defaults: Defaults, line: int | None) -> Read:
    try:
        return make_job(value, defaults, line=line, name=f"line-{line}")
    except Gpt4VideoError as error:
        named = value.get("id") if isinstance(value, dict) else None
        return JobFault(line, named if isinstance(named, str) else None, error)


def _unique(jobs: Iterable[Read]) -> Iterator[Read]:
    seen: dict[str, int | None] = {}
    for job in jobs:
        if isinstance(job, Job) and job.id in seen:
            where = "" if seen[job.id] is None else f" on line {seen[job.id]}"
            yield JobFault(job.line, job.id, JobError(f"the id {job.id!r} was given before{where}"))
            continue
        if isinstance(job, Job):
            seen[job.id] = job.line
        yield job
