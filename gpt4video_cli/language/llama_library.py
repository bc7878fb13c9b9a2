"""llama.cpp itself: imported late and quietly, with what it logs kept for our own error messages.

llama.cpp writes hundreds of lines to stderr when it loads a model, and what went wrong is one of them. Here all lines
go to Python's logger ``LOGGER`` at the level DEBUG, which shows nothing unless somebody asked, and complaints are kept.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt4video_cli.errors import UsageError

LOGGER = "gpt4video.llama.cpp"
_WARNING, _ERROR, _CONTINUED = 3, 4, 5  # enum ggml_log_level of ggml.h; llama_cpp._logger has older numbers
_LONGEST_REASON = 300

_started = threading.Lock()
_running = threading.RLock()
_library: ModuleType | None = None
_kept: list[Any] = []
_complaints: deque[str] = deque(maxlen=20)
leaving = threading.Event()
"""Set when the interpreter ends: whatever calls back into Python stops at once."""


def library() -> ModuleType:
    """``llama_cpp``, imported (0.15 s, warm, 2 cores) and told to be quiet; ``UsageError`` where it is not there."""
    global _library
    with _started:
        if _library is None:
            _library = _start()
        return _library


def is_installed() -> bool:
    """Whether llama-cpp-python is here. Nothing is imported for that."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None


def _start() -> ModuleType:
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:  # llama_cpp raises the last two where its library is broken
        raise UsageError(
            f"the llama.cpp engine needs llama-cpp-python, which cannot be imported: {error}",
            hint="pip install llama-cpp-python, or use --engine torch",
        ) from error
    callback = llama_cpp.llama_log_callback(_log)
    _kept.append(callback)  # the library keeps only its address
    llama_cpp.llama_log_set(callback, None)
    llama_cpp.llama_backend_init()
    # A thread that is inside llama.cpp when the interpreter ends would call back into what is no longer there, or use
    # what `weakref.finalize` frees at the end. Of such hooks the last one set runs first, so the other is set here.
    weakref.finalize(llama_cpp, lambda: None)
    atexit.register(_wait)
    return llama_cpp


def _log(level: int, text: bytes | None, _: Any) -> None:
    if leaving.is_set():
        return
    line = (text or b"").decode("utf-8", "replace")
    if level in (_WARNING, _ERROR) and line.strip():
        _complaints.append(line.strip())
    if level != _CONTINUED and line.strip():
        logging.getLogger(LOGGER).debug("%s", line.rstrip())


def _wait() -> None:
    """Wait for what runs; nothing begins any more, as other threads would use what is being freed."""
    leaving.set()
    _running.acquire(timeout=60)


@contextmanager
def running() -> Iterator[None]:
    """Around what takes long in llama.cpp: the interpreter does not end inside, and complaints begin anew."""
    with _running:
        _complaints.clear()
        yield


def reason() -> str:
    """What llama.cpp complained of last, to be quoted: the first error of the call, which later ones follow from."""
    told = [_without_function(line) for line in _complaints]
    return (told[0] if told else "no reason given")[:_LONGEST_REASON]


def _without_function(line: str) -> str:
    """``llama_model_load: error loading model: ...`` without the C function's name."""
    name, found, rest = line.partition(": ")
    return rest if found and " " not in name else line


def physical_cores() -> int:
    """Cores that this process may use, two threads of one core counted once; ``OMP_NUM_THREADS`` where it is set.

    llama.cpp's threads wait for each other by spinning: more of them than cores make it slower.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in usable:
        place = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(((place / "physical_package_id").read_text(), (place / "core_id").read_text()))
        except OSError:  # not Linux, or no topology: each counts
            cores.add((str(cpu), ""))
    return max(1, len(cores))
