"""Gates: who is asked, who decides, what is said; and that nothing passes by accident."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.safety.categories import CATEGORIES
from gpt4video_cli.safety.gates import BUILTIN, Gates
from gpt4video_cli.safety.policy import PROFILES, STANDARD
from gpt4video_cli.safety.refusal import not_screened, refusal
from gpt4video_cli.safety.verdict import Verdict
from tests.safety.guards import Finds, Red

TEXT = "user text"


def finder(**words: tuple[str, float]) -> Finds:
    return Finds(**words)


def test_the_first_guard_that_refuses_decides() -> None:
    first, second, third = Finds("a", x=("hate", 0.4)), Finds("b", x=("violence", 0.6)), Finds("c")
    gates = Gates(shipped=first, text=lambda policy: [second, third])
    verdict = gates.text("x", TEXT)
    assert (verdict.outcome, verdict.guard, verdict.category) == ("refused", "b", "violence")
    assert (verdict.score, verdict.threshold, verdict.guards) == (0.6, 0.5, ("a", "b"))
    assert not third.asked
    allowed = gates.text("y", TEXT)
    assert (allowed.outcome, allowed.guards, allowed.guard) == ("allowed", ("a", "b", "c"), "")
    assert verdict.as_dict()["policy"] == "standard" and "seconds" not in verdict.as_dict()


def test_the_nearest_score_stands_for_all() -> None:
    verdict = Gates(shipped=finder(x=("hate", 0.4), y=("minors", 0.27))).text("x y", TEXT)
    assert (verdict.outcome, verdict.category, verdict.score) == ("allowed", "minors", 0.27)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("off", [(), ("text",), (BUILTIN, "frames"), ("stronger",)])
def test_minors_are_refused_at_every_setting(profile: str, off: tuple[str, ...]) -> None:
    shipped = Finds(BUILTIN, child=("minors", 0.3), fight=("violence", 0.9))
    policy = PROFILES[profile].without(off, ["stronger", BUILTIN])
    gates = Gates(policy, shipped=shipped, text=lambda policy: [Finds("stronger")])
    for subject in (TEXT, "generation prompt", "negative prompt"):
        verdict = gates.text("child", subject)  # type: ignore[arg-type]
        assert (verdict.outcome, verdict.category) == ("refused", "minors")
        assert verdict.off == tuple(sorted(off))
    turned_off = "text" in off
    assert gates.text("fight", TEXT).outcome == ("not screened" if turned_off else "refused")
    assert gates.text("fight", "negative prompt").outcome == "allowed"


def test_what_nobody_looked_at_is_not_passed_off_as_allowed() -> None:
    nobody = Gates().text("x", TEXT)
    assert nobody.outcome == "not screened"
    assert not_screened(nobody) == "not screened: user text (no guard for text is installed)"
    off = Gates(STANDARD.without(["text"], []), shipped=Finds(BUILTIN), text=lambda policy: [Finds("other")])
    verdict = off.text("x", TEXT)
    assert verdict.outcome == "not screened" and verdict.guards == (BUILTIN,)
    assert "only what involves minors is refused" in not_screened(verdict)
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert not_screened(Gates().film(frames, 8)) == "not screened: generated clip (no guard for frames is installed)"
    no_frames = Gates(STANDARD.without(["frames"], []), frames=lambda policy: [Red()])
    assert not_screened(no_frames.film(frames, 8)) == "not screened: generated clip (guards for frames are turned off)"


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "0.9"])
def test_a_guard_that_gives_no_number_is_an_error_and_no_pass(score: Any) -> None:
    with pytest.raises(Gpt4VideoError, match="cannot be judged"):
        Gates(shipped=finder(x=("violence", score))).text("x", TEXT)


def test_a_category_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(Gpt4VideoError, match="'gore'"):
        Gates(shipped=finder(x=("gore", 0.9))).text("x", TEXT)


def test_scores_for_too_few_frames_are_an_error() -> None:
    class Lazy(Red):
        def score(self, frames: np.ndarray) -> list[dict[str, float]]:
            return super().score(frames)[1:]

    with pytest.raises(Gpt4VideoError, match="gave 1 scores for 2 frames"):
        Gates(frames=lambda policy: [Lazy()]).film(np.zeros((2, 4, 4, 3), np.uint8), 8)


def test_a_film_with_one_other_frame_is_refused() -> None:
    frames = np.full((200, 24, 32, 3), 60, np.uint8)
    frames[120] = (255, 0, 0)
    guard = Red()
    verdict = Gates(frames=lambda policy: [guard]).film(frames, fps=10)
    assert (verdict.outcome, verdict.seconds, verdict.guard) == ("refused", 12.0, "red")
    assert guard.seen <= 64
    assert "at 12.0 s" in refusal(verdict)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("subject", [TEXT, "user clip", "generation prompt", "negative prompt", "generated clip"])
def test_refusals_are_short_polite_and_say_the_kind(category: str, subject: Any) -> None:
    said = refusal(Verdict("refused", subject, "guard", category, 0.9, 0.5))
    assert said.startswith("Sorry, ") and CATEGORIES[category] in said and "Please" in said
    assert len(said) < 260 and "\n" not in said
    assert refusal(Verdict("refused", subject, "guard", category, 0.9, 0.5), turn=3).count("turn 3") == 1
