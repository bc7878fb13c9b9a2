"""Text -> plain words, with the disguises undone that hide a word from a filter: "k1ll", "k.i.l.l", "к¡ll", "kiiill".

A disguise is undone only where a watched word comes out: "k i l l" becomes "kill", and "a b c", "MP3" and "Essex" stay
as they are. Words that really exist (``plain``) are never taken for a disguise of another.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import product

from gpt4video_cli.safety.text_confusables import DIGITS, LATIN

MOST_READINGS = 96
"""Of one word; a word with more digits and repeats than that is read as it stands."""
LONGEST_WORD = 64

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_APOSTROPHE = re.compile("['’]")
_RUN = re.compile(r"(.)\1")
_RUNS = re.compile(r"(.)\1*")
_EDGES = ".,;:?\"'`´’‘“”„«»()[]{}<>~^=…-–—/\\"
_INNER = re.compile(r"[\W_]+")
_HIDDEN = re.compile("[*#?_%✱＊]")
_SIGNS = "".join(sign for sign in DIGITS if not sign.isalnum())
_SPELLED = re.compile(f"[^\\W_]|[{re.escape(_SIGNS)}]")
# Letters that NFKC leaves: in circles and squares, white on black, and the regional indicators that make flags.
_ENCLOSED = {start + i: chr(97 + i) for start in (0x1F150, 0x1F170, 0x1F1E6, 0x24D0) for i in range(26)}
_BLANK = dict.fromkeys(map(ord, "\u2800\u3164\u115f\u1160\uffa0\u034f\u180e"))
_INVISIBLE = frozenset(("Mn", "Me", "Cf", "Cc", "Co", "Cs"))  # marks, format and control characters, private use
# Before NFKC, which would make a small sigma of the Greek lunate one.
_TURNED = str.maketrans("ɐɔǝɟƃɥᴉɾʞꞁɯʇʌʍʎ¡ϲϹ", "acefghijklmtvwyicc")


def fold(text: str) -> str:
    """Small letters of one script: compatibility forms, marks, invisible characters and look-alikes undone."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", text.translate(_ENCLOSED).translate(_BLANK).translate(_TURNED))
    letters = []
    for letter in unicodedata.normalize("NFKD", text):
        if letter.isascii() or letter.isspace() or unicodedata.category(letter) not in _INVISIBLE:
            letters.append(letter)
    text = "".join(letters).casefold()  # after the marks are gone: one of them is a small iota in capitals
    latin = sum(letter.isascii() and letter.isalpha() for letter in text)
    foreign = sum(letter.isalpha() and not letter.isascii() for letter in text)
    return " ".join(_look_alikes(word, latin >= foreign) for word in text.split(" "))


def _look_alikes(word: str, in_latin_text: bool) -> str:
    """``word`` in Latin letters if it mixes scripts, or if all of it looks Latin and so does the text around it."""
    if word.isascii():
        return word
    mapped = "".join(LATIN.get(letter, letter) for letter in word)
    mixed = any("a" <= letter <= "z" for letter in word)
    return mapped if mixed or (in_latin_text and mapped.isascii()) else word


class Normaliser:
    """``watched``: the words that disguises are undone for. ``plain``: ordinary words that merely look like one.

    ``known``: words that a row of single letters may be made of.
    """

    def __init__(self, watched: frozenset[str], plain: frozenset[str], known: frozenset[str]) -> None:
        self._watched, self._plain = watched, plain
        self._known = known | watched | plain
        self._by_length: dict[int, list[str]] = {}
        self._by_letters: dict[str, list[str]] = {}  # without repeats: "kil" -> kill
        for word in sorted(watched):
            self._by_length.setdefault(len(word), []).append(word)
            self._by_letters.setdefault(_RUNS.sub(r"\1", word), []).append(word)
        self._chunk = lru_cache(maxsize=4096)(self._read_chunk)

    def words(self, text: str) -> list[str]:
        """The words of ``text`` in small letters, without apostrophes and hyphens; disguised words as what they are."""
        chunks = fold(text).split()
        words: list[str] = []
        place = 0
        while place < len(chunks):
            taken, found = self._across(chunks, place)
            if taken:
                words += found
                place += taken
            else:
                words += self._chunk(chunks[place])
                place += 1
        return words

    def _across(self, chunks: list[str], place: int) -> tuple[int, list[str]]:
        """A word spelled over several chunks from ``place`` on: how many they are, and what they say."""
        end = place
        while end < len(chunks) and (len(chunks[end]) <= 2 and _single(chunks[end])):
            end += 1
        if end - place >= 3:
            letters = [_single(chunk) for chunk in chunks[place:end]]
            return end - place, self._row("".join(letters)) or letters
        for count in (5, 4, 3, 2):  # "ki ll", "mur d er": short pieces, one of which is no word
            pieces = [chunk.strip(_EDGES) for chunk in chunks[place : place + count]]
            if len(pieces) < count or max(map(len, pieces)) > (3 if count > 2 else 4):
                continue
            joined = "".join(pieces)
            if len(joined) >= 4 and joined.isalnum() and any(len(p) > 1 and p not in self._known for p in pieces):
                word = self._undisguised(joined)
                if word and not all(piece in self._known for piece in pieces):
                    return count, [word]
        return 0, []

    def _row(self, letters: str) -> list[str]:
        """The words in a row of single letters: one that is known, or several of which one is watched."""
        if len(letters) > LONGEST_WORD:
            return []
        if word := self._undisguised(letters):
            return [word]
        plain = "".join(DIGITS.get(letter, letter)[0] for letter in letters)
        if plain in self._plain or (plain in self._known and len(plain) > 3):
            return [plain]
        best: list[tuple[float, int]] = [(0.0, 0)]  # cost of the first n letters, where their last word begins
        for end in range(1, len(plain) + 1):
            options = [(best[end - 1][0] + 1.5, end - 1)]
            for start in range(max(0, end - 16), end):
                if plain[start:end] in self._known:
                    options.append((best[start][0] + 1, start))
            best.append(min(options))
        words, end = [], len(plain)
        while end:
            start = best[end][1]
            words.append(plain[start:end])
            end = start
        words.reverse()
        if not all(word in self._known and (len(word) > 1 or word in "ai") for word in words):
            return []
        return words if any(word in self._watched for word in words) else []

    def _read_chunk(self, chunk: str) -> tuple[str, ...]:
        """The words of what stands between two blanks."""
        pieces = tuple(_APOSTROPHE.sub("", word) for word in _WORD.findall(chunk))
        bare = chunk.strip(_EDGES)
        if len(bare) > LONGEST_WORD or "://" in chunk:
            return pieces
        if len(pieces) == 1 and pieces[0].isalpha() and not any(sign in bare for sign in _SIGNS):
            word = pieces[0]
            if word in self._known:
                return pieces
            if found := self._undisguised(word):
                return (found,)
            row = self._row(word) if len(word) > 6 else []  # "killhim", from names of tags
            return tuple(row) if row and all(len(part) > 2 for part in row) else pieces
        if not any(letter.isalpha() for letter in bare):
            return pieces
        if all(piece in self._known and len(piece) > 1 for piece in pieces) and "*" not in bare and "@" not in bare:
            if not any(sign in bare for sign in "$|€") and (len(pieces) > 1 or bare[:-1].isalpha()):
                return pieces
        for spelling in dict.fromkeys((bare, bare.rstrip("!|+"))):
            if _HIDDEN.search(spelling) and (found := self._with_gaps(spelling)):
                return (found,)
            if found := self._undisguised("".join(_SPELLED.findall(spelling))):
                return (found,)
        solid = _INNER.sub("", bare)
        if len(pieces) > 2 and all(len(piece) == 1 for piece in pieces):
            return tuple(self._row(solid)) or pieces
        if solid and (found := self._undisguised(solid)):
            return (found,)
        return tuple(word for piece in pieces for word in (self._undisguised(piece) or piece,))

    def _undisguised(self, word: str) -> str:
        """The watched word that ``word`` stands for, or ""."""
        if word in self._plain or len(word) < 3 or len(word) > LONGEST_WORD:
            return ""
        if word in self._watched:
            return word
        choices = [DIGITS.get(letter, letter) for letter in word]
        count = 1
        for choice in choices:
            count *= len(choice)
        if count > MOST_READINGS or not any(letter.isalpha() for letter in word):
            return ""
        for letters in product(*choices):
            reading = "".join(letters)
            if reading in self._watched and reading not in self._plain:
                return reading
            if shorter := self._shortened(reading):
                return shorter
        return ""

    def _shortened(self, word: str) -> str:
        """The watched word that is left when repeated letters are taken away, at least one of each staying."""
        if not _RUN.search(word) or word in self._known:
            return ""
        runs = [len(match[0]) for match in _RUNS.finditer(word)]
        for shorter in self._by_letters.get(_RUNS.sub(r"\1", word), ()):
            if all(own <= run for own, run in zip((len(m[0]) for m in _RUNS.finditer(shorter)), runs)):
                return shorter
        return ""

    def _with_gaps(self, word: str) -> str:
        """The watched word for "k*ll": as long, the same where letters stand, half of them at least."""
        shown = [(i, letter) for i, letter in enumerate(word) if letter.isalpha()]
        if len(word) < 3 or 2 * len(shown) < len(word) or not word[0].isalpha():
            return ""
        if any(not letter.isalnum() and not _HIDDEN.match(letter) for letter in word):
            return ""
        fits = [w for w in self._by_length.get(len(word), ()) if all(w[i] == letter for i, letter in shown)]
        return fits[0] if fits else ""


def _single(chunk: str) -> str:
    """The only letter, digit or sign of a chunk, or ""."""
    bare = chunk.strip(_EDGES) or chunk
    return bare if len(bare) == 1 and (bare.isalnum() or bare in DIGITS) else ""
