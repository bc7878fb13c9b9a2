"""Words by what they mean: ``text_lexicon.toml``, with the forms that its markers stand for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product

_DOUBLED = {
    "stab", "strip", "hug", "snog", "flog", "grab", "chop", "whip", "kidnap", "slap", "rip", "slit", "hit",
    "cut", "get", "put", "shut", "run", "swim", "swap", "drug", "ram", "rig", "chat", "cum", "trap", "pin",
    "stun", "gun", "slam", "knit", "beg", "sob", "hang out", "dox", "rob", "drop", "fit", "set", "shit", "wrap",
    "spit", "stop", "hum",
}  # fmt: skip
_IRREGULAR = {
    "shoot": "shot", "beat": "beaten", "bleed": "bled", "slay": "slew slain", "hang": "hung hanged",
    "burn": "burnt", "drown": "drowned", "choke": "choked", "make": "made", "have": "had has",
    "take": "took taken", "wear": "wore worn", "put": "put", "cut": "cut", "slit": "slit", "hit": "hit",
    "hurt": "hurt", "get": "got gotten", "set": "set", "break": "broke broken", "throw": "threw thrown",
    "drive": "drove driven", "find": "found", "hold": "held", "sleep": "slept", "fight": "fought",
    "bite": "bit bitten", "blow": "blew blown", "tear": "tore torn", "dream": "dreamt", "run": "ran",
    "steal": "stole stolen", "mow": "mown", "sing": "sang sung", "stick": "stuck", "feel": "felt",
    "ride": "rode ridden", "show": "shown", "spread": "spread", "forbid": "forbade", "bury": "buried",
    "seek": "sought",
}  # fmt: skip


def verb_forms(verb: str) -> list[str]:
    """``kill`` -> kill, kills, killed, killing; irregular ones as far as the lexicon needs them."""
    stem = verb + verb[-1] if verb in _DOUBLED else verb
    vowel = verb[-1] == "e"
    third = verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh")) else "s")
    past, present = (verb + "d", verb[:-1] + "ing") if vowel else (stem + "ed", stem + "ing")
    if verb.endswith("y") and verb[-2] not in "aeo":
        third, past = verb[:-1] + "ies", verb[:-1] + "ied"
    if verb in _IRREGULAR and verb not in ("burn", "hang", "drown", "choke", "bury"):
        return [verb, third, present, *_IRREGULAR[verb].split()]
    return [verb, third, past, present, *_IRREGULAR.get(verb, "").split()]


def noun_forms(noun: str) -> list[str]:
    """``bomb`` -> bomb, bombs."""
    if noun.endswith("y") and noun[-2] not in "aeo":
        return [noun, noun[:-1] + "ies"]
    return [noun, noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")]


def expand(entry: str) -> Iterator[tuple[str, ...]]:
    """The phrases (tuples of words) that an entry stands for."""
    parts = []
    for part in entry.split("_"):
        word, _, mark = part.partition("+")
        parts.append(verb_forms(word) if mark == "v" else noun_forms(word) if mark == "n" else [word])
    for phrase in product(*parts):
        # The normaliser splits at hyphens and drops apostrophes.
        yield tuple(w for part in phrase for w in part.replace("'", "").replace("-", " ").split())


@dataclass(frozen=True)
class Lexicon:
    """``phrases``: words -> numbers of their concepts. ``longest``: by a phrase's first word, its most words.

    ``harm``: numbers of the concepts that can make a text harmful. ``watched``: single words whose disguises are
    undone. ``names``: of the concepts, by number.
    """

    names: tuple[str, ...]
    phrases: dict[tuple[str, ...], tuple[int, ...]]
    longest: dict[str, int]
    watched: frozenset[str]
    harm: frozenset[int]

    def find(self, words: list[str]) -> list[tuple[int, tuple[int, ...]]]:
        """Places of concepts in ``words``, from left to right; the longest phrase wins and its words are used up."""
        found, place = [], 0
        while place < len(words):
            for length in range(min(self.longest.get(words[place], 0), len(words) - place), 0, -1):
                concepts = self.phrases.get(tuple(words[place : place + length]))
                if concepts is not None:
                    found.append((place, concepts))
                    place += length - 1
                    break
            place += 1
        return found


def build_lexicon(concepts: dict[str, str], watched: Iterable[str], harm: Iterable[str]) -> Lexicon:
    """From the tables of the file."""
    names = tuple(concepts)
    phrases: dict[tuple[str, ...], tuple[int, ...]] = {}
    longest: dict[str, int] = {}
    single: set[str] = set()
    guarded = {names.index(name) for name in watched}
    for number, name in enumerate(names):
        for entry in concepts[name].split():
            for phrase in expand(entry):
                phrases[phrase] = tuple(sorted({*phrases.get(phrase, ()), number}))
                longest[phrase[0]] = max(longest.get(phrase[0], 0), len(phrase))
                if number in guarded and len(phrase) == 1 and len(phrase[0]) > 2:
                    single.add(phrase[0])
    return Lexicon(names, phrases, longest, frozenset(single), frozenset(map(names.index, harm)))


@cache
def lexicon() -> Lexicon:
    """The one that ships with the program."""
    table = tomllib.loads(files(__package__).joinpath("text_lexicon.toml").read_text(encoding="utf-8"))
    return build_lexicon(table["concepts"], table["watched"], table["harm"])
