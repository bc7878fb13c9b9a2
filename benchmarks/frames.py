"""Frames of a clip at given moments: ours, decord, OpenCV, the ffmpeg command, and PyAV decoding everything.

    python -m benchmarks.frames --work DIR

First each way's frames are compared with those that decoding from the first frame on gives, byte for byte for ours;
then all are timed in turns, each in a process of its own with a limit on its time. The clips are made in DIR on the
first run (1 to 2 minutes, 0.6 GB) and kept: 10 minutes of 720p H.264 with groups of 8 s, 2 hours of 1080p, 5 minutes of
HEVC and of VP9, and 10 s as a phone records them, turned and with a varying rate.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.frames_clips import CLOCK, RECIPES, Recipe, make, number_of_frames, ticks_of
from benchmarks.frames_readers import READERS, Child, available, print_of
from benchmarks.report import Report, Times
from gpt4video_cli.video.sampling import SamplingPlan

COUNTS = (4, 8, 32)
LIMIT = 60.0
"""Seconds for one reading by one way; only a peer that hangs comes near."""
LONG = ("10 min", "2 h")
MOST_DECODED = 1500
"""Frames up to which everything is decoded in turns with the others; longer clips take minutes."""
OURS, KEYFRAMES, IDENTIFIED = "ours", "ours, keyframes", "ours, with SHA-256"
EVERYTHING = "PyAV, all frames"


class Truth:
    """What each frame of a clip is, by decoding its unique part from the first frame on; the rest repeats it."""

    def __init__(self, recipe: Recipe, path: Path) -> None:
        self.recipe = recipe
        self.starts = [float(ticks_of(recipe, number) * CLOCK) for number in range(number_of_frames(recipe))]
        self.duration = float(ticks_of(recipe, len(self.starts)) * CLOCK)
        self.prints: list[dict[str, Any]] = []
        with av.open(str(path)) as clip:
            clip.streams.video[0].thread_type = "AUTO"
            for frame in clip.decode(video=0):
                picture = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
                self.prints.append(print_of(np.rot90(picture, recipe.degrees // 90)))
                if len(self.prints) == recipe.unique:
                    break

    def number_at(self, seconds: float) -> int:
        """The frame shown at this moment."""
        return bisect_right(self.starts, seconds + 1e-6) - 1

    def print_of(self, number: int) -> dict[str, Any]:
        return self.prints[number % self.recipe.unique]

    def nearest(self, frame: dict[str, Any], number: int) -> int:
        """Which of the frames around ``number`` this one looks like, upright or not."""
        around = [n for n in range(number - 3, number + 4) if 0 <= n < len(self.starts)]
        thumb = np.array(frame["thumb"])
        turns = [np.rot90(thumb, k) for k in range(4)] if self.recipe.degrees else [thumb]

        def distance(other: int) -> float:
            known = np.array(self.print_of(other)["thumb"])
            return min([float(np.abs(t - known).mean()) for t in turns if t.shape == known.shape], default=np.inf)

        return min(around, key=distance)


def check(truth: Truth, way: str, answer: dict[str, Any], moments: list[float]) -> str:
    """How many of the frames are those asked for. Ours have to be the same bytes, or this ends with an error."""
    numbers = [truth.number_at(moment) for moment in moments]
    frames = answer["frames"]
    if way.startswith(OURS):
        seen = [truth.number_at(seconds) for seconds in answer["times"]]
        if way != KEYFRAMES and seen != numbers:
            raise SystemExit(f"{truth.recipe.name}: {way} shows frames {seen} for {numbers}")
        wrong = [n for n, frame in zip(seen, frames) if frame["sha1"] != truth.print_of(n)["sha1"]]
        if wrong:
            raise SystemExit(f"{truth.recipe.name}: {way}: frames {wrong} are not those that decoding everything gives")
        return f"all {len(frames)}, byte for byte" if way != KEYFRAMES else "keyframes before, byte for byte"
    right = sum(truth.nearest(frame, number) == number for frame, number in zip(frames, numbers, strict=True))
    sideways = truth.recipe.degrees and tuple(frames[0]["shape"]) != truth.print_of(0)["shape"]
    return f"{right} of {len(frames)}" + (", not turned upright" if sideways else "")


def request(truth: Truth, way: str, path: Path, moments: list[float]) -> dict[str, Any]:
    """What a child is asked. ffmpeg gives the first frame at or after a moment: it gets the start of the one meant."""
    if way == "ffmpeg":
        moments = [max(0.0, truth.starts[truth.number_at(moment)] - 0.004) for moment in moments]
    fps = 0.0 if truth.recipe.varying else float(truth.recipe.fps)
    return {"path": str(path), "moments": moments, "fps": fps}


def measure(
    report: Report, name: str, truth: Truth, path: Path, count: int, children: dict[str, Child], budget: float
) -> None:
    """Check and time all ways for ``count`` frames of one clip."""
    case = f"{name}, {count} frames"
    moments = list(SamplingPlan(frames=count).times(truth.duration))
    ways = [way for way in children if way != EVERYTHING or len(truth.starts) <= MOST_DECODED]
    if count > 4:
        ways.remove(IDENTIFIED)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    began, rounds = time.monotonic(), 0
    # The first round is the one that is checked. A round that would not end in time is not begun.
    while rounds == 0 or (rounds < 7 and (time.monotonic() - began) * (rounds + 1) / rounds < budget):
        for way in ways[rounds % len(ways) :] + ways[: rounds % len(ways)]:
            if way not in found:
                continue
            try:
                answer = children[way].read(LIMIT, check=rounds == 0, **request(truth, way, path, moments))
            except (TimeoutError, RuntimeError) as error:
                report.skip(f"{case}: {way}", str(error))
                del found[way]
                continue
            if rounds == 0:
                report.row(case, way, frames=check(truth, way, answer, moments))
            found[way].append(answer)
        rounds += 1
    times = {
        way: Times(tuple(run["wall"] for run in runs), tuple(run["cpu"] for run in runs)) for way, runs in found.items()
    }
    report.times(case, times, ours=OURS, clock="wall")
    goals(report, name, case, times)


def goals(report: Report, name: str, case: str, times: dict[str, Times]) -> None:
    """The best peer against ours and against keyframes; a sentence where it is not slower."""
    peers = {way: found for way, found in times.items() if not way.startswith(OURS)}
    if not peers or report.quick:
        return
    for clock in ("wall", "cpu"):
        best = min(peers, key=lambda way: statistics.median(getattr(peers[way], clock)))
        theirs = getattr(peers[best], clock)
        for way in (OURS, KEYFRAMES):
            ratios = [a / b for a, b in zip(theirs, getattr(times[way], clock), strict=True)]
            report.ratio(case, way, f"best: {best}", ratios, f"{clock} time")
            wanted = 8 if way == KEYFRAMES else 1.5 if name in LONG else 0.95
            if clock == "wall" and (reached := statistics.median(ratios)) < wanted:
                report.note(f"{case}: {way} is {reached:.2f} times as fast as {best}; {wanted} is the goal")


def smaller(recipe: Recipe) -> Recipe:
    """For tests: few small frames."""
    unique, seconds = 2 * int(recipe.options.get("g", 20)) // 10, min(6.0, recipe.seconds)
    options = {**recipe.options, "g": str(max(2, unique // 2))}
    return replace(
        recipe, name=f"quick_{recipe.name}", size=(320, 192), unique=unique, seconds=seconds, options=options
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder in which the clips are kept", default=None)
    parser.add_argument("--clips", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--frames", nargs="+", type=int, default=COUNTS)
    parser.add_argument(
        "--budget",
        type=float,
        default=6.0,
        help="seconds for the rounds of one case, where one round does not take longer",
    )
    parser.add_argument("--seconds", type=float, default=230.0, help="after which no further case is begun")
    parser.add_argument("--quick", action="store_true", help="small clips, for tests")
    options = parser.parse_args()
    work = options.work or Path(tempfile.gettempdir()) / "gpt4video-benchmark-clips"
    report, end = Report("frames", quick=options.quick), time.monotonic() + options.seconds
    children: dict[str, Child] = {}
    for way in READERS:
        if why := available(way):
            report.skip(way, why)
        else:
            children[way] = Child(way)
    with contextlib.ExitStack() as stack:
        for child in children.values():
            stack.callback(child.close)
        warm = make(smaller(RECIPES["phone"]), work)
        for child in children.values():  # imports are behind all before the first round
            with contextlib.suppress(TimeoutError, RuntimeError):
                child.read(LIMIT, path=str(warm), moments=[0.5], fps=0.0)
        for name in options.clips:
            recipe = smaller(RECIPES[name]) if options.quick else RECIPES[name]
            path = make(recipe, work)
            truth = Truth(recipe, path)
            for count in options.frames[:1] if options.quick else options.frames:
                if time.monotonic() > end:
                    report.skip(f"{name}, {count} frames", f"{options.seconds:g} s were over")
                    continue
                measure(report, name, truth, path, count, children, 1.0 if options.quick else options.budget)
    report.note(
        f"All give full-size frames. Clips of more than {MOST_DECODED} frames are not decoded whole in turns with the "
        "others; their frames are compared with decoding their unique part, which they repeat. ffmpeg is one command "
        "for each frame, its start included; the others have their imports behind them. The row with SHA-256 takes the "
        "digest of the content too, which no peer does and kept clips need."
    )
    report.finish()


if __name__ == "__main__":
    main()
