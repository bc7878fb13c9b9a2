"""Questions about a scene with their true answers."""

from __future__ import annotations

import random
from collections.abc import Callable

from gpt4video_cli.shapeworld.captions import (
    CAMERA_PHRASES,
    CLUTTER_ANSWER,
    FADE_PHRASES,
    MOTION_PHRASES,
    NUMBERS,
    article,
    describe,
)
from gpt4video_cli.shapeworld.question import MOTION_WORDS, Question
from gpt4video_cli.shapeworld.scene import COLOURS, PLAIN_BACKGROUNDS, SHAPES, SIZELESS, Scene, Shape


def _pick(rng: random.Random, *texts: str) -> str:
    return rng.choice(texts)


def _references(scene: Scene, shape: Shape, *, hide: str) -> list[str]:
    """Noun phrases that name exactly ``shape`` without saying its ``hide`` attribute."""
    same_shape = [s for s in scene.shapes if s.shape == shape.shape]
    same_colour = [s for s in scene.shapes if s.colour == shape.colour]
    same_size = [s for s in scene.shapes if s.size == shape.size or s.motion in SIZELESS]
    found = []
    if hide != "shape" and len(same_shape) == 1:
        found.append(f"the {shape.shape}")
    if hide != "colour" and len(same_colour) == 1:
        found += [f"the {shape.colour} shape", f"the {shape.colour} object", f"the {shape.colour} one"]
    if hide not in ("shape", "colour"):
        found += [f"the {shape.colour} {shape.shape}"] * 2
    sizeable = shape.motion not in SIZELESS
    if hide != "size" and sizeable and len(same_size) == 1 and scene.camera == "still":
        found.append(f"the {shape.size} shape")
    if len(scene.shapes) == 1:
        found += ["the shape", "the object", "it"]
    return found


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _about_one(scene: Scene, rng: random.Random, hide: str) -> tuple[Shape, str] | None:
    """A shape of the scene that can be named without its ``hide`` attribute, and such a name."""
    shapes = [s for s in scene.shapes if _references(scene, s, hide=hide)]
    if hide == "size":
        shapes = [s for s in shapes if s.motion not in SIZELESS]
    if not shapes:
        return None
    shape = rng.choice(shapes)
    return shape, rng.choice(_references(scene, shape, hide=hide))


def _colour_word(rng: random.Random) -> str:
    return rng.choice(("colour", "color"))


def _ask_colour(scene: Scene, rng: random.Random) -> Question | None:
    picked = _about_one(scene, rng, "colour")
    if picked is None:
        return None
    shape, name = picked
    word = _colour_word(rng)
    text = _pick(
        rng,
        f"What {word} is {name}?",
        f"What {word} does {name} have?",
        f"Which {word} is {name}?",
        f"What is the {word} of {name}?",
        f"Tell me the {word} of {name}.",
    )
    return Question("colour", text, f"The {shape.shape} is {shape.colour}.", shape.colour)


def _ask_shape(scene: Scene, rng: random.Random) -> Question | None:
    picked = _about_one(scene, rng, "shape")
    if picked is None:
        return None
    shape, name = picked
    text = _pick(
        rng,
        f"What shape is {name}?",
        f"Which shape does {name} have?",
        f"What is {name}?",
        f"What kind of shape is {name}?",
        f"What is the shape of {name}?",
    )
    return Question("shape", text, f"It is {article(shape.colour)} {shape.shape}.", shape.shape)


def _ask_size(scene: Scene, rng: random.Random) -> Question | None:
    picked = _about_one(scene, rng, "size")
    if picked is None or scene.camera != "still":
        return None
    shape, name = picked
    text = _pick(rng, f"What size is {name}?", f"Is {name} small or big?", f"How big is {name}?")
    return Question("size", text, f"The {shape.shape} is {shape.size}.", shape.size)


def _ask_motion(scene: Scene, rng: random.Random) -> Question | None:
    picked = _about_one(scene, rng, "motion")
    if picked is None or scene.camera != "still":
        return None
    shape, name = picked
    text = _pick(
        rng,
        f"How does {name} move?",
        f"What does {name} do?",
        f"What is {name} doing?",
        f"What happens to {name}?",
        f"Describe the motion of {name}.",
        f"In which direction does {name} move?",
    )
    return Question(
        "motion",
        text,
        f"The {shape.colour} {shape.shape} {MOTION_PHRASES[shape.motion][0]}.",
        MOTION_WORDS[shape.motion],
    )


def _ask_count(scene: Scene, rng: random.Random) -> Question | None:
    groups: list[tuple[str, str, Callable[[Shape], bool]]] = [("shape", "shapes", lambda s: True)] * 3
    groups += [("object", "objects", lambda s: True)]
    shape = rng.choice([s.shape for s in scene.shapes] * 2 + [rng.choice(SHAPES)])
    groups.append((shape, shape + ("es" if shape == "cross" else "s"), lambda s: s.shape == shape))
    colour = rng.choice([s.colour for s in scene.shapes] * 2 + [rng.choice(tuple(COLOURS))])
    groups.append((f"{colour} shape", f"{colour} shapes", lambda s: s.colour == colour))
    one, many, belongs = rng.choice(groups)
    count = sum(belongs(s) for s in scene.shapes)
    text = _pick(
        rng,
        f"How many {many} are there?",
        f"How many {many} do you see?",
        f"Count the {many}.",
        f"What is the number of {many}?",
    )
    answer = f"There is one {one}." if count == 1 else f"There are {NUMBERS[count]} {many}."
    return Question("count", text, answer, NUMBERS[count])


def _ask_background(scene: Scene, rng: random.Random) -> Question | None:
    word = _colour_word(rng)
    text = _pick(
        rng,
        "What is the background?",
        "What does the background look like?",
        f"What {word} is the background?",
        "Which background does the clip have?",
        "Describe the background.",
    )
    return Question("background", text, f"The background is {scene.background}.", scene.background)


def _ask_yesno(scene: Scene, rng: random.Random) -> Question | None:
    want = rng.random() < 0.5
    if rng.random() < 0.3 and scene.shapes and scene.camera == "still":
        shape = rng.choice(scene.shapes)
        motion = shape.motion if want else rng.choice([m for m in MOTION_PHRASES if m != shape.motion])
        verb = {
            "left": "move to the left",
            "right": "move to the right",
            "up": "move up",
            "down": "move down",
            "still": "stay still",
            "growing": "grow",
            "shrinking": "shrink",
            "spinning": "spin",
        }[motion]
        text = f"Does the {shape.colour} {shape.shape} {verb}?"
        truth = f"the {shape.colour} {shape.shape} {MOTION_PHRASES[shape.motion][0]}."
        return Question("yesno", text, ("Yes, " if want else "No, ") + truth, "yes" if want else "no")
    if want:
        if not scene.shapes:
            return None
        shape = rng.choice(scene.shapes)
        noun = rng.choice((shape.shape, f"{shape.colour} {shape.shape}", f"{shape.colour} shape"))
        there = True
    else:
        # Near misses: half of them have a colour or a shape that the scene shows.
        colours = [s.colour for s in scene.shapes] if rng.random() < 0.5 else []
        shapes = [s.shape for s in scene.shapes] if rng.random() < 0.5 else []
        colour = rng.choice(colours or list(COLOURS))
        name = rng.choice(shapes or list(SHAPES))
        noun = rng.choice((name, f"{colour} {name}", f"{colour} {name}", f"{colour} shape"))
        there = _is_there(scene, noun)
    ask = _pick(
        rng,
        f"Is there {article(noun)}?",
        f"Do you see {article(noun)}?",
        f"Is there {article(noun)} in the clip?",
        f"Does the clip show {article(noun)}?",
        f"Can you see {article(noun)} in this video?",
    )
    answer = f"Yes, there is {article(noun)}." if there else f"No, there is no {noun}."
    return Question("yesno", ask, answer, "yes" if there else "no")


def _is_there(scene: Scene, noun: str) -> bool:
    words = noun.split()
    return any(all(w in (s.colour, s.shape, "shape") for w in words) for s in scene.shapes)


def _ask_absent(scene: Scene, rng: random.Random) -> Question | None:
    """A question about something that is not there: the honest answer says so."""
    missing = [s for s in SHAPES if s not in {x.shape for x in scene.shapes}]
    noun = rng.choice(missing)
    if rng.random() < 0.5:
        colour = rng.choice(tuple(COLOURS))
        noun = f"{colour} {noun}"
        text = _pick(rng, f"How does the {noun} move?", f"What does the {noun} do?", f"What size is the {noun}?")
    else:
        word = _colour_word(rng)
        text = _pick(
            rng,
            f"What {word} is the {noun}?",
            f"How does the {noun} move?",
            f"What is the {word} of the {noun}?",
            f"Is the {noun} small or big?",
        )
    return Question("absent", text, f"There is no {noun} in this clip.", "no")


def _ask_camera(scene: Scene, rng: random.Random) -> Question | None:
    text = _pick(
        rng,
        "How does the camera move?",
        "What does the camera do?",
        "Does the camera move?",
        "Is there a camera movement?",
        "Which way does the camera go?",
    )
    expected = "not" if scene.camera == "still" else scene.camera
    return Question("camera", text, CAMERA_PHRASES[scene.camera][0], expected)


def _ask_fade(scene: Scene, rng: random.Random) -> Question | None:
    text = _pick(
        rng,
        "Does the clip fade in or out?",
        "Is there a fade?",
        "Does the picture become dark or bright?",
        "Does the clip fade?",
    )
    return Question("fade", text, FADE_PHRASES[scene.fade][0], "not" if scene.fade == "none" else scene.fade)


def _ask_presence(scene: Scene, rng: random.Random) -> Question | None:
    changing = [s for s in scene.shapes if s.presence != "always"]
    if len(changing) > 1:
        return None
    text = _pick(
        rng,
        "Does anything appear or disappear?",
        "Which shape appears or disappears?",
        "Does a shape appear or disappear?",
    )
    if not changing:
        return Question(
            "presence", text, "No, nothing appears or disappears.", "nothing", frozenset(("appears", "disappears"))
        )
    shape = changing[0]
    return Question("presence", text, f"The {shape.colour} {shape.shape} {shape.presence}.", shape.presence)


def _ask_dominant(scene: Scene, rng: random.Random) -> Question | None:
    dominant = scene.dominant or (scene.background if scene.background in PLAIN_BACKGROUNDS else "")
    if not dominant:
        return None
    word = _colour_word(rng)
    text = _pick(
        rng,
        f"What is the main {word}?",
        f"Which {word} covers most of the picture?",
        f"What is the dominant {word} of the clip?",
        f"What {word} is most of the picture?",
        f"Which {word} is seen most?",
    )
    return Question("dominant", text, f"The picture is mostly {dominant}.", dominant)


def _ask_order(scene: Scene, rng: random.Random) -> Question | None:
    events = scene.events()
    if events is None:
        return None
    place = rng.randrange(2)
    shape, when = events[place], ("first", "last")[place]
    names = [f"the {s.colour} {s.shape}" for s in rng.sample(events, 2)]
    texts = [
        f"What happens {when}?",
        f"What happens {('at the beginning', 'at the end')[place]}?",
        f"Which shape changes {when}?",
        f"What comes {when}, {names[0]} or {names[1]}?",
        f"Which one changes {when}, {names[0]} or {names[1]}?",
    ]
    if events[0].presence == events[1].presence:
        verb = shape.presence
        texts += [f"Which shape {verb} {when}?", f"What {verb} {when}, {names[0]} or {names[1]}?"]
    said = f"{shape.colour} {shape.shape} {shape.presence}"
    return Question("order", rng.choice(texts), f"The {said} {when}.", said)


_ASKERS: dict[str, Callable[[Scene, random.Random], Question | None]] = {
    "colour": _ask_colour,
    "shape": _ask_shape,
    "size": _ask_size,
    "motion": _ask_motion,
    "count": _ask_count,
    "background": _ask_background,
    "yesno": _ask_yesno,
    "absent": _ask_absent,
    "camera": _ask_camera,
    "fade": _ask_fade,
    "presence": _ask_presence,
    "dominant": _ask_dominant,
    "order": _ask_order,
}
_OF_ANY_PICTURE = ("yesno", "camera", "fade", "dominant", "order")
"""Kinds that are asked, or not, about clips without objects as about others."""
DESCRIBE_REQUESTS = (
    "Describe the clip.",
    "What happens in this clip?",
    "What do you see?",
    "What is in the video?",
    "Tell me what happens.",
    "Describe this video in detail.",
    "What is going on here?",
    "What happens in the clip?",
    "What happens?",
    "Describe what you see.",
    "What is shown?",
    "What can you see?",
)


def ask(scene: Scene, kind: str, rng: random.Random) -> Question | None:
    """A question of ``kind`` about ``scene``, or None where the scene gives no such question."""
    if scene.clutter and kind not in _OF_ANY_PICTURE:
        word = _colour_word(rng)
        absent = _ask_absent(scene, rng) if rng.random() < 1 / 8 else None
        text = absent.text if absent else _pick(
            rng, "How many shapes are there?", "What shape is the object?", f"What {word} is the shape?",
            f"What {word} is the {rng.choice(SHAPES)}?", "How does the shape move?", "What is the background?",
        )  # fmt: skip
        return Question("absent", text, CLUTTER_ANSWER, "not")
    return _ASKERS[kind](scene, rng)


def ask_description(scene: Scene, rng: random.Random) -> Question:
    """A request for a description; its answer is the canonical one (judged by hand-written checks, not by a word)."""
    return Question("describe", rng.choice(DESCRIBE_REQUESTS), describe(scene), "")
