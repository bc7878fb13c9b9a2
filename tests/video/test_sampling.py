from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4video_cli.errors import ClipError, UsageError
from gpt4video_cli.video.sampling import SamplingPlan, SamplingReceipt, largest_gap

durations = st.floats(0.01, 10_000)


@given(duration=durations, frames=st.integers(1, 300))
def test_midpoints_of_equal_parts(duration: float, frames: int) -> None:
    times = SamplingPlan(frames=frames).times(duration)
    assert len(times) == frames
    for i, t in enumerate(times):
        assert t == pytest.approx((i + 0.5) * duration / frames)


@given(
    duration=durations,
    start=st.floats(0, 0.9),
    length=st.floats(0.01, 1),
    how=st.one_of(
        st.fixed_dictionaries({"frames": st.integers(1, 100)}),
        st.fixed_dictionaries({"fps": st.floats(0.01, 60)}),
        st.fixed_dictionaries({"fps": st.floats(0.01, 60), "max_frames": st.integers(1, 50)}),
    ),
)
def test_moments_lie_inside_the_range_in_order_and_evenly(duration, start, length, how) -> None:
    first, last = start * duration, (start + length) * duration
    times = SamplingPlan(start=first, end=last, **how).times(duration)
    last = min(last, duration)
    assert 1 <= len(times) <= how.get("max_frames", 128)
    assert all(first <= t <= last for t in times)
    steps = [b - a for a, b in pairwise(times)]
    assert all(step == pytest.approx(steps[0], rel=1e-6, abs=1e-9) and step > 0 for step in steps)
    # Nothing of the range is further from a moment than a step and a half.
    if steps:
        assert largest_gap(times, first, last) <= 1.5 * steps[0] + 1e-9


@given(moments=st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_explicit_moments_are_kept_once_and_in_order(moments: list[float]) -> None:
    assert SamplingPlan(at=tuple(moments)).times(100) == tuple(sorted(set(moments)))


@given(seen=st.lists(st.floats(0, 50), max_size=20), start=st.floats(0, 20), length=st.floats(0, 30))
def test_largest_gap_bounds_the_distance_to_the_nearest_seen_moment(seen, start, length) -> None:
    end = start + length
    gap = largest_gap(seen, start, end)
    marks = sorted(min(max(t, start), end) for t in [*seen, start, end])
    assert 0 <= gap <= length + 1e-9
    assert sum(b - a for a, b in pairwise(marks)) == pytest.approx(length)
    assert gap == max(b - a for a, b in pairwise(marks))


def test_rate_takes_the_middle_of_each_part() -> None:
    assert SamplingPlan(fps=1).times(3.0) == (0.5, 1.5, 2.5)
    assert SamplingPlan(fps=1).times(3.6) == (0.5, 1.5, 2.5, 3.5)
    assert SamplingPlan(fps=1).times(3.4) == (0.5, 1.5, 2.5)
    assert SamplingPlan(fps=0.1).times(3.0) == (1.5,)
    assert SamplingPlan(fps=10, max_frames=4).times(8.0) == (1.0, 3.0, 5.0, 7.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"frames": 4, "fps": 1}, ["--frames", "--fps"]),
        ({"max_frames": 4}, ["--max-frames", "--fps"]),
        ({"frames": 4, "max_frames": 4}, ["--max-frames", "--fps"]),
        ({"at": (1,), "frames": 4}, ["--at", "--frames"]),
        ({"at": (1,), "fps": 4}, ["--at", "--fps"]),
        ({"at": (1,), "start": 0}, ["--at", "--start"]),
        ({"at": (1,), "end": 4}, ["--at", "--end"]),
        ({"frames": 0}, ["--frames"]),
        ({"frames": -3}, ["--frames"]),
        ({"frames": 2.5}, ["--frames"]),
        ({"fps": 0}, ["--fps"]),
        ({"fps": float("inf")}, ["--fps"]),
        ({"fps": float("nan")}, ["--fps"]),
        ({"start": -1}, ["--start"]),
        ({"end": float("nan")}, ["--end"]),
        ({"at": (-1,)}, ["--at"]),
        ({"start": 2, "end": 2}, ["--start", "--end"]),
        ({"start": 3, "end": 2}, ["--start", "--end"]),
        ({"end": 0}, ["--end"]),
        ({"mode": "fast"}, ["--sampling", "exact", "keyframe"]),
    ],
)
def test_contradictions_are_refused_by_name(options, named) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingPlan(**options)
    assert all(name in str(caught.value) for name in named)


@pytest.mark.parametrize(
    ("plan", "option"),
    [(SamplingPlan(start=5), "--start"), (SamplingPlan(start=9), "--start"), (SamplingPlan(at=(1, 5.1)), "--at")],
)
def test_what_lies_behind_the_end_names_the_option_and_the_length(plan: SamplingPlan, option: str) -> None:
    with pytest.raises(ClipError) as caught:
        plan.times(5.0, "a.mp4")
    assert option in str(caught.value) and "5.000 s" in str(caught.value) and caught.value.path == "a.mp4"


@pytest.mark.parametrize("plan", [SamplingPlan(), SamplingPlan(at=(3, 1)), SamplingPlan(fps=2, max_frames=3, end=4)])
def test_a_plan_survives_json(plan: SamplingPlan) -> None:
    assert SamplingPlan.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_receipt_survives_json_and_reads_well() -> None:
    receipt = SamplingReceipt(
        "a.mp4", "00", 4.0, "exact", (1.0, 3.0), (0.97, 3.0), 2.03, 640, 360, 0.0, 4.0, False, ("n",)
    )
    assert SamplingReceipt.from_dict(json.loads(json.dumps(receipt.as_dict()))) == receipt
    assert receipt.line() == "a.mp4: 2 frames of 4.00 s at 0.97 3.00 s (exact); largest gap 2.03 s; 640x360; n"
