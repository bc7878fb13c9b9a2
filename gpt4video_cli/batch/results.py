"""The files that a batch leaves: a line for each job that is done, and one in another file for each that failed.

    {"gpt4video": "result", "schema": 1, "id": ..., "key": ..., "model_digest": ..., "answer": ..., ...}
    {"gpt4video": "error", "schema": 1, "id": ..., "line": ..., "kind": ..., "error": ..., "exit_code": ..., ...}

``key`` names the work by its content (``job_key.py``); ``elapsed`` is when the line was written, in seconds since the
run began with its first job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt4video_cli.batch.line_file import LineFile, whole_lines
from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.gallery.new_file import cannot_be_written
from gpt4video_cli.strict_json import StrictJsonError, loads
from gpt4video_cli.whole_file import write_whole

SCHEMA = 1
What = Literal["result", "error"]
_BEGINNING = b'{"gpt4video": "'
"""What every line of ours begins with: half a line that begins otherwise is somebody else's."""


@dataclass(frozen=True)
class DoneJob:
    """A line of a results file, as far as going on needs it."""

    id: str
    key: str
    model_digest: str
    elapsed: float


def result_line(job_id: str, key: str, model: str) -> dict[str, Any]:
    """What a line of a results file begins with."""
    return {"gpt4video": "result", "schema": SCHEMA, "id": job_id, "key": key, "model_digest": model}


def error_line(job_id: str | None) -> dict[str, Any]:
    """What a line of an errors file begins with."""
    return {"gpt4video": "error", "schema": SCHEMA, "id": job_id}


def open_file(path: Path, what: What, *, resume: bool, force: bool) -> tuple[LineFile, list[dict[str, Any]]]:
    """The file, ready for more lines, and the lines that it holds, without their bulk.

    ``resume``: half a line at its end is dropped. ``force``: what the file holds is dropped. With neither it must be
    empty or new. A file of anything else is never touched: ``UsageError``.
    """
    file = LineFile(path)
    try:
        lines = read_lines(path, what)
        tail = file.tail()
        if tail and not (tail.startswith(_BEGINNING) or _BEGINNING.startswith(tail)):
            raise _foreign(path, what, f"its end is {tail[:20]!r}")
        if force:
            file.clear()
            lines = []
        elif resume:
            file.drop_tail()
        elif lines or tail:
            raise UsageError(
                f"{path}: holds {len(lines)} {what}s of an earlier run",
                hint="--resume goes on with it, --force drops them"
                + (", --errors names another file" if what == "error" else ""),
            )
        return file, lines
    except BaseException:
        file.close()
        raise


def read_lines(path: Path, what: What) -> list[dict[str, Any]]:
    """The file's whole lines without their bulk; ``UsageError`` where one is not of that kind."""
    kept = []
    for number, line in enumerate(whole_lines(path), start=1):
        try:
            value = loads(line)
        except StrictJsonError as error:
            raise _foreign(path, what, f"line {number}: {error}") from None
        if not isinstance(value, dict) or value.get("gpt4video") != what:
            raise _foreign(path, what, f"line {number} is something else")
        if value.get("schema") != SCHEMA:
            raise UsageError(f"{path}: line {number} has schema {value.get('schema')!r}; this program reads {SCHEMA}")
        kept.append({name: value.get(name) for name in ("id", "key", "model_digest", "elapsed")})
    return kept


def drop_errors(file: LineFile, settled: Callable[[dict[str, Any]], bool]) -> LineFile:
    """The errors file without the lines that are ``settled``, written whole; ``file`` is closed, the new one open."""
    kept = []
    for line in whole_lines(file.path):
        value = loads(line)
        if not settled(value):
            kept.append(line)
    with file:
        try:
            write_whole(file.path, b"".join(kept).decode())
        except OSError as error:
            raise cannot_be_written(file.path, error) from error
    return LineFile(file.path)


def _foreign(path: Path, what: What, found: str) -> UsageError:
    return UsageError(f"{path}: is not a file of {what}s of a batch ({found})", hint="name another file")


def done_jobs(path: Path, lines: Iterable[dict[str, Any]]) -> list[DoneJob]:
    """The lines of a results file, strictly."""
    done = []
    for number, line in enumerate(lines, start=1):
        one = DoneJob(line["id"], line["key"], line["model_digest"], line["elapsed"])
        if not all(isinstance(text, str) for text in (one.id, one.key, one.model_digest)):
            raise InputError(f"{path}: line {number} is damaged: its id, key or model_digest is missing")
        if not isinstance(one.elapsed, int | float):
            raise InputError(f"{path}: line {number} is damaged: elapsed is missing")
        done.append(one)
    return done
