"""Four gates: what a person writes, the clips they show, what is to be filmed, and what was filmed.

``assistant.py`` is the only caller. A gate asks the guards of its kind that the policy leaves on, in order, until one
refuses. A guard that cannot be loaded, or gives no number, is an error and never a pass.

T frames, H height, W width.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt4video_cli.errors import ClipError, Gpt4VideoError
from gpt4video_cli.safety.categories import CATEGORIES, MINORS
from gpt4video_cli.safety.guard import FrameGuard, TextGuard
from gpt4video_cli.safety.policy import FRAMES, STANDARD, TEXT, Policy
from gpt4video_cli.safety.verdict import Outcome, Subject, Verdict

if TYPE_CHECKING:
    import numpy as np

    from gpt4video_cli.video.reader import FrameReader

BUILTIN = "text"
"""The name of the guard that ships with the program."""
MOST_FRAMES = 64
"""Frames of a clip that guards judge at most; see ``video.survey.choose``."""
FRAME_SIDE = 256
"""Pixels of the short side that a clip's frames are judged with; classifiers take 224 to 384."""


class Gates:
    """``shipped`` looks for what involves minors even where the policy turns it off; ``text`` come after it.

    ``frames`` finds the guards for pictures that the policy leaves on, when the first picture comes.
    """

    def __init__(
        self,
        policy: Policy = STANDARD,
        *,
        shipped: TextGuard | None = None,
        text: Callable[[Policy], Sequence[TextGuard]] = lambda policy: (),
        frames: Callable[[Policy], Sequence[FrameGuard]] = lambda policy: (),
    ) -> None:
        self.policy = policy
        self._shipped = shipped
        self._find_text, self._find_frames = text, frames
        self._text: Sequence[TextGuard] | None = None
        self._frames: Sequence[FrameGuard] | None = None
        self._asking = threading.Lock()  # several replies may go on at once; a guard loads and judges for one at a time

    @classmethod
    def open(cls, policy: Policy = STANDARD) -> Gates:
        """The shipped text guard and all guards that are installed. Those of the hub are loaded when they are asked."""
        from gpt4video_cli.safety.installed_guards import frame_guards, text_guards
        from gpt4video_cli.safety.text_guard import builtin_text_guard

        return cls(policy, shipped=builtin_text_guard(), text=text_guards, frames=frame_guards)

    @property
    def frame_guards(self) -> Sequence[FrameGuard]:
        """Guards for pictures that are installed and on; without any, no clip has to be decoded for them."""
        with self._asking:
            if self._frames is None:
                found = self._find_frames(self.policy)
                self._frames = [guard for guard in found if self.policy.is_on(guard.name, FRAMES)]
            return self._frames

    def text(self, text: str, subject: Subject) -> Verdict:
        """The verdict on a text that a person wrote, or that is to be filmed.

        A negative prompt says what is not to be shown ("nudity, gore"), so only what involves minors is refused there.
        """
        with self._asking:
            if self._text is None:
                found = self._find_text(self.policy)
                self._text = [guard for guard in found if self.policy.is_on(guard.name, TEXT)]
        only = {MINORS} if subject == "negative prompt" else set(CATEGORIES)
        asked = [(guard, only) for guard in self._text]
        if self._shipped is not None:
            on = self.policy.is_on(self._shipped.name, TEXT)
            asked.insert(0, (self._shipped, only if on else {MINORS}))
        verdict = self._nobody(subject)
        for guard, categories in asked:
            with self._asking:
                scores = guard.score(text)
            verdict = self._judged(verdict, guard.name, scores, categories)
            if verdict.outcome == "refused":
                break
        if verdict.outcome == "allowed" and not any(len(categories) > 1 for _, categories in asked):
            if subject != "negative prompt":  # minors were looked for, and nothing else
                return replace(verdict, outcome="not screened")
        return verdict

    def clip(self, path: str, reader: FrameReader, sha256: str = "") -> Verdict:
        """The verdict on the whole clip at ``path``, whatever range of it is talked about.

        It is decoded for that only where a guard for pictures is on. ``sha256``: the content that it must have, if
        known. Raises ``ClipError``.
        """
        if not self.frame_guards:
            return self._nobody("user clip")
        survey = reader.survey(path, MOST_FRAMES, min_side=FRAME_SIDE)
        if sha256 and survey.sha256 != sha256:
            raise ClipError(path, "changed while it was read")
        return replace(self._frames_verdict(survey.frames, survey.times, "user clip"), note=survey.note)

    def film(self, frames: np.ndarray, fps: float) -> Verdict:
        """The verdict on a film, uint8 [T, H, W, 3]."""
        if not self.frame_guards:
            return self._nobody("generated clip")
        from gpt4video_cli.video.survey import choose, thumbnails

        chosen = choose(thumbnails(frames), MOST_FRAMES)
        return self._frames_verdict(frames[chosen], [index / fps for index in chosen], "generated clip")

    def _nobody(self, subject: Subject) -> Verdict:
        return Verdict("not screened", subject, policy=self.policy.name, off=tuple(sorted(self.policy.off)))

    def _frames_verdict(self, frames: np.ndarray, times: Sequence[float], subject: Subject) -> Verdict:
        verdict = self._nobody(subject)
        for guard in self.frame_guards:
            with self._asking:
                scores = guard.score(frames)
            if len(scores) != len(frames):
                raise Gpt4VideoError(f"guard {guard.name}: gave {len(scores)} scores for {len(frames)} frames")
            for index, score in enumerate(scores):
                now = self._judged(verdict, guard.name, score, set(CATEGORIES))
                if now.outcome == "refused":
                    return replace(now, seconds=float(times[index]))
                verdict = now
        return verdict

    def _judged(self, before: Verdict, guard: str, scores: Mapping[str, float], categories: Iterable[str]) -> Verdict:
        """``before`` with what one more guard says. The score that is nearest to its threshold stands for all."""
        verdict = replace(before, outcome="allowed", guards=tuple(dict.fromkeys((*before.guards, guard))))
        nearest = -1.0 if before.score is None or not before.threshold else before.score / before.threshold
        for category, score in scores.items():
            if category not in CATEGORIES or not isinstance(score, int | float) or not math.isfinite(score):
                raise Gpt4VideoError(f"guard {guard}: scored {category!r} as {score!r}, which cannot be judged")
            threshold = self.policy.threshold(guard, category)
            if category in categories and score > 0 and score / threshold > nearest:
                nearest = score / threshold
                outcome: Outcome = "refused" if score >= threshold else "allowed"
                verdict = replace(
                    verdict, outcome=outcome, guard=guard, category=category, score=float(score), threshold=threshold
                )
        return verdict
