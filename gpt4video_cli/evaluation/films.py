"""Film ShapeWorld prompts and count how often colour, shape, background and motion come out as asked for.

    python -m gpt4video_cli.evaluation.films --prompts 400 --output films.json --sheet films.jpg

Every prompt goes the way of ``gpt4video generate --raw``: through ``assistant.film`` into an mp4 file, which is decoded
again and looked at by ``film_judge``, which uses no model. Half of the prompts with one object combine colour, shape
and motion as training never did; beside them stand prompts with two objects.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gpt4video_cli.assistant import film
from gpt4video_cli.evaluation.film_judge import SeenClip, look
from gpt4video_cli.evaluation.shapeworld import HELD_OUT, Tally
from gpt4video_cli.events import ClipReady
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest, Generator
from gpt4video_cli.shapeworld.prompts import as_film, film_scene_of, free_prompt, held_out
from gpt4video_cli.shapeworld.scene import Scene, Shape, sample_scene
from gpt4video_cli.video.decode import read_clip
from gpt4video_cli.video.sampling import SamplingPlan
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR
from gpt4video_cli.whole_file import write_whole

GROUPS = ("seen", "unseen", "two objects")
SHEET = 32
"""Clips on the contact sheet: the first of the run, whatever they show."""


@dataclass(frozen=True)
class Task:
    """A prompt of a group, and what its clip must show."""

    group: str
    scene: Scene
    prompt: str
    seed: int


def tasks(count: int, two: int) -> Iterator[Task]:
    """``count`` prompts with one object, seen and unseen combinations in turn, then ``two`` with two objects."""
    for index in range(count + two):
        rng = random.Random(f"{HELD_OUT}/films/{index}")
        group = GROUPS[2] if index >= count else GROUPS[index % 2]
        scene = _scene(group, rng)
        yield Task(group, scene, free_prompt(scene, rng, complete=True), index)


def _scene(group: str, rng: random.Random) -> Scene:
    """One object whose combination training has seen or not, or two objects."""
    wanted = 2 if group == "two objects" else 1
    while True:
        scene = as_film(sample_scene(rng, shapes=1), rng) if group == "unseen" else film_scene_of(rng, shapes=wanted)
        fits = len(scene.shapes) == wanted  # where there is no room for two, one is drawn
        if fits and (group != "unseen" or any(held_out(shape) for shape in scene.shapes)):
            return scene


def judge(seen: SeenClip, scene: Scene) -> dict[str, bool]:
    """What of ``scene`` the clip shows. With two objects an attribute is right where it is right for both."""
    verdict = {"background": seen.background == scene.background}
    pairs = _paired(list(scene.shapes), list(seen.objects))
    for name in ("colour", "shape", "motion"):
        verdict[name] = bool(pairs) and all(getattr(a, name) == getattr(b, name) for a, b in pairs)
    verdict["all"] = all(verdict.values())
    return verdict


def _paired(wanted: list[Shape], found: list[Any]) -> list[tuple[Shape, Any]]:
    """Each wanted object with a found one, in the order that makes most attributes agree; none for other numbers."""
    if len(found) != len(wanted):
        return []

    def agreeing(pairs: list[tuple[Shape, Any]]) -> int:
        return sum(getattr(a, n) == getattr(b, n) for a, b in pairs for n in ("colour", "shape", "motion"))

    orders = [list(zip(wanted, found, strict=True)), list(zip(wanted, found[::-1], strict=True))]
    return max(orders, key=agreeing)


def film_and_read(generator: Generator, task: Task, folder: Path) -> NDArray[np.uint8]:
    """The frames uint8 ``[T, H, W, 3]`` of the mp4 file that the prompt gave, decoded."""
    clip = folder / f"{task.seed}.mp4"
    order = FilmOrder(FilmRequest(task.prompt, seed=task.seed), clip, metadata=False)
    (ready,) = [event for event in film(generator, order) if isinstance(event, ClipReady)]
    assert ready.film is not None
    decoded = read_clip(str(clip), SamplingPlan(frames=len(ready.film.frames))).frames
    clip.unlink()
    return decoded


def evaluate(generator: Generator, count: int, two: int, *, sheet: Path | None = None) -> dict[str, Any]:
    """All figures, as a JSON-ready dictionary; the first ``SHEET`` clips go on the contact sheet."""
    tallies: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    wrong: list[dict[str, Any]] = []
    shown: list[tuple[str, NDArray[np.uint8]]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, task in enumerate(tasks(count, two), start=1):
            frames = film_and_read(generator, task, Path(folder))
            seen = look(frames, most=len(task.scene.shapes))
            verdict = judge(seen, task.scene)
            for name, right in verdict.items():
                tallies[task.group][name].add(right)
            if not verdict["all"]:
                wrong.append({"prompt": task.prompt, "seed": task.seed, "group": task.group, "seen": str(seen)})
            if len(shown) < SHEET:
                shown.append((task.prompt, frames))
                if len(shown) == SHEET and sheet is not None:
                    contact_sheet(shown).save(sheet, quality=88)
            if number % 20 == 0:
                share = {group: _share(found["all"]) for group, found in tallies.items()}
                print(f"{number}/{count + two} {share}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"prompts": count + two, "seconds": round(time.monotonic() - started, 1)}
    for group in tallies:
        result[group] = {name: tally.as_dict() for name, tally in tallies[group].items()}
    result["wrong"] = wrong
    return result


def _share(tally: Tally) -> float:
    return round(tally.right / max(1, tally.asked), 3)


def contact_sheet(clips: list[tuple[str, NDArray[np.uint8]]], *, columns: int = 2) -> Image.Image:
    """All frames of each clip (uint8 ``[T, H, W, 3]``) in a row, its prompt below it."""
    _, (count, height, width, _) = clips[0][0], clips[0][1].shape
    line, gap = 14, 8
    cell = (count * (width + 1) + gap, height + line + gap)
    rows = -(-len(clips) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (prompt, frames) in enumerate(clips):
        left, top = gap + index % columns * cell[0], gap + index // columns * cell[1]
        for t, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (left + t * (width + 1), top))
        draw.text((left, top + height + 1), f"{index + 1}. {prompt}"[:90], fill="black")
    return sheet


def with_measured(card: str, result: dict[str, Any]) -> str:
    """The text of a generator's card with the figures of this run as its last tables."""
    head = card.partition("\n[measured")[0].rstrip()
    lines = ["", "[measured]", f"prompts = {result['prompts']}"]
    for group in GROUPS:
        if group in result:
            lines += ["", f"[measured.{group.replace(' ', '_')}]"]
            lines += [f"{name} = {tally['accuracy']}" for name, tally in result[group].items()]
    return "\n".join([head, *lines]) + "\n"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default=DEFAULT_GENERATOR, help="name or folder of a text-to-video model")
    parser.add_argument("--prompts", type=int, default=400, help="with one object; half of them unseen combinations")
    parser.add_argument("--two", type=int, default=100, help="prompts with two objects")
    parser.add_argument("--output", type=Path, help="also write the result as JSON to this file")
    parser.add_argument("--sheet", type=Path, help=f"write the first {SHEET} clips to this picture")
    parser.add_argument("--card", type=Path, help="card (TOML) whose measured numbers are replaced by this run's")
    options = parser.parse_args()
    result = evaluate(DiffusersGenerator.open(options.generator), options.prompts, options.two, sheet=options.sheet)
    if options.output:
        write_whole(options.output, json.dumps(result, indent=1) + "\n")
    if options.card:
        write_whole(options.card, with_measured(options.card.read_text(encoding="utf-8"), result))
    for group in GROUPS:
        for name, tally in result.get(group, {}).items():
            print(f"{group:12} {name:11} {tally['right']:4} of {tally['asked']:4}  {tally['accuracy']:.3f}")


if __name__ == "__main__":
    main()
