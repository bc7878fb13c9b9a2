"""Scene -> text: the description that stands for a clip in text-only training, and captions of single frames."""

from __future__ import annotations

import random

from gpt4video_cli.shapeworld.scene import SIZELESS, Scene, Shape

NUMBERS = ("no", "one", "two", "three", "four")

MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("moves to the left", "moves left", "slides left", "goes to the left", "drifts left"),
    "right": ("moves to the right", "moves right", "slides right", "goes to the right", "drifts right"),
    "up": ("moves up", "goes up", "rises", "moves upwards", "slides up"),
    "down": ("moves down", "goes down", "falls", "moves downwards", "slides down"),
    "still": ("stays still", "does not move", "stands still", "rests"),
    "growing": ("grows", "gets bigger", "becomes larger", "is growing"),
    "shrinking": ("shrinks", "gets smaller", "becomes smaller", "is shrinking"),
    "spinning": ("spins", "rotates", "turns around itself", "is spinning"),
}
"""Ways to say each motion; the first is the one that the assistant uses in its answers."""

CAMERA_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("The camera pans to the left.", "The camera moves left."),
    "right": ("The camera pans to the right.", "The camera moves right."),
    "up": ("The camera tilts up.", "The camera moves up."),
    "down": ("The camera tilts down.", "The camera moves down."),
    "in": ("The camera zooms in.", "The camera comes closer."),
    "out": ("The camera zooms out.", "The camera goes away."),
    "still": ("The camera does not move.", "The camera is still."),
}
FADE_PHRASES: dict[str, tuple[str, ...]] = {
    "in": ("The clip fades in from black.", "At first it is dark, then it becomes bright."),
    "out": ("The clip fades out to black.", "At the end it becomes dark."),
    "none": ("The clip does not fade.",),
}
FACTS_SHARE = 0.5
"""How many of the descriptions that stand for clips are plain lists of facts."""
CLUTTER_ANSWER = "I do not see any shape that I know in this clip."
CLUTTER_DESCRIPTION = "an unknown picture without simple shapes"


def sized(shape: Shape) -> str:
    """ "small red circle"; growing and shrinking shapes have no size of their own, and others may have any."""
    name = f"{shape.colour} {shape.shape}"
    return name if shape.motion in SIZELESS or not shape.size else f"{shape.size} {name}"


def article(noun: str) -> str:
    """``noun`` with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def shape_sentence(shape: Shape, rng: random.Random | None = None, *, camera_moves: bool = False) -> str:
    """ "a small red circle moves to the left"; without ``rng`` the first phrase of each kind."""
    phrases = MOTION_PHRASES[shape.motion]
    motion = phrases[0] if rng is None else rng.choice(phrases)
    noun = article(sized(shape))
    if camera_moves:
        return noun
    if shape.presence == "always":
        return f"{noun} {motion}"
    return (
        f"{noun} {shape.presence} and {motion}"
        if shape.presence == "appears"
        else f"{noun} {motion} and {shape.presence}"
    )


def joined(parts: list[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def facts(scene: Scene, rng: random.Random) -> list[str]:
    """``scene`` in short sentences, one for each thing that can be asked, in the words of the assistant's answers.

    Each sentence stands for itself: it names its shape. Folded to one embedding each, they stand for video tokens
    (``training.examples``).
    """
    if scene.clutter:
        seen = [f"{CLUTTER_DESCRIPTION}.", *_filmed_how(scene)]
        if scene.dominant:
            seen.append(f"The picture is mostly {scene.dominant}.")
        rng.shuffle(seen)
        return seen
    sentences = []
    events = scene.events()
    shapes = list(scene.shapes)
    rng.shuffle(shapes)
    for shape in shapes:
        name = f"{shape.colour} {shape.shape}"
        sentences.append(f"There is {article(name)}.")
        if scene.camera == "still":
            if shape.motion not in SIZELESS:
                sentences.append(f"The {name} is {shape.size}.")
            sentences.append(f"The {name} {MOTION_PHRASES[shape.motion][0]}.")
        if shape.presence != "always":
            order = "" if events is None else " first" if shape is events[0] else " last"
            sentences.append(f"The {name} {shape.presence}{order}.")
    count = len(shapes)
    rest = [
        "There is one shape." if count == 1 else f"There are {NUMBERS[count]} shapes.",
        f"The background is {scene.background}.",
        *_filmed_how(scene),
    ]
    rng.shuffle(rest)
    return [*sentences, *rest]


def _filmed_how(scene: Scene) -> list[str]:
    """What the camera does, and the fade, where there is something to say."""
    camera = [] if scene.camera == "still" else [CAMERA_PHRASES[scene.camera][0]]
    return camera if scene.fade == "none" else [*camera, FADE_PHRASES[scene.fade][0]]


def describe(scene: Scene, rng: random.Random | None = None) -> str:
    """Everything that can be asked about ``scene``, as one to three sentences.

    Without ``rng`` this is the canonical description that the assistant is trained to give.
    """
    if scene.clutter:
        if rng is not None:
            return " ".join(facts(scene, rng))
        return f"{CLUTTER_ANSWER} I only know simple moving shapes."
    if rng is not None and rng.random() < FACTS_SHARE:
        return " ".join(facts(scene, rng))
    moves = scene.camera != "still"
    # The canonical order can be told from the clip and from any description of it alike.
    shapes = sorted(scene.shapes, key=lambda s: (s.colour, s.shape))
    if rng is not None:
        rng.shuffle(shapes)
    place = f"{article(scene.background)} background"
    if not shapes:
        first = f"there are no shapes, only {place}"
    else:
        subject = joined([shape_sentence(s, rng, camera_moves=moves) for s in shapes])
        style = 0 if rng is None else rng.randrange(4)
        if style == 1:
            first = f"on {place}, {subject}"
        elif style == 2:
            first = f"{subject}. the background is {scene.background}"
        elif style == 3:
            first = f"in front of {place}, {subject}"
        else:
            first = f"{subject} on {place}"
    sentences = [part[0].upper() + part[1:] for part in first.split(". ")]
    text = ". ".join(sentences) + "."
    if moves:
        text += " " + (CAMERA_PHRASES[scene.camera][0] if rng is None else rng.choice(CAMERA_PHRASES[scene.camera]))
    if scene.fade != "none":
        text += " " + (FADE_PHRASES[scene.fade][0] if rng is None else rng.choice(FADE_PHRASES[scene.fade]))
    return text


def position(x: float, y: float) -> str:
    """Where a point of the frame is, on a grid of three by three."""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else "middle"
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "center"
    return f"{row} {column}"


def frame_caption(scene: Scene, t: float, rng: random.Random) -> str:
    """What one frame shows at time ``t``: size, colour, shape and place of each object, and the background."""
    if scene.clutter:
        return CLUTTER_DESCRIPTION
    parts = []
    for shape in scene.shapes:
        x, y = shape.centre(t)
        if not shape.visible(t):
            continue
        radius = shape.radius_at(t)
        size = "small" if radius < 0.18 else "big"
        tilt = " tilted" if shape.motion == "spinning" else ""
        parts.append(f"{size}{tilt} {shape.colour} {shape.shape} at the {position(x, y)}")
    rng.shuffle(parts)
    return f"{joined(parts) if parts else 'no shape'} on {scene.background}"
