"""Dialogues about ShapeWorld clips: what the bundle's two training stages and its pretraining learn from.

Dialogues in which clips are asked for are in ``wishes.py``.

A dialogue is made of turns; a turn may bring clips (indices into ``Dialogue.scenes``). The clips are real video in
stage 1, and descriptions that stand for video in text-only training (section 3.4 of the paper).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpt4video_cli.shapeworld.question import KINDS
from gpt4video_cli.shapeworld.questions import DESCRIBE_REQUESTS, ask, ask_description
from gpt4video_cli.shapeworld.scene import Scene, sample_any, sample_scene

CANNOT_TELL = "I cannot tell that from the clip. I only know simple shapes and how they move."
NO_CLIP = "I have not seen a clip yet. Give me one and ask again."

PEOPLE = (
    "man woman person child boy girl baby teacher doctor singer driver dancer king queen friend mother father player "
    "police officer farmer cook worker student actor brother sister team crowd family speaker"
).split()
THINGS = (
    "dog cat horse bird fish car bus train boat plane house tree flower river mountain table chair cup book phone "
    "computer door window road bridge shirt hat shoe ball guitar piano cake bread apple banana pizza coffee water "
    "money clock lamp bed box bag knife spoon garden street city beach forest snow rain sun moon cloud sky grass logo "
    "sign word letter picture painting camera screen skateboard bicycle candle balloon"
).split()
HELD_OUT_NOUNS = (
    "elephant",
    "waiter",
    "violin",
    "umbrella",
    "pilot",
    "robot",
    "kitchen",
    "helicopter",
    "nurse",
    "lion",
)
"""Never used in training; the held-out test asks about them."""
_UNKNOWN = (
    "What is the name of the {p}?",
    "Who is the {p}?",
    "What does the {p} say?",
    "How old is the {p}?",
    "What is the {p} wearing?",
    "What is the {p} doing?",
    "Why does the {p} smile?",
    "Is the {p} happy?",
    "How many {p}s are there?",
    "Where was this filmed?",
    "Where is the {p}?",
    "When was this clip made?",
    "Who made this video?",
    "What song is playing?",
    "What sound do you hear?",
    "Is there music?",
    "What is the price of the {t}?",
    "What {c} is the {t}?",
    "Is there a {t} in the clip?",
    "Do you see a {t}?",
    "What kind of {t} is it?",
    "How fast is the {t}?",
    "Who owns the {t}?",
    "How heavy is the {t}?",
    "What is written on the {t}?",
    "What is the weather like?",
    "Which country is this?",
    "What does it smell like?",
    "What will happen next?",
    "What happened before the clip?",
    "Is the {t} new or old?",
    "Does the {p} like the {t}?",
    "Is the {p} next to the {t}?",
    "What is the {t} made of?",
    "How does the {t} move?",
    "What does the {t} do?",
)
_SYLLABLES = (
    "ba be bo da do fi ga go ka ki lo lu ma mi na no pa pe ra ri sa so ta to va vi wa xo za zu qua sti plo gru".split()
)
_SMALL_TALK = (
    (("Hello", "Hi", "Hello there", "Good morning", "Hey"), "Hello! Show me a clip and ask me about it."),
    (("Thank you", "Thanks", "Great, thank you", "Good job"), "You are welcome."),
    (("Bye", "Goodbye", "See you", "Good night"), "Goodbye!"),
    (
        ("What can you do?", "Who are you?", "What are you?", "Help", "What do you know?", "How can you help me?"),
        "I am a small video model. I know simple shapes, their colours and how they move, and I can ask for new clips.",
    ),
    (("How are you?", "How do you do?", "Are you well?"), "I am fine. Show me a clip and ask me about it."),
)


@dataclass(frozen=True)
class Turn:
    """One exchange: the clips that come with it, what the person says, what the assistant answers."""

    user: str
    answer: str
    clips: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """Turns about ``scenes``; scene ``i`` is clip ``i + 1`` of the conversation.

    ``wanted``: by number of the turn, the clips that are asked for.
    """

    scenes: tuple[Scene, ...]
    turns: tuple[Turn, ...]
    wanted: Mapping[int, Scene] = field(default_factory=dict)


def worn(text: str, rng: random.Random) -> str:
    """The way people type: sometimes without capital letter or question mark."""
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    return text


def unknown_question(rng: random.Random, nouns: tuple[str, ...] | None = None) -> str:
    """A question that no ShapeWorld clip can answer. ``nouns`` replaces the usual people and things."""
    word = "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 3)))
    person = rng.choice(nouns or (*PEOPLE, word))
    thing = rng.choice(nouns or (*THINGS, word))
    return rng.choice(_UNKNOWN).format(p=person, t=thing, c=rng.choice(("colour", "color")))


def small_talk(rng: random.Random) -> tuple[str, str]:
    """A greeting or question about the assistant, with its answer."""
    questions, answer = rng.choice(_SMALL_TALK)
    return rng.choice(questions), answer


def exchange(scene: Scene, rng: random.Random, kinds: tuple[str, ...] = ()) -> tuple[str, str]:
    """One question about ``scene`` and its true answer, of one of ``kinds`` or of any kind."""
    while kinds:
        if (asked := ask(scene, rng.choice(kinds), rng)) is not None:
            return asked.text, asked.answer
    choice = rng.random()
    if choice < 0.12:
        return (question := ask_description(scene, rng)).text, question.answer
    if choice < 0.2:
        return unknown_question(rng), CANNOT_TELL
    if choice < 0.22:
        return small_talk(rng)
    # The kinds of the held-out test are asked more often than the others, and most of all what is learned last: whether
    # something is there at all (47 % right when colours stood at 82 %).
    weights = [3, 3, 1, 4, 3, 2, 6, 3, 1, 1, 1, 1, 3]
    while True:
        asked = ask(scene, rng.choices(KINDS, weights)[0], rng)
        if asked is not None:
            return asked.text, asked.answer


def watching(
    rng: random.Random, *, turns: int = 6, scene: Scene | None = None, kinds: tuple[str, ...] = ()
) -> Dialogue:
    """One clip and several questions about it, of ``kinds`` only if there are any."""
    scene = scene or sample_any(rng)
    exchanges: dict[str, str] = {}
    for _ in range(turns * 3):
        user, answer = exchange(scene, rng, kinds)
        exchanges.setdefault(worn(user, rng), answer)
        if len(exchanges) == turns:
            break
    return Dialogue((scene,), tuple(Turn(u, a, (0,) if i == 0 else ()) for i, (u, a) in enumerate(exchanges.items())))


_ORDINALS = ("first", "second")


def watching_two(rng: random.Random, *, turns: int = 5, scenes: tuple[Scene, Scene] | None = None) -> Dialogue:
    """Two clips, given together or one after the other, and questions that say which clip they mean."""
    pair = scenes or (sample_any(rng), sample_any(rng))
    together = rng.random() < 0.5
    made: list[Turn] = []
    for i in range(turns):
        seen = 2 if together or i >= turns // 2 else 1
        which = rng.randrange(seen)
        user, answer = exchange(pair[which], rng)
        if seen == 2:
            place = rng.choice((f"video {which + 1}", f"the {_ORDINALS[which]} video", f"the {_ORDINALS[which]} clip"))
            user = f"{user[:-1]} in {place}{user[-1]}" if rng.random() < 0.5 else f"In {place}: {user}"
        clips: tuple[int, ...] = ()
        if together and i == 0:
            clips = (0, 1)
        elif not together and i in (0, turns // 2):
            clips = (0,) if i == 0 else (1,)
        made.append(Turn(worn(user, rng), answer, clips))
    return Dialogue(pair, tuple(made))


def no_clip(rng: random.Random) -> Dialogue:
    """Somebody asks about a clip that was never given, or just talks."""
    turns = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.4:
            turns.append(Turn(*small_talk(rng)))
        else:
            user, _answer = exchange(sample_scene(rng, plain=True), rng)
            if user in DESCRIBE_REQUESTS or "?" in user or rng.random() < 0.5:
                known = any(user in questions for questions, _ in _SMALL_TALK)
                turns.append(Turn(worn(user, rng), _answer if known else NO_CLIP))
    return Dialogue((), tuple(turns) or (Turn("Hello", _SMALL_TALK[0][1]),))
