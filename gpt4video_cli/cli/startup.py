"""From a checked command line to an assistant that can answer, with as much as possible going on at once.

Measured on 2 cores, warm: torch 0.9 s, transformers' LLaMA 2.0 s more, both holding the interpreter lock, so importing
them in two threads takes longer (3.3 s) than one after the other (2.9 s). What does overlap: the decoder, a process of
its own, started first, has read the clips before torch is there; and the clips are encoded while a second thread
imports transformers and loads the language model.

With llama.cpp only the clips need torch, and a clip that an earlier run kept needs nothing: no decoder is started for
it, and torch is not imported.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gpt4video_cli.cli.options import switches
from gpt4video_cli.cli.policy_options import open_gates
from gpt4video_cli.language.llama_library import LOGGER
from gpt4video_cli.video.clip import Clip
from gpt4video_cli.video.preprocess import PreprocessConfig
from gpt4video_cli.video.reader import TIME_LIMIT, FrameReader
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt

if TYPE_CHECKING:
    from gpt4video_cli.assistant import Assistant
    from gpt4video_cli.cli.chat import ChatRequest
    from gpt4video_cli.model.checkpoint import Model
    from gpt4video_cli.session import ClipRequest

_Key = tuple[str, SamplingPlan, int | None]


class EarlyReader(FrameReader):
    """A ``FrameReader`` that may begin with a clip before it is asked for, and holds each to one time limit."""

    def __init__(self, *, limit: float = TIME_LIMIT) -> None:
        super().__init__()
        self._limit = limit
        self._pool = ThreadPoolExecutor(1)
        self._early: dict[_Key, Future[Clip]] = {}
        self.seconds = 0.0
        """Spent on reading clips, by the clock."""

    def begin(self, path: str | os.PathLike[str], plan: SamplingPlan, *, min_side: int | None) -> Future[Clip]:
        """Start reading; ``read`` with the same arguments gives the result, once."""
        key = (os.fspath(path), plan, min_side)
        if key not in self._early:
            self._early[key] = self._pool.submit(self._read, path, plan, min_side, self._limit)
        return self._early[key]

    def read(
        self,
        path: str | os.PathLike[str],
        plan: SamplingPlan,
        *,
        min_side: int | None = None,
        time_limit: float | None = None,
    ) -> Clip:
        """See ``FrameReader.read``; without ``time_limit`` the reader's own holds."""
        early = self._early.pop((os.fspath(path), plan, min_side), None)
        if early is not None:
            return early.result()
        return self._read(path, plan, min_side, time_limit or self._limit)

    def _read(self, path: str | os.PathLike[str], plan: SamplingPlan, min_side: int | None, limit: float) -> Clip:
        start = time.perf_counter()
        try:
            return super().read(path, plan, min_side=min_side, time_limit=limit)
        finally:
            self.seconds += time.perf_counter() - start

    def raise_failures(self) -> None:
        """Raise the error of a clip that was begun and has failed by now."""
        for early in self._early.values():
            if early.done():
                early.result()

    def forget(self) -> None:
        """Drop clips that were begun and never asked for."""
        self._early.clear()

    def close(self) -> None:
        """End the child, even in the middle of a clip."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        pid = self.pid
        if pid is not None:  # else `FrameReader.close` would wait for the clip that is being read
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        super().close()


class Startup:
    """Owns the decoder and loads the assistant."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self.timings: dict[str, float] = {}
        self._model: Model | None = None
        self._loading: threading.Thread | None = None
        self._assistant: Assistant | None = None
        known = request.cache
        self._new_clips = [clip for clip in request.clips if known is None or not known.may_have(clip.path)]
        self.reader = EarlyReader(limit=request.time_limit)
        self.min_side = PreprocessConfig.from_folder(request.folder / "vision").decode_side

    def __enter__(self) -> Startup:
        request = self._request
        if self._new_clips or request.prompt is None:
            self.reader.warm()
        for clip in self._new_clips:
            self.reader.begin(clip.path, clip.plan, min_side=self.min_side)
        self.gates = open_gates(self._request.policy)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.reader.close()

    def load(self) -> Assistant:
        """An assistant whose language model is still loading in the background; it waits for it where it needs it.

        The error of a clip that cannot be read is raised as soon as it is known.
        """
        quieten_libraries()
        from gpt4video_cli.assistant import Assistant
        from gpt4video_cli.model.checkpoint import open_model

        self.reader.raise_failures()
        request = self._request
        self._model = open_model(request.model, request.loading)
        self._loading = threading.Thread(target=self._load_language, name="load_language", daemon=True)
        with_torch = self._model.choice.name == "torch"
        if not with_torch:
            self._loading.start()
        if with_torch or self._new_clips:
            with self._timed("import_torch"):
                import torch  # noqa: F401
            self.reader.raise_failures()  # the decoder was done long before
        if with_torch:
            self._loading.start()
        self._assistant = Assistant(self._model, self.reader, request.cache, self.gates)
        return self._assistant

    def engine_as_dict(self) -> dict[str, Any]:
        """Which language engine was chosen, and the adapters in force; ready for JSON."""
        assert self._model is not None
        adapters = [{"name": a.name, "scale": a.scale, "path": str(a.path)} for a in self._model.adapters]
        return {**self._model.choice.as_dict(), "adapters": adapters}

    @property
    def loaded(self) -> bool:
        """Whether the language model is there (or has failed to load)."""
        return self._loading is not None and not self._loading.is_alive()

    def check_clips(self) -> None:
        """Wait for the clips of the command line; raises the error of the first that cannot be read."""
        for clip in self._request.clips:
            self.receipt(clip)

    def receipt(self, clip: ClipRequest) -> SamplingReceipt:
        """What was seen of a clip; decodes it, if it is new, and keeps the frames for the answer."""
        if self._assistant is not None and (seen := self._assistant.memory.recall(os.fspath(clip.path), clip.plan)):
            return seen.receipt
        try:
            return self.reader.begin(clip.path, clip.plan, min_side=self.min_side).result().receipt
        except BaseException:
            self.reader.forget()
            raise

    def _load_language(self) -> None:
        assert self._model is not None
        with suppress(Exception):  # the answer needs the same part and meets the same error
            if self._model.choice.name == "torch":
                with self._timed("import_transformers"):
                    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: F401
            with self._timed("load_language"):
                _ = self._model.engine

    def all_timings(self, reply: Mapping[str, float]) -> dict[str, float]:
        """Seconds by stage, of starting up and of ``reply``; ``total`` and ``first_token`` since the program's start.

        Stages overlap: together they are more than ``total``.
        """
        total = time.perf_counter() - switches.started
        stages = {**reply, **self.timings}
        timings = {
            "imports": sum(seconds for name, seconds in stages.items() if name.startswith("import_")),
            "weights": sum(seconds for name, seconds in stages.items() if name.startswith("load_")),
            "decode": self.reader.seconds,
            **{name: seconds for name, seconds in stages.items() if name not in ("decode", "first_token", "total")},
        }
        if "first_token" in reply:
            timings["first_token"] = total - reply["total"] + reply["first_token"]
        timings["total"] = total
        return {name: round(seconds, 4) for name, seconds in timings.items()}

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - start


def quieten_libraries() -> None:
    """Nothing but our own lines on stderr: no progress bars, no library's warnings, unless --debug asks for them."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if switches.debug:
        chatter = logging.getLogger(LOGGER)
        chatter.addHandler(logging.StreamHandler())
        chatter.setLevel(logging.DEBUG)
    else:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        warnings.filterwarnings("ignore")
