"""What is typed after /video and /set."""

from __future__ import annotations

import pytest

from gpt4video_cli.cli.options import answer_options, sampling_plan, seconds
from gpt4video_cli.cli.settings import Settings, read_video_command
from gpt4video_cli.errors import UsageError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.weights.card import Card

CARD = Card(name="card", summary="a card", licence="CC0-1.0", frames=6, mode="keyframe", temperature=0.5, max_tokens=9)


def settings() -> Settings:
    return Settings(CARD, SamplingPlan(frames=6), answer_options({}, CARD), receipts=False)


@pytest.mark.parametrize(
    ("text", "value"), [("12.5", 12.5), ("1:02.5", 62.5), ("1:00:02", 3602), (".5", 0.5), ("3.", 3), (" 4 ", 4)]
)
def test_times(text: str, value: float) -> None:
    assert seconds(text, "--at") == value


@pytest.mark.parametrize("text", ["", "x", "-1", "1:-2", "1:2:3:4", "nan", "inf", "1e3", "1::2", "²"])
def test_wrong_times(text: str) -> None:
    with pytest.raises(UsageError, match="--at"):
        seconds(text, "--at")


def test_the_card_fills_what_was_not_given() -> None:
    assert sampling_plan(card=CARD) == SamplingPlan(frames=6, mode="keyframe")
    assert sampling_plan(fps=2.0, sampling="exact", card=CARD) == SamplingPlan(fps=2.0)
    assert answer_options({"seed": 3, "top_k": None}, CARD) == SamplingOptions(temperature=0.5, seed=3, max_tokens=9)


def test_video_options() -> None:
    (request,) = read_video_command("a.mp4 --start 0:05 --end=9", SamplingPlan(frames=6))
    assert request.plan == SamplingPlan(frames=6, start=5.0, end=9.0)
    (request,) = read_video_command("a.mp4 --at 1,2 --at 3", SamplingPlan(frames=6, mode="keyframe"))
    assert request.plan == SamplingPlan(at=(1.0, 2.0, 3.0), mode="keyframe")
    assert [r.path for r in read_video_command("a.mp4 b.mp4", SamplingPlan(frames=1))] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "needs a path"),
        ("'a.mp4", "quote"),
        ("a.mp4 --frame 3", "--frames"),
        ("a.mp4 --frames", "needs a value"),
        ("a.mp4 --frames x", "must be a number"),
        ("a.mp4 --end 3 --start 4", "--end"),
    ],
)
def test_wrong_video_commands(text: str, part: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_video_command(text, SamplingPlan(frames=6))
    assert part in raised.value.line()


def test_set_changes_one_thing_and_default_takes_it_back() -> None:
    now = settings()
    now.set("temperature", "0.9")
    now.set("stop", "the end")
    now.set("fps", "2")
    now.set("receipts", "on")
    assert now.answer == SamplingOptions(temperature=0.9, max_tokens=9, stop=("the end",))
    assert now.plan == SamplingPlan(fps=2.0)
    now.set("frames", "3")
    assert now.plan == SamplingPlan(frames=3)
    for name in ("temperature", "stop", "frames", "receipts"):
        now.set(name, "default")
    assert (now.answer, now.plan, now.receipts) == (settings().answer, settings().plan, False)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("temprature", "1", "temperature"),
        ("temperature", "hot", "a number"),
        ("top-p", "3", "top-p"),
        ("frames", "-3", "--frames"),
        ("max-frames", "3", "--max-frames"),
        ("sampling", "often", "--sampling"),
        ("receipts", "yes", "on or off"),
    ],
)
def test_a_wrong_setting_changes_nothing(name: str, value: str, part: str) -> None:
    now = settings()
    with pytest.raises(UsageError) as raised:
        now.set(name, value)
    assert part in raised.value.line()
    assert (now.answer, now.plan) == (settings().answer, settings().plan)
