"""A file name for a clip from the words of its prompt, whatever the prompt says."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

MOST_WORDS = 6
MOST_BYTES = 48
"""Of the words together, in UTF-8. File systems allow 255 for a name; seed, number and ending must fit as well."""
NO_WORDS = "clip"


def default_name(prompt: str, seed: int, folder: Path, ending: str = ".mp4") -> Path:
    """A path in ``folder`` that names no existing file: ``a-red-circle-7.mp4``, then ``a-red-circle-7-2.mp4``, ….

    Letters and digits of any script stay, everything else becomes a hyphen, so that the name is neither a path nor an
    option nor hidden; the seed keeps it apart from the names that Windows reserves (``con``, ``nul``). The name of the
    side-car is free too. ``ending`` is empty for a folder of frames.
    """
    stem = f"{_words(prompt)}-{seed}"
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        path = folder / f"{name}{ending}"
        if not os.path.lexists(path) and not os.path.lexists(folder / f"{name}.json"):
            return path
        number += 1


def _words(prompt: str) -> str:
    """The first words of ``prompt``, in small letters, joined by hyphens; at most ``MOST_BYTES`` long.

    NFKC turns full-width letters, ligatures and the superscripts of names such as COM¹ into plain letters first.
    """
    # A prompt may be a book; its first 1,000 characters hold more than enough words.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt[:1000]).lower())
    kept = "".join(letter if _stays(letter) else " " for letter in text)
    # A mark (an accent, a vowel sign) at the beginning of a word has lost its letter.
    words = [word.lstrip("".join(mark for mark in set(word) if not mark.isalnum())) for word in kept.split()]
    name = ""
    for word in [word for word in words if word][:MOST_WORDS]:
        longer = f"{name}-{word}" if name else word
        if len(longer.encode()) > MOST_BYTES:
            break
        name = longer
    if not name and any(words):  # one word that is longer than all may be
        name = next(filter(None, words)).encode()[:MOST_BYTES].decode("utf-8", "ignore")
    return name or NO_WORDS


def _stays(letter: str) -> bool:
    category = unicodedata.category(letter)
    return letter.isalnum() or category in ("Mn", "Mc")
