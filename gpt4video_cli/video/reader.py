"""Decoding in a child process: a time limit holds even when native code hangs, and a crash is only an error.

The child (``gpt4video_cli.video.worker``) is kept between clips, because starting one costs more than most clips do.
Messages are JSON lines with raw bytes after them; nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from gpt4video_cli.errors import ClipError, DecoderCrashedError, UsageError
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt
from gpt4video_cli.video.survey import Survey
from gpt4video_cli.video.url import local

TIME_LIMIT = 10.0
SURVEY_LIMIT = 30.0
"""Seconds for looking at all of a clip: 9,000 frames of 1280x720 take about 10 on 2 cores."""
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
WORKER = (sys.executable, "-m", "gpt4video_cli.video.worker")


class _ChildGone(Exception):
    """The child ended before it had answered."""


class _TooLate(Exception):
    """The time limit passed before the child had answered."""


class FrameReader:
    """Decodes clips in a killable child. A context manager; one ``read`` or ``probe`` at a time, from any thread."""

    def __init__(self, *, command: Sequence[str] = WORKER) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    def warm(self) -> None:
        """Start the child, without waiting for it, while the caller loads something else."""
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._kill()

    def read(
        self,
        path: str | os.PathLike[str],
        plan: SamplingPlan,
        *,
        min_side: int | None = None,
        time_limit: float = TIME_LIMIT,
    ) -> Clip:
        """Decode the moments that ``plan`` chooses, as ``read_clip`` does, within ``time_limit`` seconds."""
        path = os.fspath(path)
        request: dict[str, Any] = {"do": "read", "path": local(path), "plan": plan.as_dict(), "min_side": min_side}
        request["budget"] = 0.6 * time_limit
        with self._lock:
            answer, frames = self._exchange(path, request, time_limit)
        assert frames is not None
        times = np.array(answer["times"], np.float64)
        return Clip(frames, times, SamplingReceipt.from_dict({**answer["receipt"], "path": path}))

    def survey(
        self, path: str | os.PathLike[str], most: int, *, min_side: int, time_limit: float = SURVEY_LIMIT
    ) -> Survey:
        """Read at most ``most`` frames that stand for all of the clip, as ``video.survey.survey`` does."""
        path = os.fspath(path)
        request = {"do": "survey", "path": local(path), "most": most, "min_side": min_side, "budget": 0.8 * time_limit}
        with self._lock:
            answer, frames = self._exchange(path, request, time_limit)
        assert frames is not None
        return Survey(frames, tuple(answer["times"]), answer["looked_at"], answer["sha256"], answer["note"])

    def probe(self, path: str | os.PathLike[str], *, time_limit: float = TIME_LIMIT) -> dict[str, Any]:
        """``ClipInfo.as_dict()`` of the file, within ``time_limit`` seconds."""
        path = os.fspath(path)
        request = {"do": "probe", "path": local(path), "budget": 0.6 * time_limit}
        with self._lock:
            # The child stops looking for damage in time to answer.
            answer, _ = self._exchange(path, request, time_limit)
        info: dict[str, Any] = {**answer["info"], "path": path}
        return info

    def _exchange(self, path: str, request: dict[str, Any], limit: float) -> tuple[dict[str, Any], np.ndarray | None]:
        """Send one request; receive its header and, where it announces frames, uint8 [T, H, W, 3]."""
        deadline = time.monotonic() + limit
        child = self._start()
        # The child's own alarm: it ends a hanging child even where this process is gone.
        request["alarm"] = limit + 5.0
        try:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            answer = json.loads(_receive_line(child.stdout, deadline))
            frames = None
            if "shape" in answer:
                frames = np.empty(answer["shape"], np.uint8)
                _receive(child.stdout, frames.data.cast("B"), deadline)
        except _TooLate:
            self._kill()
            raise ClipError(path, f"decoding did not end within {limit:g} s and was stopped") from None
        except (_ChildGone, BrokenPipeError, ValueError):
            code = self._kill()
            raise DecoderCrashedError(path, f"the decoder crashed ({_how_it_ended(code)})") from None
        except BaseException:
            # Ctrl-C in the middle of an answer: the rest of it must not be taken for the next one.
            self._kill()
            raise
        if "error" in answer:
            if answer["error"] == "usage":
                raise UsageError(answer["reason"], hint=answer["hint"])
            raise ClipError(path, answer["reason"], hint=answer["hint"])
        return answer, frames

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        # The package may be used from a checkout that is not installed. One thread is enough for the child's numpy.
        search = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": search, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # Its own process group: Ctrl-C in the terminal stops the answer, not the decoder.
            start_new_session=True,
            bufsize=0,
        )
        return self._child

    def _kill(self) -> int | None:
        """End the child and whatever it started; its exit status, if there was one."""
        child, self._child = self._child, None
        if child is None:
            return None
        code = child.poll()
        if code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        # A process in an uninterruptible system call (a dead network disk) cannot be waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        return code


def _receive_line(pipe: IO[bytes], deadline: float) -> bytes:
    """The 8 hexadecimal digits of a length, then that many bytes of JSON."""
    length = bytearray(8)
    _receive(pipe, memoryview(length), deadline)
    line = bytearray(int(length, 16))
    _receive(pipe, memoryview(line), deadline)
    return bytes(line)


def _receive(pipe: IO[bytes], buffer: memoryview, deadline: float) -> None:
    """Fill ``buffer`` from ``pipe``."""
    filled = 0
    while filled < len(buffer):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise _TooLate
        count = os.readv(pipe.fileno(), [buffer[filled:]])
        if count == 0:
            raise _ChildGone
        filled += count


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "no answer"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
