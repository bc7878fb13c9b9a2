"""The child process: it agrees with decoding here, can hang, crash or be orphaned, and costs little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.errors import ClipError
from gpt4video_cli.video.decode import FrameReader, read_clip
from gpt4video_cli.video.reader import PACKAGE_ROOT
from gpt4video_cli.video.sampling import SamplingPlan
from tests.video.films import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("reader") / "a.mp4", count=5)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pid)


@pytest.mark.parametrize("min_side", [None, 32])
def test_the_child_gives_what_decoding_here_gives(reader: FrameReader, clip: Path, min_side: int | None) -> None:
    here, there = (
        read_clip(clip, SamplingPlan(), min_side=min_side),
        reader.read(clip, SamplingPlan(), min_side=min_side),
    )
    assert np.array_equal(here.frames, there.frames) and there.frames.dtype == np.uint8
    assert np.array_equal(here.times, there.times) and there.times.dtype == np.float64
    assert here.receipt == there.receipt


def test_one_child_serves_many_clips(clip: Path) -> None:
    with FrameReader() as reader:
        reader.warm()
        pid = reader.pid
        assert pid is not None
        for _ in range(3):
            reader.read(clip, SamplingPlan(frames=1))
        with pytest.raises(ClipError):
            reader.read(clip.with_name("missing.mp4"), SamplingPlan())
        assert reader.pid == pid
    assert gone_within(pid, 2) and reader.pid is None


def test_a_child_that_hangs_is_killed_at_the_limit_and_replaced(clip: Path) -> None:
    with FrameReader() as reader:
        reader.read(clip, SamplingPlan(frames=1))
        pid = reader.pid
        assert pid is not None
        # Stopped: nothing in it runs any more, neither Python nor native code nor its own alarm.
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(ClipError, match=r"a\.mp4: decoding did not end within 0\.5 s and was stopped"):
            reader.read(clip, SamplingPlan(frames=1), time_limit=0.5)
        assert 0.4 < time.monotonic() - begin < 2
        assert gone_within(pid, 2)
        assert reader.read(clip, SamplingPlan(frames=1)).frames.shape[0] == 1
        assert reader.pid != pid


@pytest.mark.parametrize("answer", [b"", b"000000ff{", b"00000011" + b'{"shape": [9999]}'])
def test_an_answer_that_never_ends_is_not_waited_for(tmp_path: Path, clip: Path, answer: bytes) -> None:
    script = tmp_path / "child.py"
    script.write_text(f"import os, time\nos.write(1, {answer!r})\ntime.sleep(600)\n")
    with FrameReader(command=[sys.executable, str(script)]) as reader:
        with pytest.raises(ClipError, match="did not end within 1 s"):
            reader.read(clip, SamplingPlan(), time_limit=1)


def test_what_the_child_started_dies_with_it(tmp_path: Path, clip: Path) -> None:
    script = tmp_path / "child.py"
    note = tmp_path / "grandchild"
    script.write_text(
        "import pathlib, subprocess, time\n"
        f"pathlib.Path({str(note)!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))\ntime.sleep(600)\n"
    )
    with FrameReader(command=[sys.executable, str(script)]) as reader:
        with pytest.raises(ClipError):
            reader.read(clip, SamplingPlan(), time_limit=1.5)
    assert gone_within(int(note.read_text()), 2)


def test_a_crash_is_an_error_with_its_reason_and_the_next_clip_works(clip: Path) -> None:
    with FrameReader() as reader:
        reader.warm()
        pid = reader.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # so that the crash falls into the answer
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(ClipError, match=r"a\.mp4: the decoder crashed"):
            reader.read(clip, SamplingPlan(), time_limit=5)
        assert reader.read(clip, SamplingPlan(frames=1)).frames.shape[0] == 1


def test_a_child_that_cannot_start_says_so(clip: Path) -> None:
    with FrameReader(command=[sys.executable, "-c", "raise SystemExit(7)"]) as reader:
        with pytest.raises(ClipError, match="the decoder crashed"):
            reader.read(clip, SamplingPlan())


PARENT = """
    import sys, time
    from gpt4video_cli.video.decode import FrameReader
    from gpt4video_cli.video.sampling import SamplingPlan
    reader = FrameReader()
    reader.read({clip!r}, SamplingPlan(frames=1))
    print(reader.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_child_dies_with_its_parent(clip: Path, how: signal.Signals) -> None:
    script = textwrap.dedent(PARENT).format(clip=str(clip))
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.send_signal(how)
    parent.wait()
    parent.stdout.close()
    assert gone_within(pid, 3)


def test_ctrl_c_in_the_terminal_does_not_reach_the_child(clip: Path) -> None:
    with FrameReader() as reader:
        reader.warm()
        assert reader.pid is not None
        assert os.getpgid(reader.pid) == reader.pid != os.getpgid(0)


def test_an_interrupted_answer_is_not_taken_for_the_next_one(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpt4video_cli.video.reader as module

    with FrameReader() as reader:
        whole = module._receive

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.read(clip, SamplingPlan(frames=3))
        monkeypatch.setattr(module, "_receive", whole)
        assert reader.read(clip, SamplingPlan(frames=1)).frames.shape[0] == 1


def test_threads_wait_for_each_other(reader: FrameReader, clip: Path) -> None:
    counts: dict[int, int] = {}

    def read(number: int) -> None:
        counts[number] = reader.read(clip, SamplingPlan(frames=number)).frames.shape[0]

    threads = [threading.Thread(target=read, args=(n,)) for n in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {n: n for n in range(1, 6)}


def test_the_child_imports_no_torch_and_the_parent_no_av(clip: Path) -> None:
    code = (
        "import sys, json, gpt4video_cli.video.decode, gpt4video_cli.video.probe, gpt4video_cli.video.preprocess\n"
        "parent = sorted(m for m in ('av', 'torch', 'PIL', 'transformers') if m in sys.modules)\n"
        "from gpt4video_cli.video import worker\n"
        "plan = gpt4video_cli.video.decode.SamplingPlan(frames=1).as_dict()\n"
        f"worker._answer(dict(do='read', path={str(clip)!r}, plan=plan, min_side=None, budget=9))\n"
        "child = sorted(m for m in ('av', 'torch', 'PIL', 'transformers') if m in sys.modules)\n"
        "print(json.dumps([parent, child]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(result.stdout) == [[], ["av"]]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("mode", ["exact", "keyframe"])
def test_memory_stays_flat_over_a_long_1080p_clip(tmp_path: Path, mode: str) -> None:
    def flat(number: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), number, np.uint8)

    def peak(pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    # Ten minutes at one frame in four seconds: 150 frames of 1080p would be 930 MB as RGB.
    path = write_video(
        tmp_path / "long.mp4",
        count=150,
        fps=1,
        size=(1920, 1080),
        picture=flat,
        ticks=[4 * i for i in range(150)],
        time_base=Fraction(1),
        options={"preset": "ultrafast", "g": "15"},
    )
    with FrameReader() as reader:
        small = reader.read(path, SamplingPlan(frames=2, mode="keyframe"), min_side=224)
        before = peak(os.getpid())
        clip = reader.read(path, SamplingPlan(frames=100, mode=mode), min_side=224)
        assert small.receipt.duration == clip.receipt.duration == pytest.approx(600, abs=4)
        assert clip.frames.shape == (100, 224, 398, 3)
        assert reader.pid is not None
        assert peak(reader.pid) < 250
        # The frames themselves are 27 MB.
        assert peak(os.getpid()) - before < 60
