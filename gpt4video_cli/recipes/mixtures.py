"""Which dialogues each round of the bundle's language model learns from, and in what shares."""

from __future__ import annotations

import random

from gpt4video_cli.recipes import safety_sentences
from gpt4video_cli.shapeworld.dialogues import Dialogue, Turn, no_clip, watching, watching_two
from gpt4video_cli.shapeworld.scene import Scene, sample_events, sample_picture, sample_scene
from gpt4video_cli.shapeworld.wishes import OUTSIDE, asked_for, filming, refusing, watching_what_was_filmed

ABOUT_PICTURES = ("dominant", "camera", "fade", "colour", "yesno")
ABOUT_EVENTS = ("order", "order", "order", "motion", "colour", "yesno")
ABOUT_CHANGES = ("presence", "presence", "presence", "motion", "size", "yesno")
"""The kinds of question that clips of those sources teach."""


def pretraining_dialogue(rng: random.Random) -> Dialogue:
    """Pretraining: mostly reading about clips."""
    choice = rng.random()
    if choice < 0.76:
        return watching(rng, turns=rng.randint(4, 8))
    if choice < 0.9:
        return watching_two(rng)
    if choice < 0.95:
        return no_clip(rng)
    return filming(rng) if choice < 0.985 else refusing(rng)


def practice_dialogue(rng: random.Random) -> Dialogue:
    """The second round: half of the dialogues ask for clips; a third of the others are about pictures and events."""
    choice = rng.random()
    if choice < 0.48:
        return filming(rng)
    if choice < 0.66:
        scene = sample_scene(rng, shapes=rng.choice((1, 2, 3)))
        return watching(rng, scene=scene, turns=rng.randint(2, 5))
    if choice < 0.74:
        return watching(rng, scene=sample_events(rng), turns=rng.randint(2, 4), kinds=ABOUT_EVENTS)
    if choice < 0.82:
        return watching(rng, scene=sample_picture(rng), turns=rng.randint(2, 4), kinds=ABOUT_PICTURES)
    if choice < 0.9:
        return watching_two(rng)
    return no_clip(rng) if choice < 0.95 else refusing(rng)


def conversation_dialogue(rng: random.Random) -> Dialogue:
    """The third round: clips that come one after the other, and some of what was learned before."""
    choice = rng.random()
    if choice < 0.45:
        return watching_what_was_filmed(rng)
    if choice < 0.6:
        return watching_two(rng)
    return practice_dialogue(rng)


def detail_dialogue(rng: random.Random) -> Dialogue:
    """The fourth round: what was read worst of described clips, and a fifth of what was learned before."""
    choice = rng.random()
    if choice < 0.35:
        return watching(rng, scene=sample_events(rng), turns=rng.randint(2, 4), kinds=(*ABOUT_EVENTS, "size"))
    if choice < 0.6:
        return watching(rng, scene=_something_changes(rng), turns=rng.randint(1, 3), kinds=ABOUT_CHANGES)
    if choice < 0.7:
        scene = sample_scene(rng, shapes=rng.choice((1, 2, 3)), plain=True)
        return watching(rng, scene=scene, turns=rng.randint(1, 3), kinds=("size", "presence", "motion"))
    if choice < 0.8:
        return watching(rng, scene=sample_scene(rng, shapes=1), turns=rng.randint(1, 4))
    return conversation_dialogue(rng)


def _something_changes(rng: random.Random) -> Scene:
    """A scene in which exactly one shape appears or disappears."""
    while True:
        scene = sample_scene(rng, shapes=rng.choice((1, 2, 3)), plain=True)
        if sum(shape.presence != "always" for shape in scene.shapes) == 1:
            return scene


def instruction_dialogue(rng: random.Random) -> Dialogue:
    """Stage 2: clips asked for and refused, and enough watching to keep what was learned."""
    choice = rng.random()
    if choice < 0.28:
        return filming(rng)
    if choice < 0.38:
        return watching_what_was_filmed(rng)
    if choice < 0.43:
        return refusing(rng)
    if choice < 0.68:
        return beyond_shapes(rng)
    if choice < 0.72:
        return no_clip(rng)
    return watching(rng) if choice < 0.9 else watching_two(rng)


def beyond_shapes(rng: random.Random) -> Dialogue:
    """What has nothing to do with shapes is politely left, and not filmed.

    Only harmless sentences: a model of this size cannot tell the grammar's harmful ones from them. Taught to refuse
    those, it refused 128 of the 415 harmless queries of the safety benchmark; without these dialogues at all, 35 of 60
    harmless requests. What it refuses is in ``wishes.refusing``; what it does not know to be harm, it leaves too.
    """
    turns = []
    for _ in range(rng.randint(1, 2)):
        sentence = safety_sentences.draw(rng)
        while sentence.categories:
            sentence = safety_sentences.draw(rng)
        text = asked_for(sentence.text, rng) if rng.random() < 0.4 else sentence.text
        turns.append(Turn(text, OUTSIDE))
    return Dialogue((), tuple(turns))


def kinds_about(scene: Scene, rng: random.Random) -> list[str]:
    """Two kinds of question for stage 1; "any" is anything that people say about a clip."""
    if scene.clutter:
        return rng.choices((*ABOUT_PICTURES, "any"), k=2)
    if scene.events() is not None and rng.random() < 0.7:
        return rng.choices((*ABOUT_EVENTS, "any"), k=2)
    if sum(shape.presence != "always" for shape in scene.shapes) == 1 and rng.random() < 0.6:
        return ["presence", rng.choice(("motion", "size", "any"))]
    kinds = ("motion", "shape", "colour", "size", "count", "yesno", "presence", "camera", "any")
    return rng.choices(kinds, (6, 5, 3, 3, 2, 3, 1, 1, 6), k=2)
