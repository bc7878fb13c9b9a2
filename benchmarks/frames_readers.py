"""The ways to read frames that ``benchmarks.frames`` times, each in a child process that can be killed.

    python -m benchmarks.frames_readers decord

reads one JSON object a line (clip, moments in seconds, frames a second) and answers with one: seconds on the clock, of
processor time, and with ``check`` what each frame is. The libraries are used as their own manuals do.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

THUMB = 16
Reader = Callable[[str, Sequence[float], float], "tuple[np.ndarray, list[float] | None]"]


def ours(path: str, moments: Sequence[float], fps: float, mode: Any = "exact", identify: bool = False) -> Any:
    """``read_clip``: frames at full size and their times."""
    from gpt4video_cli.video.decode import read_clip
    from gpt4video_cli.video.sampling import SamplingPlan

    clip = read_clip(path, SamplingPlan(at=tuple(moments), mode=mode), identify=identify)
    return clip.frames, clip.times.tolist()


def decord(path: str, moments: Sequence[float], fps: float) -> Any:
    """By number of frame, and in a clip of varying rate (``fps`` 0) by the times that it knows."""
    import decord as library

    clip = library.VideoReader(path)
    if fps:
        numbers = [int(moment * fps + 1e-6) for moment in moments]
    else:
        starts = clip.get_frame_timestamp(range(len(clip)))[:, 0]
        numbers = [int(np.searchsorted(starts, moment + 1e-6, side="right")) - 1 for moment in moments]
    return clip.get_batch(numbers).asnumpy(), None


def opencv(path: str, moments: Sequence[float], fps: float) -> Any:
    """By number of frame, and in a clip of varying rate (``fps`` 0) by milliseconds. Blue first, as it is."""
    import cv2

    clip, frames = cv2.VideoCapture(path), []
    for moment in moments:
        if fps:
            clip.set(cv2.CAP_PROP_POS_FRAMES, int(moment * fps + 1e-6))
        else:
            clip.set(cv2.CAP_PROP_POS_MSEC, 1000 * moment)
        read, frame = clip.read()
        frames.append(frame if read else np.zeros((8, 8, 3), np.uint8))
    return frames, None


def ffmpeg(path: str, moments: Sequence[float], fps: float) -> Any:
    """One command for each frame: ``-ss`` before ``-i`` seeks, and decodes on to the first frame at or after it."""
    frames = []
    for moment in moments:
        command = [ffmpeg_program(), "-v", "error", "-ss", f"{moment:.6f}", "-i", path, "-frames:v", "1"]
        command += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
        picture = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True).stdout
        head, size, most, pixels = picture.split(b"\n", 3)
        assert (head, most) == (b"P6", b"255")
        width, height = map(int, size.split())
        frames.append(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
    return frames, None


def decode_all(path: str, moments: Sequence[float], fps: float) -> Any:
    """PyAV from the first frame to the last moment; what is to be turned is turned, as by all others."""
    import av

    frames: list[np.ndarray] = []

    def keep(frame: av.VideoFrame) -> None:
        frames.append(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)))

    with av.open(path) as clip:
        stream = clip.streams.video[0]
        stream.thread_type = "AUTO"
        before: Any = None
        for frame in clip.decode(stream):
            while len(frames) < len(moments) and frame.time > moments[len(frames)] + 1e-6:
                keep(before)
            if len(frames) == len(moments):
                break
            before = frame
        while len(frames) < len(moments):
            keep(before)
    return frames, None


def ffmpeg_program() -> str:
    """The one on the path, else the one that the package imageio-ffmpeg brings. Raises ``ImportError``."""
    found = shutil.which("ffmpeg")
    if found is None:
        import imageio_ffmpeg

        found = str(imageio_ffmpeg.get_ffmpeg_exe())
    return found


READERS: dict[str, Reader] = {
    "ours": ours,
    "ours, with SHA-256": lambda path, moments, fps: ours(path, moments, fps, identify=True),
    "ours, keyframes": lambda path, moments, fps: ours(path, moments, fps, "keyframe"),
    "decord": decord,
    "OpenCV": opencv,
    "ffmpeg": ffmpeg,
    "PyAV, all frames": decode_all,
}


def available(name: str) -> str:
    """Why this way cannot be measured here; nothing where it can."""
    try:
        if name == "ffmpeg":
            ffmpeg_program()
        elif name in ("decord", "OpenCV"):
            importlib.import_module({"decord": "decord", "OpenCV": "cv2"}[name])
    except ImportError as error:
        return f"{error}; `pip install '.[bench]'` brings it"
    return ""


def print_of(frame: np.ndarray) -> dict[str, Any]:
    """What a frame is: the digest of its bytes, its shape, and a thumbnail of its brightness."""
    height, width = (side // THUMB * THUMB for side in frame.shape[:2])
    # The middle, so that a turned frame has the same cells, turned.
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    few = frame[top : top + height : 4, left : left + width : 4, 1].astype(np.float32)
    cells = few.reshape(height // THUMB, THUMB // 4, width // THUMB, THUMB // 4).mean((1, 3))
    digest = hashlib.sha1(np.ascontiguousarray(frame).data).hexdigest()
    return {"sha1": digest, "shape": frame.shape, "thumb": np.round(cells, 1).tolist()}


class Child:
    """One way in a process of its own. decord has been seen to hang for ever in native code."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, limit: float, **request: Any) -> dict[str, Any]:
        """The child's answer. Raises ``TimeoutError`` after ``limit`` seconds, ``RuntimeError`` where it fails."""
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.frames_readers", self.name]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], limit)[0]:
            self.close()
            raise TimeoutError(f"did not end within {limit:g} s and was stopped")
        answer = self._process.stdout.readline()
        if not answer:
            self.close()
            raise RuntimeError("the process crashed")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def main() -> None:
    reader = READERS[sys.argv[1]]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            began, before = time.perf_counter(), _processor_time()
            frames, times = reader(request["path"], request["moments"], request["fps"])
            wall, cpu = time.perf_counter() - began, _processor_time() - before
            answer: dict[str, Any] = {"wall": wall, "cpu": cpu, "times": times}
            if request.get("check"):
                turn = slice(None, None, -1) if reader is opencv else slice(None)
                answer["frames"] = [print_of(frame[..., turn]) for frame in frames]
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _processor_time() -> float:
    """Seconds of this process and of the commands that it ran."""
    of_commands = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + of_commands.ru_utime + of_commands.ru_stime


if __name__ == "__main__":
    main()
