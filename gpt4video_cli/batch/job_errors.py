"""Why a job failed, as a line of the errors file says it."""

from __future__ import annotations

from typing import Any

from gpt4video_cli.batch.job import Job, JobFault
from gpt4video_cli.errors import (
    ClipError,
    ContextFullError,
    ExitCode,
    GenerationError,
    Gpt4VideoError,
    JobError,
    RefusedError,
    UsageError,
    WeightsError,
    WorkerDiedError,
)
from gpt4video_cli.events import Refusal


class FailedElsewhere(Gpt4VideoError):
    """What failed on another machine, as it is told there: ``fields`` of ``error_fields``; ``ends``: no other job can
    fare better."""

    def __init__(self, fields: dict[str, Any], *, ends: bool) -> None:
        super().__init__(fields["error"], hint=fields["hint"])
        self.exit_code = ExitCode(fields["exit_code"])
        self.fields = fields
        self.ends = ends


KINDS: tuple[tuple[type[Exception], str], ...] = (
    (RefusedError, "refused"),
    (JobError, "job"),
    (ClipError, "clip"),
    (ContextFullError, "context"),
    (UsageError, "usage"),
    (WeightsError, "weights"),
    (GenerationError, "generation"),
    (MemoryError, "memory"),
    (WorkerDiedError, "worker"),
    (Gpt4VideoError, "failed"),
)
"""Class -> its name in the errors file; the first that fits. Everything else is ``internal``."""


_REFUSAL = ("guard", "category", "subject", "message")


class JobRefusedError(RefusedError):
    """A guard said no in the middle of a job."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def kind_of(error: Exception) -> str:
    """What kind of failure ``error`` is, in one word."""
    if isinstance(error, FailedElsewhere):
        return str(error.fields["kind"])
    return next((name for kind, name in KINDS if isinstance(error, kind)), "internal")


def why(error: Exception) -> str:
    """What happened, on one line, without the hint."""
    text = str(error) if isinstance(error, Gpt4VideoError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def error_fields(job: Job | JobFault, error: Exception) -> dict[str, Any]:
    """What a line of the errors file says beside the id."""
    if isinstance(error, FailedElsewhere):
        return error.fields
    refusal = error.refusal if isinstance(error, JobRefusedError) else None
    return {
        "line": job.line,
        "kind": kind_of(error),
        "error": why(error),
        "hint": error.hint if isinstance(error, Gpt4VideoError) else None,
        "exit_code": int(error.exit_code if isinstance(error, Gpt4VideoError) else ExitCode.FAILED),
        "refusal": None if refusal is None else {name: getattr(refusal, name) for name in _REFUSAL},
        "clips": list(job.clips) if isinstance(job, Job) else [],
    }


def ends_the_run(error: Exception) -> bool:
    """Whether no other job can fare better: the model itself is missing, damaged or cannot be run here."""
    if isinstance(error, FailedElsewhere):
        return error.ends
    return isinstance(error, WeightsError | ImportError)
