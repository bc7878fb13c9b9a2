"""Clips decoded before they are asked for, in several child processes at once."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from signal import SIGKILL

from gpt4video_cli.errors import ClipError, DecoderCrashedError
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.reader import TIME_LIMIT, WORKER, FrameReader
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.video.url import stop_fetching

_Key = tuple[str, SamplingPlan, int | None]


class AheadReader(FrameReader):
    """``workers`` decoders for clips that were begun with ``begin``; ``read`` gives those without waiting for them.

    A decoder that dies is started again and its clip tried once more. Each clip has ``limit`` seconds. Use it from any
    thread; the caller bounds how many clips are begun and not yet read, which are held in memory.
    """

    def __init__(self, workers: int, *, limit: float = TIME_LIMIT, command: Sequence[str] = WORKER) -> None:
        super().__init__(command=command)  # a child of its own for what was not begun, and for surveys
        self._limit = limit
        self._readers = [FrameReader(command=command) for _ in range(workers)]
        self._idle: queue.SimpleQueue[FrameReader] = queue.SimpleQueue()
        for reader in self._readers:
            self._idle.put(reader)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._early: dict[_Key, Future[Clip]] = {}
        self._guard = threading.Lock()
        self._closed = False

    def warm(self) -> None:
        """Start the decoders without waiting for them."""
        for reader in self._readers:
            reader.warm()

    def begin(self, path: str, plan: SamplingPlan, *, min_side: int | None) -> Future[Clip] | None:
        """Start decoding, unless the same was begun and not yet read; what tells the end. None: all are stopped."""
        key = (path, plan, min_side)
        with self._guard:
            if key not in self._early and not self._closed:
                self._early[key] = self._pool.submit(self._decode, *key)
            return self._early.get(key)

    def forget(self, path: str, plan: SamplingPlan, *, min_side: int | None) -> None:
        """Drop a clip that was begun and not read."""
        with self._guard:
            self._early.pop((path, plan, min_side), None)

    def read(
        self,
        path: str | os.PathLike[str],
        plan: SamplingPlan,
        *,
        min_side: int | None = None,
        time_limit: float | None = None,
    ) -> Clip:
        """See ``FrameReader.read``; a clip that was begun is waited for, and given once."""
        with self._guard:
            early = self._early.pop((os.fspath(path), plan, min_side), None)
            if self._closed:
                raise ClipError(os.fspath(path), "was not decoded: the decoders are stopped")
        if early is not None:
            return early.result()
        return self._twice(super().read, os.fspath(path), plan, min_side, time_limit or self._limit)

    def _decode(self, path: str, plan: SamplingPlan, min_side: int | None) -> Clip:
        reader = self._idle.get()
        try:
            return self._twice(reader.read, path, plan, min_side, self._limit)
        finally:
            self._idle.put(reader)

    def _twice(
        self, read: Callable[..., Clip], path: str, plan: SamplingPlan, min_side: int | None, limit: float
    ) -> Clip:
        """``read``, and once more where the decoder's process died, of this clip or of something else."""
        try:
            return read(path, plan, min_side=min_side, time_limit=limit)
        except DecoderCrashedError:
            if self._closed:
                raise
            return read(path, plan, min_side=min_side, time_limit=limit)

    def close(self) -> None:
        """End all decoders, even in the middle of a clip; whoever waits for a clip gets an error."""
        with self._guard:
            self._closed = True
            stop_fetching()
            left, self._early = list(self._early.values()), {}
        self._pool.shutdown(wait=False, cancel_futures=True)
        for reader in self._readers:
            if (pid := reader.pid) is not None:  # else closing it would wait for the clip that it decodes
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, SIGKILL)
        for future in left:
            future.cancel()
        self._pool.shutdown(wait=True)
        for reader in self._readers:
            reader.close()
        super().close()
