"""The child process that decodes: ``python -m gpt4video_cli.video.worker``, started by ``FrameReader``.

One JSON object a line on stdin; for each, 8 hexadecimal digits of length, JSON of that length and raw frames on stdout.
It imports av and numpy, and Pillow for images; never torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from gpt4video_cli.errors import ClipError, UsageError


def main() -> None:
    """Answer requests until stdin ends, which it does when the parent ends."""
    answers = os.dup(1)
    # Whatever native code prints must not get between the answers.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    import av

    av.logging.set_level(None)
    av.logging.set_libav_level(av.logging.PANIC)
    while True:
        request = json.loads(requests.get())
        # The default action of this signal ends the process, also inside native code.
        signal.setitimer(signal.ITIMER_REAL, request["alarm"])
        header, frames = _answer(request)
        line = json.dumps(header).encode()
        _send(answers, b"%08x" % len(line) + line)
        if frames is not None:
            _send(answers, frames)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _listen(requests: queue.Queue[bytes]) -> None:
    """Pass requests on. The end of stdin means that the parent is gone: leave at once, decoding or not."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], memoryview | None]:
    from gpt4video_cli.video.decode import read_clip
    from gpt4video_cli.video.sampling import SamplingPlan

    try:
        if request["do"] == "probe":
            from gpt4video_cli.video.probe import inspect

            return {"info": inspect(request["path"], budget=request["budget"]).as_dict()}, None
        if request["do"] == "survey":
            return _surveyed(request)
        plan = SamplingPlan.from_dict(request["plan"])
        clip = read_clip(request["path"], plan, min_side=request["min_side"], budget=request["budget"])
    except ClipError as error:
        return {"error": "clip", "reason": error.reason, "hint": error.hint}, None
    except UsageError as error:
        return {"error": "usage", "reason": str(error), "hint": error.hint}, None
    except MemoryError:
        return {"error": "clip", "reason": "there is not enough memory to decode it", "hint": None}, None
    except Exception as error:
        return {"error": "clip", "reason": f"cannot be decoded ({type(error).__name__}: {error})", "hint": None}, None
    header = {"shape": clip.frames.shape, "times": clip.times.tolist(), "receipt": clip.receipt.as_dict()}
    return header, clip.frames.data.cast("B")


def _surveyed(request: dict[str, Any]) -> tuple[dict[str, Any], memoryview]:
    from gpt4video_cli.video.survey import survey

    found = survey(request["path"], request["most"], min_side=request["min_side"], budget=request["budget"])
    header = {"shape": found.frames.shape, "times": found.times, "looked_at": found.looked_at}
    return {**header, "sha256": found.sha256, "note": found.note}, found.frames.data.cast("B")


def _send(pipe: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(pipe, view) :]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
