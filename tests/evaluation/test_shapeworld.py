"""What the evaluation of the bundled model counts with; that it reaches its figures stands in ``tests/bundle``."""

from __future__ import annotations

import math

import pytest

from gpt4video_cli.evaluation.shapeworld import Tally


@pytest.mark.parametrize("asked", (1, 8, 10, 19, 100, 415))
def test_intervals_hold_the_share_and_stay_within_0_and_1(asked: int) -> None:
    for right in range(asked + 1):
        found = Tally(right, asked).as_dict()
        assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
        assert math.copysign(1, found["low"]) == 1  # -0.0 is printed as -0.00


def test_a_half_of_twenty_has_wilsons_interval() -> None:
    found = Tally(10, 20).as_dict()
    assert (found["low"], found["high"]) == (0.2993, 0.7007)
    assert Tally().as_dict() == {"right": 0, "asked": 0}
