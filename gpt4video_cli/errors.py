"""Every error the program raises on purpose, its exit code and its hint.

One tree, so that a command can catch ``Gpt4VideoError`` and print one line: what happened, to which file, what to do.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What a shell script learns from the program's end."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INPUT = 3
    WEIGHTS = 4
    REFUSED = 5
    PARTIAL = 6
    INTERRUPTED = 130


class Gpt4VideoError(Exception):
    """Base of all expected errors. ``str(error)`` is one line; ``hint`` says what to do about it."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def line(self) -> str:
        """The message and its hint on one line."""
        text = str(self) if self.hint is None else f"{self}; {self.hint}"
        return " ".join(text.split())


class UsageError(Gpt4VideoError):
    """Options or arguments that contradict each other or are out of range."""

    exit_code = ExitCode.USAGE


class ContextFullError(UsageError):
    """The message alone is longer than the language model's context."""


class InputError(Gpt4VideoError):
    """A file given by the user cannot be read."""

    exit_code = ExitCode.INPUT


class ClipError(InputError):
    """A clip cannot be read. The message always names the file and the reason."""

    def __init__(self, path: str | Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = str(path)
        self.reason = reason


class DecoderCrashedError(ClipError):
    """The decoder's process ended in the middle of a clip; another try may go well."""


class JobError(InputError):
    """A job of a batch is malformed."""


class SessionFileError(InputError):
    """A saved conversation cannot be read."""


class WeightsError(Gpt4VideoError):
    """Weights are missing, incomplete or of another shape than the configuration says."""

    exit_code = ExitCode.WEIGHTS


class RefusedError(Gpt4VideoError):
    """A safety guard said no."""

    exit_code = ExitCode.REFUSED


class GenerationError(Gpt4VideoError):
    """A clip could not be filmed: out of memory, or nothing came out that is worth a file."""


class AnswerError(Gpt4VideoError):
    """The answer is not what was asked for: no JSON document, or none that keeps to the schema."""


class WorkerDiedError(Gpt4VideoError):
    """The process that did a job of a batch ended in the middle of it, each time that it was tried."""


class CancelledError(Gpt4VideoError):
    """The person stopped it; nothing failed."""

    exit_code = ExitCode.INTERRUPTED
