"""Which dialogues each round of the bundle's language model learns from, and in what shares."""

from __future__ import annotations

import random

from gpt4video_cli.shapeworld.dialogues import Dialogue, no_clip, watching, watching_two
from gpt4video_cli.shapeworld.scene import Scene, sample_events, sample_picture, sample_scene
from gpt4video_cli.shapeworld.wishes import filming, refusing, watching_what_was_filmed

ABOUT_PICTURES = ("dominant", "camera", "fade", "colour", "yesno")
ABOUT_EVENTS = ("order", "order", "order", "motion", "colour", "yesno")
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
    if choice < 0.38:
        return filming(rng)
    if choice < 0.48:
        return watching_what_was_filmed(rng)
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


def instruction_dialogue(rng: random.Random) -> Dialogue:
    """Stage 2: clips asked for and refused, and enough watching to keep what was learned."""
    choice = rng.random()
    if choice < 0.32:
        return filming(rng)
    if choice < 0.42:
        return watching_what_was_filmed(rng)
    if choice < 0.5:
        return refusing(rng)
    if choice < 0.56:
        return no_clip(rng)
    return watching(rng) if choice < 0.86 else watching_two(rng)


def kinds_about(scene: Scene, rng: random.Random) -> list[str]:
    """Two kinds of question for stage 1; "any" is anything that people say about a clip."""
    if scene.clutter:
        return rng.choices((*ABOUT_PICTURES, "any"), k=2)
    if scene.events() is not None and rng.random() < 0.7:
        return rng.choices((*ABOUT_EVENTS, "any"), k=2)
    return rng.choices(("motion", "shape", "colour", "count", "yesno", "camera", "any"), (6, 5, 3, 2, 3, 1, 6), k=2)
