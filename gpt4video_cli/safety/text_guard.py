"""The text guard that ships with the program: works offline, in about a millisecond, without torch.

Text -> plain words (``text_normalise``) -> concepts and hashed words (``text_features``) -> one logistic score for each
category, and one for harm of any kind. The weights were trained by ``gpt4video_cli/recipes/safety_text.py`` on
sentences of this project's own. It reads English. What it does not understand it allows, other languages and most of
what is only hinted at; a classifier or a guard LLM (``model_cards/``) knows more.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.safety.categories import CATEGORIES, MINORS, SEXUAL
from gpt4video_cli.safety.text_features import features, with_ages
from gpt4video_cli.safety.text_lexicon import Lexicon, lexicon
from gpt4video_cli.safety.text_normalise import Normaliser

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "text_guard.safetensors"
WINDOWS = (40, 16)
"""Words that are judged together. A text longer than that is judged in windows that overlap by half, and by its worst
one, so that harm does not drown in what stands around it."""
_ALSO_WATCHED = frozenset({"sex", "gun", "die", "tit", "fag", "cum", "myself"})
"""Disguises are undone for these words of three letters; others would be found in too many codes."""


def watched_words(known: Lexicon) -> frozenset[str]:
    """The words that disguises are undone for."""
    return frozenset(word for word in known.watched if len(word) > 3) | _ALSO_WATCHED


class BuiltinTextGuard:
    """Scores text by ``weights`` float32 [features, categories + 1] and ``bias`` float32 [categories + 1].

    The last column says whether there is harm of any kind.
    """

    name = "text"

    def __init__(
        self, known: Lexicon, normaliser: Normaliser, categories: tuple[str, ...], weights: np.ndarray, bias: np.ndarray
    ) -> None:
        self._lexicon, self._normaliser = known, normaliser
        self._categories, self._weights, self._bias = categories, weights, bias
        self._child = known.names.index("child"), known.names.index("child_abuse")

    def score(self, text: str) -> dict[str, float]:
        """Category -> 0..1, of the worst window of ``text``. Content that is sexual and names a child is ``minors``."""
        words = with_ages(self._normaliser.words(text))
        worst = dict.fromkeys(self._categories, 0.0)
        for size in WINDOWS:
            if size == WINDOWS[0] or len(words) > 1.5 * size:
                for start in range(0, max(1, len(words) - size // 2), size // 2):
                    for category, score in self._score_window(words[start : start + size]).items():
                        worst[category] = max(worst[category], score)
        return worst

    def _score_window(self, words: list[str]) -> dict[str, float]:
        if not words:
            return {}
        found = features(words, self._lexicon)
        logits = (self._weights[found].sum(axis=0) + self._bias).tolist()
        *scored, harmful = (1 / (1 + math.exp(-min(40.0, max(-40.0, logit)))) for logit in logits)
        scores = dict(zip(self._categories, scored))
        likeliest = max(scores, key=scores.__getitem__)
        # Where it is plain that there is harm and less plain of which kind, the likeliest kind says it.
        scores[likeliest] = max(scores[likeliest], harmful)
        if any(number in found for number in self._child):
            scores[MINORS] = max(scores[MINORS], scores[SEXUAL])
        return scores


def normaliser_for(known: Lexicon, plain: frozenset[str], vocabulary: frozenset[str]) -> Normaliser:
    """The normaliser as the guard and its training use it."""
    own = frozenset(word for phrase in known.phrases for word in phrase)
    return Normaliser(watched_words(known), plain, vocabulary | own)


@cache
def builtin_text_guard() -> BuiltinTextGuard:
    """The one that ships with the program, loaded once."""
    import numpy as np
    from safetensors import safe_open

    with as_file(files(__package__).joinpath(WEIGHTS)) as path, safe_open(path, "numpy") as file:
        notes = file.metadata()
        quantised, scale, bias = (file.get_tensor(name) for name in ("weights", "scale", "bias"))
    known = lexicon()
    weights = quantised.astype(np.float32) * scale.astype(np.float32)
    plain, vocabulary = (frozenset(json.loads(notes[name])) for name in ("plain", "vocabulary"))
    categories = tuple(json.loads(notes["categories"]))
    if set(categories) - set(CATEGORIES) or json.loads(notes["concepts"]) != list(known.names):
        raise WeightsError(f"{WEIGHTS} belongs to another lexicon", hint="python -m gpt4video_cli.recipes.safety_text")
    return BuiltinTextGuard(known, normaliser_for(known, plain, vocabulary), categories, weights, bias)
