"""Dialogues in which a clip is asked for: out of nothing, or as a change of another; and those that are refused.

Text only (section 3.4 of the paper): the assistant writes the text that a text-to-video model films.
"""

from __future__ import annotations

import random
from dataclasses import replace

from gpt4video_cli.shapeworld.captions import CLUTTER_ANSWER, article, describe, joined, sized
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn, exchange, small_talk, worn
from gpt4video_cli.shapeworld.prompts import MOTION_NOUNS
from gpt4video_cli.shapeworld.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    REVERSED_MOTION,
    SHAPES,
    SIZELESS,
    Scene,
    Shape,
    sample_scene,
)

REFUSAL = "I am sorry, but I cannot help with that kind of content."
OUTSIDE = "I only know simple shapes and how they move. Ask me about those."
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
    "Make me a clip of {}.",
    "Please make a video with {}.",
    "Now film {}.",
    "Let me see {}.",
    "Can you make a video of {}?",
    "I need a clip of {}.",
    "A video of {}, please.",
)
INCOMPLETE = 0.35
"""Share of the requests that leave something unsaid. The assistant fills it in: detailed prompts give better clips."""
USUAL_SIZE, USUAL_MOTION, USUAL_BACKGROUND = "big", "right", "white"
"""What it fills in."""
_HERE = ("Here is the clip:", "Here it is:", "I film it now:", "Gladly:")


def clip_prompt(scene: Scene, rng: random.Random | None = None) -> str:
    """The text that a text-to-video model films: "a small red circle moving left on a white background".

    Sizes, motions and a background that are "" are left out.
    """
    parts = []
    for shape in scene.shapes:
        noun = article(sized(shape))
        phrases = MOTION_NOUNS.get(shape.motion, ("",))
        parts.append(f"{noun} {phrases[0] if rng is None else rng.choice(phrases)}".rstrip())
    backdrop = f" on {article(scene.background)} background" if scene.background else ""
    return joined(parts) + backdrop


def _with_gaps(scene: Scene, rng: random.Random) -> Scene:
    """``scene`` as somebody may ask for it: perhaps without sizes, motions or background."""
    if rng.random() >= INCOMPLETE:
        return scene
    keep = [rng.random() < 0.5 for _ in range(3)]
    shapes = scene.shapes
    if not keep[0]:
        shapes = tuple(replace(s, size="") for s in shapes)
    if not keep[1]:
        shapes = tuple(replace(s, motion="", size="" if s.motion in SIZELESS else s.size) for s in shapes)
    return replace(scene, shapes=shapes, background=scene.background if keep[2] else "")


def filled(scene: Scene) -> Scene:
    """``scene`` with the usual size, motion and background where it says none."""
    shapes = tuple(replace(s, size=s.size or USUAL_SIZE, motion=s.motion or USUAL_MOTION) for s in scene.shapes)
    return replace(scene, shapes=shapes, background=scene.background or USUAL_BACKGROUND)


_CHANGES = ("colour", "shape", "motion", "background", "reverse")
_RECOLOURED = ("Make it {}.", "The same in {}.", "Now in {}.", "Can it be {}?", "Change the colour to {}.", "In {}.")
_RESHAPED = ("The same with {}.", "Use {} instead.", "Now with {}.", "Make it {}.", "Replace it by {}.")
_REPLACED = ("Put it on {} background.", "Use {} background.", "The same on {} background.", "Now on {} background.")


def _changed(scene: Scene, rng: random.Random) -> tuple[str, Scene]:
    """A request to change the only shape of ``scene``, and the scene it asks for."""
    shape = scene.shapes[0]
    what = rng.choice(_CHANGES)
    new: Shape = shape
    if what == "colour":
        new = replace(shape, colour=rng.choice([c for c in COLOURS if c != shape.colour]))
        text = rng.choice(_RECOLOURED).format(new.colour)
    elif what == "shape":
        new = replace(shape, shape=rng.choice([s for s in SHAPES if s != shape.shape]))
        text = rng.choice(_RESHAPED).format(article(new.shape))
    elif what == "motion":
        new = replace(shape, motion=rng.choice([m for m in MOTIONS if m != shape.motion]))
        if shape.motion in SIZELESS:  # nobody said or saw how big the new one shall be
            new = replace(new, size="")
        text = rng.choice(("Make it {}.", "Now {}.", "The same, but {}.")).format(MOTION_NOUNS[new.motion][0])
    elif what == "background" or shape.motion not in REVERSED_MOTION:
        background = rng.choice([b for b in BACKGROUNDS if b != scene.background])
        text = rng.choice(_REPLACED).format(article(background))
        return text, replace(scene, background=background)
    else:
        new = replace(shape, motion=REVERSED_MOTION[shape.motion])
        text = rng.choice(("Make it go the other way.", "Do the opposite motion.", "Reverse the motion."))
    return text, replace(scene, shapes=(new,))


def asked_for(text: str, rng: random.Random) -> str:
    """``text`` as what somebody wants to have filmed."""
    return worn(rng.choice(_REQUESTS).format(text), rng)


def _filmed(scene: Scene, rng: random.Random) -> str:
    return f"{rng.choice(_HERE)} <video>{clip_prompt(filled(scene))}</video>"


def filming(rng: random.Random) -> Dialogue:
    """A clip is asked for out of nothing, or after watching one, and perhaps changed afterwards."""
    watched = rng.random() < 0.45
    scene = sample_scene(rng, shapes=1 if watched else rng.choice((1, 1, 2)), plain=True)
    turns: list[Turn] = []
    wanted: dict[int, Scene] = {}
    if watched:
        for i in range(rng.randint(0, 2)):
            turns.append(Turn(*exchange(scene, rng), (0,) if i == 0 else ()))
    else:
        asked = _with_gaps(scene, rng)
        request = worn(rng.choice(_REQUESTS).format(clip_prompt(asked, rng)), rng)
        wanted[0], scene = asked, filled(asked)
        turns.append(Turn(request, _filmed(scene, rng)))
    if watched or (len(scene.shapes) == 1 and rng.random() < 0.5):
        text, changed = _changed(scene, rng)
        wanted[len(turns)] = changed
        turns.append(Turn(worn(text, rng), _filmed(changed, rng), (0,) if watched and not turns else ()))
    if rng.random() < 0.2:
        turns.append(Turn(*small_talk(rng)))
    return Dialogue((scene,) if watched else (), tuple(turns), wanted)


def watching_what_was_filmed(rng: random.Random, *, scenes: tuple[Scene, Scene] | None = None) -> Dialogue:
    """A clip is watched, another is asked for, comes, and is asked about: an answer is about it, not the one before.

    What comes is not always what was asked for, so that answers are looked up in the clip and not in the request.
    """
    first = scenes[0] if scenes else sample_scene(rng, shapes=1, plain=True)
    turns = [Turn(*exchange(first, rng), (0,) if i == 0 else ()) for i in range(rng.randint(1, 2))]
    if len(first.shapes) == 1 and not first.clutter and rng.random() < 0.7:
        text, wanted = _changed(first, rng)
    else:
        wanted = sample_scene(rng, shapes=1, plain=True)
        text = rng.choice(_REQUESTS).format(clip_prompt(wanted, rng))
    turns.append(Turn(worn(text, rng), _filmed(wanted, rng)))
    if scenes:
        second = scenes[1]
    else:
        second = filled(wanted) if rng.random() < 0.6 else sample_scene(rng, shapes=rng.choice((1, 2)), plain=True)
    for i in range(rng.randint(1, 3)):
        about = 1 if i == 0 or rng.random() < 0.8 else 0
        user, answer = exchange((first, second)[about], rng)
        place = f"In {rng.choice(('video', 'clip'))} {about + 1}: " if about == 0 or rng.random() < 0.4 else ""
        turns.append(Turn(worn(f"{place}{user}", rng), answer, (1,) if i == 0 else ()))
    return Dialogue((first, second), tuple(turns))


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
    turns = [Turn(worn(text, rng), REFUSAL)]
    if rng.random() < 0.4:
        scene = sample_scene(rng, shapes=1, plain=True)
        turns.append(Turn(rng.choice(_REQUESTS).format(clip_prompt(scene, rng)), _filmed(scene, rng)))
    return Dialogue((), tuple(turns))


def plain_text(rng: random.Random) -> str:
    """A sentence without a dialogue around it: descriptions and film prompts, for the language model's pretraining."""
    scene = sample_scene(rng, plain=rng.random() < 0.5)
    if scene.clutter:
        return CLUTTER_ANSWER
    if scene.shapes and rng.random() < 0.3:
        return clip_prompt(scene, rng)
    return describe(scene, rng)
