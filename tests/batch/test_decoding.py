"""Several decoders at once: what they give, a clip that kills or hangs one, and ending in the middle."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt4video_cli.batch.decoding import AheadReader
from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ClipError, DecoderCrashedError, ExitCode
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan

PLAN = SamplingPlan(frames=3)


def script(folder: Path, body: str) -> list[str]:
    """A decoder that notes each clip it is asked for in ``folder/asked`` and then does ``body``."""
    file = folder / "decoder.py"
    start = f"""
        import json, os, sys, time
        for line in sys.stdin.buffer:
            path = json.loads(line)["path"]
            with open({str(folder / "asked")!r}, "a") as asked:
                asked.write(path + "\\n")
            tries = open({str(folder / "asked")!r}).read().splitlines().count(path)
    """
    answer = """
        header = b'{"error": "clip", "reason": "seen by the script", "hint": null}'
        os.write(1, b"%08x" % len(header) + header)
    """
    text = textwrap.dedent(start) + textwrap.indent(textwrap.dedent(body) + textwrap.dedent(answer), "    ")
    file.write_text(text)
    return [sys.executable, str(file)]


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_clips_begun_are_the_clips_read(clips: list[str]) -> None:
    with AheadReader(2) as reader:
        for path in clips[:4]:
            reader.begin(path, PLAN, min_side=32)
        reader.begin(clips[0], PLAN, min_side=32)  # once more: not decoded twice
        for path in clips[:5]:  # the last was not begun
            here, there = read_clip(path, PLAN, min_side=32), reader.read(path, PLAN, min_side=32)
            assert np.array_equal(here.frames, there.frames) and here.receipt == there.receipt
        reader.begin(clips[0], PLAN, min_side=32)
        reader.forget(clips[0], PLAN, min_side=32)
        assert not reader._early


def test_a_decoder_that_dies_is_started_again_and_its_clip_tried_once_more(tmp_path: Path) -> None:
    body = """
        if "once" in path and tries == 1 or "always" in path:
            os._exit(3)
    """
    with AheadReader(1, command=script(tmp_path, body)) as reader:
        for name in ("once", "always", "never"):
            reader.begin(name, PLAN, min_side=None)
        with pytest.raises(ClipError, match="once: seen by the script"):
            reader.read("once", PLAN)
        with pytest.raises(DecoderCrashedError, match="always: the decoder crashed"):
            reader.read("always", PLAN)
        with pytest.raises(ClipError, match="never: seen by the script"):
            reader.read("never", PLAN)
    assert asked(tmp_path) == ["once", "once", "always", "always", "never"]


def test_a_clip_that_hangs_costs_its_own_time_and_one_error(tmp_path: Path) -> None:
    body = """
        if "hangs" in path:
            time.sleep(600)
    """
    with AheadReader(2, limit=0.5, command=script(tmp_path, body)) as reader:
        for name in ("hangs", "a", "b"):
            reader.begin(name, PLAN, min_side=None)
        for name in ("a", "b"):
            with pytest.raises(ClipError, match=f"{name}: seen by"):
                reader.read(name, PLAN)
        with pytest.raises(ClipError, match=r"hangs: decoding did not end within 0\.5 s and was stopped"):
            reader.read("hangs", PLAN)
    assert asked(tmp_path).count("hangs") == 1


def test_closing_ends_a_clip_in_the_middle_and_whoever_waits(tmp_path: Path) -> None:
    reader = AheadReader(1, limit=60, command=script(tmp_path, "time.sleep(600)"))
    errors: list[BaseException] = []

    def wait(name: str) -> None:
        try:
            reader.read(name, PLAN)
        except BaseException as error:
            errors.append(error)

    for name in ("a", "b"):
        reader.begin(name, PLAN, min_side=None)
    threads = [threading.Thread(target=wait, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while not (tmp_path / "asked").exists() and time.monotonic() < began + 20:
        time.sleep(0.02)
    began = time.monotonic()
    reader.close()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began < 5
    assert len(errors) == 2 and asked(tmp_path) == ["a"]
    with pytest.raises(ClipError, match="the decoders are stopped"):
        reader.read("c", PLAN)


def test_a_batch_lists_a_clip_that_kills_its_decoder_twice(
    clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, script = tmp_path / "asked", tmp_path / "decoder.py"
    script.write_text(
        "import os\n"
        "from gpt4video_cli.video import decode, worker\n"
        "read = decode.read_clip\n"
        "def dying(path, *given, **options):\n"
        f"    with open({str(asked)!r}, 'a') as file:\n"
        "        file.write(os.path.basename(path) + '\\n')\n"
        f"    tries = open({str(asked)!r}).read().split().count(os.path.basename(path))\n"
        "    if 'always' in path or 'once' in path and tries == 1:\n"
        "        os._exit(3)\n"
        "    return read(path, *given, **options)\n"
        "decode.read_clip = dying\n"
        "worker.main()\n"
    )
    monkeypatch.setitem(AheadReader.__init__.__kwdefaults__, "command", [sys.executable, str(script)])
    for name in ("always", "once"):
        (tmp_path / f"{name}.mp4").write_bytes(Path(clips[0]).read_bytes())
    paths = [str(tmp_path / "always.mp4"), clips[4], str(tmp_path / "once.mp4")]
    command = ["batch", *paths, "-p", "What moves?", "-o", str(tmp_path / "r.jsonl"), "--no-cache", "-q"]
    assert run(command) == ExitCode.PARTIAL
    files = [(tmp_path / name).read_bytes().splitlines() for name in ("r.jsonl", "errors.jsonl")]
    done, failed = ([json.loads(line) for line in file] for file in files)
    assert {Path(line["id"]).stem for line in done} == {"04", "once"}
    assert [(line["kind"], line["exit_code"]) for line in failed] == [("clip", 3)]
    assert "always.mp4: the decoder crashed (" in failed[0]["error"]
    assert Counter(asked.read_text().split()) == {"always.mp4": 2, "once.mp4": 2, "04.mp4": 1}
