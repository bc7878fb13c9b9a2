"""Words -> the features that the text guard's linear model weighs.

Three kinds: which concepts of the lexicon occur, which two of them stand near each other, and hashed single words and
pairs of words. All are there or not; nothing is counted, so that repeating a harmless word does not outweigh a harmful
one.
"""

from __future__ import annotations

import zlib

from gpt4video_cli.safety.text_lexicon import Lexicon

NEAR = 8
"""Words. Concepts farther apart are not read together."""
WORD_SLOTS = 4096
_NUMBERS = dict(
    zip("one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split(), range(1, 15))
)
_NUMBERS |= {"fifteen": 15, "sixteen": 16, "seventeen": 17}
_CHILD = "agechild"


def feature_count(concepts: int) -> int:
    """Length of the model's weight vectors for a lexicon of so many concepts."""
    return concepts + concepts * concepts + WORD_SLOTS


def with_ages(words: list[str]) -> list[str]:
    """``words`` with "12 year old", "aged nine" and the like as one word that the lexicon knows as a child."""
    if "old" not in words and "aged" not in words and "age" not in words:
        return words
    result: list[str] = []
    place = 0
    while place < len(words):
        age = _age(words[place])
        years = words[place + 1 : place + 3]
        if age is not None and years[1:] == ["old"] and years[0] in ("year", "years", "yr", "yo"):
            result += [_CHILD] if age < 18 else ["adult"]
            place += 3
        elif age is not None and age < 18 and result and result[-1] in ("aged", "age"):
            result.append(_CHILD)
            place += 1
        else:
            result.append(words[place])
            place += 1
    return result


def _age(word: str) -> int | None:
    if word.isascii() and word.isdigit() and len(word) <= 2:
        return int(word)
    return _NUMBERS.get(word, 30 if word in ("twenty", "thirty", "forty", "fifty", "sixty", "seventy") else None)


def features(words: list[str], known: Lexicon) -> list[int]:
    """Numbers of the features of ``words``, sorted and without repeats."""
    concepts = len(known.names)
    places = known.find(words)
    found: set[int] = set()
    for i, (place, own) in enumerate(places):
        found.update(own)
        for later, others in places[i + 1 :]:
            if later - place > NEAR:
                break
            for a in own:
                for b in others:
                    found.add(concepts + min(a, b) * concepts + max(a, b))
    base = concepts + concepts * concepts
    for word, following in zip(words, [*words[1:], ""]):
        found.add(base + _slot(word))
        found.add(base + _slot(f"{word} {following}"))
    return sorted(found)


def _slot(text: str) -> int:
    # Python's own hash differs from run to run.
    return zlib.crc32(text.encode("utf-8", "replace")) % WORD_SLOTS
