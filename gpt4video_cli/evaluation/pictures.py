"""Ask a model about clips that a camera films over a picture: its way, the fade, and what colour there is most.

    python -m gpt4video_cli.evaluation.pictures --clips 100 --output pictures.json
    python -m gpt4video_cli.evaluation.pictures --clips 100 --pictures PHOTOGRAPH.jpg ...

Without ``--pictures`` the pictures are landscapes drawn for this test alone. The true main colour is judged on the
clip's middle frame by hue, saturation and value (``shapeworld.pictures``); clips without one are not asked for it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4video_cli.assistant import Assistant
from gpt4video_cli.evaluation.landscapes import landscape
from gpt4video_cli.evaluation.shapeworld import HELD_OUT, Tally, answer
from gpt4video_cli.shapeworld.pictures import dominant_colour
from gpt4video_cli.shapeworld.questions import ask
from gpt4video_cli.shapeworld.render import render_clip, render_frames
from gpt4video_cli.shapeworld.scene import CAMERAS, FADES, PICTURE, Scene
from gpt4video_cli.video.writer import write_mp4
from gpt4video_cli.whole_file import write_whole

SIDE = 128
World = NDArray[np.float32]
"""What the camera goes over: float32 ``[2 * SIDE, 2 * SIDE, 3]``, RGB, 0-255."""


def photograph_world(files: list[Path], rng: random.Random) -> World:
    """A square of one of ``files``, at least half as wide as its short side, perhaps mirrored."""
    from PIL import Image, ImageOps

    with Image.open(rng.choice(files)) as image:
        picture = image.convert("RGB")
    side = int(min(picture.size) * rng.uniform(0.5, 1))
    left, top = rng.randint(0, picture.width - side), rng.randint(0, picture.height - side)
    square = picture.crop((left, top, left + side, top + side)).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    return np.asarray(ImageOps.mirror(square) if rng.random() < 0.5 else square, np.float32)


def scene_over(world: World, rng: random.Random) -> Scene:
    """Where the camera goes over ``world``, with the true main colour."""
    fade = rng.choice(("none", *FADES))
    scene = Scene((), PICTURE, rng.choice(CAMERAS), fade, clutter=True, travel=rng.uniform(0.3, 0.5))
    middle = render_frames(replace(scene, fade="none"), [0.5], SIDE, world=world)[0]
    return replace(scene, dominant=dominant_colour(middle))


def evaluate(assistant: Assistant, clips: int, world_of: Callable[[int, random.Random], World]) -> dict[str, Any]:
    """All figures over ``clips`` clips, as a JSON-ready dictionary."""
    tallies = {kind: Tally() for kind in ("camera", "fade", "dominant")}
    wrong: list[dict[str, str]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for index in range(clips):
            rng = random.Random(f"{HELD_OUT}/pictures/{index}")
            world = world_of(index, rng)
            scene = scene_over(world, rng)
            write_mp4(path, render_clip(scene, side=SIDE, frames=24, world=world), fps=12)
            for kind, tally in tallies.items():
                question = ask(scene, kind, rng)
                if question is None:
                    continue
                said = answer(assistant, question.text, path)
                tally.add(question.is_right(said))
                if not question.is_right(said):
                    wrong.append({"kind": kind, "question": question.text, "answer": said, "truth": question.answer})
            path.unlink()
    seconds = round(time.monotonic() - started, 1)
    return {"clips": clips, "seconds": seconds, **{k: t.as_dict() for k, t in tallies.items()}, "wrong": wrong}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundle", help="name or folder of a model")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--pictures", type=Path, nargs="*", help="photographs to film instead of drawn landscapes")
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    options = parser.parse_args()
    with Assistant.open(options.model) as assistant:
        result = evaluate(
            assistant,
            options.clips,
            lambda index, rng: (
                photograph_world(options.pictures, rng) if options.pictures else landscape(index, 2 * SIDE)
            ),
        )
    if options.output:
        write_whole(options.output, json.dumps(result, indent=1) + "\n")
    for kind, tally in result.items():
        if isinstance(tally, dict):
            print(f"{kind:10} {tally['right']:4} of {tally['asked']:4}  {tally.get('accuracy', float('nan')):.3f}")


if __name__ == "__main__":
    main()
