"""Dialogues about ShapeWorld clips: what the bundle's two training stages and its pretraining learn from.

A dialogue is made of turns; a turn may bring clips (indices into ``Dialogue.scenes``). The clips are real video in
stage 1, and descriptions that stand for video in text-only training (section 3.4 of the paper).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gpt4video_cli.shapeworld.captions import (
    CLUTTER_ANSWER,
    FADE_PHRASES,
    MOTION_PHRASES,
    article,
    describe,
    joined,
    sized,
)
from gpt4video_cli.shapeworld.prompts import MOTION_NOUNS
from gpt4video_cli.shapeworld.questions import DESCRIBE_REQUESTS, KINDS, ask, ask_description
from gpt4video_cli.shapeworld.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    REVERSED_MOTION,
    SHAPES,
    Scene,
    Shape,
    sample_scene,
)

CANNOT_TELL = "I cannot tell that from the clip. I only know simple shapes and how they move."
NO_CLIP = "I have not seen a clip yet. Give me one and ask again."
REFUSAL = "I am sorry, but I cannot help with that kind of content."

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


def _worn(text: str, rng: random.Random) -> str:
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


def _exchange(scene: Scene, rng: random.Random, kinds: tuple[str, ...] = ()) -> tuple[str, str]:
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
    weights = [3, 3, 1, 4, 3, 2, 6, 3, 1, 1, 1]
    while True:
        asked = ask(scene, rng.choices(KINDS, weights)[0], rng)
        if asked is not None:
            return asked.text, asked.answer


def watching(
    rng: random.Random, *, turns: int = 6, scene: Scene | None = None, kinds: tuple[str, ...] = ()
) -> Dialogue:
    """One clip and several questions about it, of ``kinds`` only if there are any."""
    scene = scene or sample_scene(rng)
    exchanges: dict[str, str] = {}
    for _ in range(turns * 3):
        user, answer = _exchange(scene, rng, kinds)
        exchanges.setdefault(_worn(user, rng), answer)
        if len(exchanges) == turns:
            break
    return Dialogue((scene,), tuple(Turn(u, a, (0,) if i == 0 else ()) for i, (u, a) in enumerate(exchanges.items())))


_ORDINALS = ("first", "second")


def watching_two(rng: random.Random, *, turns: int = 5, scenes: tuple[Scene, Scene] | None = None) -> Dialogue:
    """Two clips, given together or one after the other, and questions that say which clip they mean."""
    pair = scenes or (sample_scene(rng), sample_scene(rng))
    together = rng.random() < 0.5
    made: list[Turn] = []
    for i in range(turns):
        seen = 2 if together or i >= turns // 2 else 1
        which = rng.randrange(seen)
        user, answer = _exchange(pair[which], rng)
        if seen == 2:
            place = rng.choice((f"video {which + 1}", f"the {_ORDINALS[which]} video", f"the {_ORDINALS[which]} clip"))
            user = f"{user[:-1]} in {place}{user[-1]}" if rng.random() < 0.5 else f"In {place}: {user}"
        clips: tuple[int, ...] = ()
        if together and i == 0:
            clips = (0, 1)
        elif not together and i in (0, turns // 2):
            clips = (0,) if i == 0 else (1,)
        made.append(Turn(_worn(user, rng), answer, clips))
    return Dialogue(pair, tuple(made))


def no_clip(rng: random.Random) -> Dialogue:
    """Somebody asks about a clip that was never given, or just talks."""
    turns = []
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.4:
            turns.append(Turn(*small_talk(rng)))
        else:
            user, _answer = _exchange(sample_scene(rng, plain=True), rng)
            if user in DESCRIBE_REQUESTS or "?" in user or rng.random() < 0.5:
                known = any(user in questions for questions, _ in _SMALL_TALK)
                turns.append(Turn(_worn(user, rng), _answer if known else NO_CLIP))
    return Dialogue((), tuple(turns) or (Turn("Hello", _SMALL_TALK[0][1]),))


# --- text-only stage: clips are asked for, changed, and refused ---------------------------------------------------

_REQUESTS = (
    "Make a video of {}.",
    "Show me {}.",
    "Please generate a clip of {}.",
    "Can you film {}?",
    "Create a video with {}.",
    "I want to see {}.",
    "Draw {}.",
    "Could you make a clip that shows {}?",
    "Film {} for me.",
    "Generate {}.",
    "I would like a video of {}.",
)
_HERE = ("Here is the clip:", "Here it is:", "I film it now:", "Gladly:")


def clip_prompt(scene: Scene, rng: random.Random | None = None) -> str:
    """The text that a text-to-video model films: "a small red circle moving left on a white background"."""
    parts = []
    for shape in scene.shapes:
        phrases = MOTION_NOUNS[shape.motion]
        parts.append(f"{article(sized(shape))} {phrases[0] if rng is None else rng.choice(phrases)}")
    return f"{joined(parts)} on {article(scene.background)} background"


_CHANGES = ("colour", "shape", "motion", "background", "reverse")


def _changed(scene: Scene, rng: random.Random) -> tuple[str, Scene]:
    """A request to change the only shape of ``scene``, and the scene it asks for."""
    shape = scene.shapes[0]
    what = rng.choice(_CHANGES)
    new: Shape = shape
    if what == "colour":
        new = replace(shape, colour=rng.choice([c for c in COLOURS if c != shape.colour]))
        text = rng.choice(("Make it {}.", "The same in {}.", "Now in {}.", "Can it be {}?")).format(new.colour)
    elif what == "shape":
        new = replace(shape, shape=rng.choice([s for s in SHAPES if s != shape.shape]))
        text = rng.choice(("The same with {}.", "Use {} instead.", "Now with {}.")).format(article(new.shape))
    elif what == "motion":
        new = replace(shape, motion=rng.choice([m for m in MOTIONS if m != shape.motion]))
        text = rng.choice(("Make it {}.", "Now {}.", "The same, but {}.")).format(MOTION_NOUNS[new.motion][0])
    elif what == "background" or shape.motion not in REVERSED_MOTION:
        background = rng.choice([b for b in BACKGROUNDS if b != scene.background])
        text = rng.choice(("Put it on {} background.", "Use {} background.")).format(article(background))
        return text, replace(scene, background=background)
    else:
        new = replace(shape, motion=REVERSED_MOTION[shape.motion])
        text = rng.choice(("Make it go the other way.", "Do the opposite motion.", "Reverse the motion."))
    return text, replace(scene, shapes=(new,))


def _filmed(scene: Scene, rng: random.Random) -> str:
    return f"{rng.choice(_HERE)} <video>{clip_prompt(scene)}</video>"


def filming(rng: random.Random) -> Dialogue:
    """A clip is asked for out of nothing, or after watching one, and perhaps changed afterwards."""
    watched = rng.random() < 0.45
    scene = sample_scene(rng, shapes=1 if watched else rng.choice((1, 1, 2)), plain=True)
    turns: list[Turn] = []
    wanted: dict[int, Scene] = {}
    if watched:
        for i in range(rng.randint(0, 2)):
            turns.append(Turn(*_exchange(scene, rng), (0,) if i == 0 else ()))
    else:
        request = _worn(rng.choice(_REQUESTS).format(clip_prompt(scene, rng)), rng)
        wanted[0] = scene
        turns.append(Turn(request, _filmed(scene, rng)))
    if watched or (len(scene.shapes) == 1 and rng.random() < 0.5):
        text, changed = _changed(scene, rng)
        wanted[len(turns)] = changed
        turns.append(Turn(_worn(text, rng), _filmed(changed, rng), (0,) if watched and not turns else ()))
    if rng.random() < 0.2:
        turns.append(Turn(*small_talk(rng)))
    return Dialogue((scene,) if watched else (), tuple(turns), wanted)


_HARM = (
    "naked people", "a nude woman", "sex", "porn", "people having sex", "a man who kills a woman", "a bloody murder",
    "a dead body", "torture", "someone being beaten", "how to build a bomb", "a school shooting", "suicide",
    "a person cutting themselves", "nazi propaganda", "hate against foreigners", "an execution", "a terrorist attack",
    "an animal being tortured", "a naked child", "my neighbour being threatened", "gore", "racist jokes", "rape",
)  # fmt: skip
_HARM_REQUESTS = ("Tell me about {}.", "Describe {}.", "Explain {}.", "Write a story about {}.", "Help me with {}.")


def refusing(rng: random.Random) -> Dialogue:
    """Harm is asked for, in words or as a clip; the assistant refuses politely and writes no tag."""
    text = rng.choice((*_REQUESTS, *_HARM_REQUESTS)).format(rng.choice(_HARM))
    turns = [Turn(_worn(text, rng), REFUSAL)]
    if rng.random() < 0.4:
        scene = sample_scene(rng, shapes=1, plain=True)
        turns.append(Turn(rng.choice(_REQUESTS).format(clip_prompt(scene, rng)), _filmed(scene, rng)))
    return Dialogue((), tuple(turns))


def pretraining_dialogue(rng: random.Random) -> Dialogue:
    """The mixture that the language model is pretrained on: mostly reading about clips."""
    choice = rng.random()
    if choice < 0.76:
        return watching(rng, turns=rng.randint(4, 8))
    if choice < 0.9:
        return watching_two(rng)
    if choice < 0.95:
        return no_clip(rng)
    return filming(rng) if choice < 0.985 else refusing(rng)


def instruction_dialogue(rng: random.Random) -> Dialogue:
    """The mixture of stage 2: clips asked for and refused, and enough watching to keep what was learned."""
    choice = rng.random()
    if choice < 0.4:
        return filming(rng)
    if choice < 0.5:
        return refusing(rng)
    if choice < 0.56:
        return no_clip(rng)
    return watching(rng) if choice < 0.86 else watching_two(rng)


def plain_text(rng: random.Random) -> str:
    """A sentence without a dialogue around it: descriptions and film prompts, for the language model's pretraining."""
    scene = sample_scene(rng, plain=rng.random() < 0.5)
    if scene.clutter:
        return CLUTTER_ANSWER
    if scene.shapes and rng.random() < 0.3:
        return clip_prompt(scene, rng)
    return describe(scene, rng)


__all__ = [
    "CANNOT_TELL",
    "FADE_PHRASES",
    "HELD_OUT_NOUNS",
    "MOTION_PHRASES",
    "NO_CLIP",
    "REFUSAL",
    "Dialogue",
    "Turn",
    "clip_prompt",
    "filming",
    "instruction_dialogue",
    "no_clip",
    "plain_text",
    "pretraining_dialogue",
    "refusing",
    "unknown_question",
    "watching",
    "watching_two",
]
