"""Disguised words are read as what they are, and ordinary text is left alone."""

from __future__ import annotations

import pytest

from gpt4video_cli.safety.text_guard import builtin_text_guard
from gpt4video_cli.safety.text_normalise import Normaliser, fold

WORDS = Normaliser(
    frozenset({"kill", "naked", "murder", "sex", "behead"}),
    frozenset({"skill", "grape"}),
    frozenset({"a", "how", "to", "man", "the", "house", "be", "head", "at"}),
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k1ll him", ["kill", "him"]),
        ("K!LL", ["kill"]),
        ("k i l l him", ["kill", "him"]),
        ("k.i.l.l", ["kill"]),
        ("k-i-l-l", ["kill"]),
        ("k*ll", ["kill"]),
        ("ki ll", ["kill"]),
        ("mur-der", ["murder"]),
        ("kiiilll", ["kill"]),
        ("k i i l l l", ["kill"]),
        ("killman", ["kill", "man"]),
        ("h o w t o k i l l a m a n", ["how", "to", "kill", "a", "man"]),
        ("k\u0456ll", ["kill"]),  # Cyrillic i
        ("\u0455\u0435\u0445 now", ["sex", "now"]),  # Cyrillic all through, in Latin text
        ("n\u03b1ked", ["naked"]),  # Greek alpha
        ("\uff4e\uff41\uff4b\uff45\uff44", ["naked"]),  # full width
        ("\U0001d4f4\U0001d4f2\U0001d4f5\U0001d4f5", ["kill"]),  # mathematical script
        ("\U0001f17a\U0001f178\U0001f17b\U0001f17b", ["kill"]),  # negative squared letters
        ("k\u200bi\u200cl\u00adl", ["kill"]),
        ("k\u0336i\u0336l\u0336l\u0336", ["kill"]),
        ("k\u0345ill", ["kill"]),  # a mark that would become a letter in small letters
        ("\u03f2\u03bfd\u0435", ["code"]),
        ("n4k3d", ["naked"]),
        ("\u20acx b\u20achead", ["x", "behead"]),
    ],
)
def test_disguises_are_undone(text: str, words: list[str]) -> None:
    assert WORDS.words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a b c", ["a", "b", "c"]),
        ("Essex", ["essex"]),
        ("skill", ["skill"]),
        ("s k i l l", ["skill"]),
        ("h o u s e", ["house"]),
        ("be head", ["be", "head"]),
        ("U.S.A.", ["u", "s", "a"]),
        ("MP3 K1-7L v1.4.7", ["mp3", "k1", "7l", "v1", "4", "7"]),
        ("455 777 $$$", ["455", "777"]),
        ("step-by-step, don't!", ["step", "by", "step", "dont"]),
        ("Кот играет с мячом", ["кот", "играет", "с", "мячом"]),
        ("très naïve", ["tres", "naive"]),
        ("https://example.org/k1ll", ["https", "example", "org", "k1ll"]),
    ],
)
def test_ordinary_text_is_left_alone(text: str, words: list[str]) -> None:
    assert WORDS.words(text) == words


def test_folding_twice_changes_nothing() -> None:
    for text in ("Ünï\u200bcode ＴＥＸＴ", "\U0001d4f4ill", "Привет мир", "日本語 テスト", "ﬁne ½ ⅷ", "\ud800 lone"):
        assert fold(fold(text)) == fold(text)


def test_long_words_and_rows_end_soon() -> None:
    """Nothing grows with the number of readings: digits, repeats and letters without end."""
    import time

    started = time.perf_counter()
    for text in ("1" * 50_000 + "a", "1l" * 3000, "a " * 5000, "aabb" * 5000, "k*" * 5000, "!|1" * 20 + "a"):
        WORDS.words(text)
        builtin_text_guard().score(text)
    assert time.perf_counter() - started < 10
