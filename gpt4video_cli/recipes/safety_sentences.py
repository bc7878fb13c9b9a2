"""Draws the sentences that the text guard is trained on, from the templates of ``safety_sentences.toml``.

A fifth of the templates of each kind and a fifth of the entries of each list are held out, to measure with. Held-out
sentences are made of held-out templates and, where a slot has any, held-out entries.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gpt4video_cli.safety.text_lexicon import lexicon

HELD_OUT = 5
"""One in so many."""
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Sentence:
    """``categories``: what a refusal would name; none if it is harmless. ``kind``: harmful, hard or plain."""

    text: str
    categories: tuple[str, ...]
    kind: str


@cache
def grammar() -> dict[str, dict[str, list[str]]]:
    """``lists``, ``harmful`` and ``benign``: name -> entries or templates."""
    table = tomllib.loads(files(__package__).joinpath("safety_sentences.toml").read_text(encoding="utf-8"))
    lists = {name: entries.split("|") for name, entries in table["lists"].items()}
    for number, name in enumerate(lexicon().names):
        if name not in lists:
            phrases = [phrase for phrase, own in lexicon().phrases.items() if number in own]
            lists[name] = [" ".join(phrase) for phrase in phrases if phrase != ("agechild",)]
    kinds = {part: {name: t.strip().splitlines() for name, t in table[part].items()} for part in ("harmful", "benign")}
    return {"lists": lists, **kinds}


def is_held_out(text: str) -> bool:
    """Whether a template or an entry of a list is kept from training; always the same for the same text."""
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


def _fill(template: str, rng: random.Random, held_out: bool | None) -> str:
    def entry(match: re.Match[str]) -> str:
        entries = grammar()["lists"][match[1]]
        fit = [e for e in entries if e and held_out in (None, is_held_out(e))]
        # The empty entries say how often a slot stays empty.
        return rng.choice(fit) if fit and rng.random() >= entries.count("") / len(entries) else ""

    return " ".join(_SLOT.sub(entry, template).split())


def draw(rng: random.Random, *, held_out: bool | None = False) -> Sentence:
    """A sentence, or two that follow each other: harmful in 45 of 100, hard to tell from it in 40.

    ``held_out``: of what training does not see, or of what it sees, or of everything if None.
    """
    kind = rng.choices(("harmful", "hard", "plain"), (45, 40, 15))[0]
    sentence = _draw(kind, rng, held_out)
    if rng.random() < 0.12:  # something harmless before or after it
        other = _draw(rng.choice(("hard", "plain")), rng, held_out)
        parts = [sentence.text, other.text]
        rng.shuffle(parts)
        sentence = Sentence(". ".join(parts), sentence.categories, sentence.kind)
    return sentence


def _draw(kind: str, rng: random.Random, held_out: bool | None) -> Sentence:
    if kind == "harmful":
        name = rng.choice(list(grammar()["harmful"]))
        templates = grammar()["harmful"][name]
        categories: tuple[str, ...] = (name,)
    else:
        templates, categories = grammar()["benign"][kind], ()
    template = rng.choice([t for t in templates if held_out in (None, is_held_out(t))])
    return Sentence(_fill(template, rng, held_out), categories, kind)


def vocabulary() -> frozenset[str]:
    """Every word of the templates and lists, in small letters."""
    texts = [text for part in grammar().values() for entries in part.values() for text in entries]
    return frozenset(
        word for text in texts for word in re.findall(r"[a-z]+", _SLOT.sub(" ", text).lower()) if len(word) > 1
    )
