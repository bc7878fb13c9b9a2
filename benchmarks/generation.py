"""How fast a clip is filmed: this program against the plain diffusers pipeline, at equal steps and at equal quality.

    python -m benchmarks.generation [--quick]
    python -m benchmarks.generation quality [--prompts 100]

The plain pipeline is what diffusers' own pages show: ``from_pretrained``, then a call with the prompt. That both give
the same latents for the same seed is checked first. Two models: the bundled one, whose clips ``evaluation.film_judge``
can judge, and a UNet of 56 million parameters with random weights. ``quality`` tries many settings of the bundled model
and says which is the fastest that is not worse; what it chose last stands below as ``FAST`` and is judged again in each
run. For the random UNet equal quality means: not farther from its own converged clip than 50 steps of DDIM.

Clips differ in their prompts, so only the encoded negative prompt is known from one to the next.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Report, take_turns
from benchmarks.sized_generator import write_sized_generator
from gpt4video_cli.evaluation.film_judge import look
from gpt4video_cli.evaluation.films import Task, judge, tasks
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator, frames_to_ask, noise_of_steps
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.latents_file import read_latents
from gpt4video_cli.gallery.loading import pipeline_class
from gpt4video_cli.gallery.schedulers import build
from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR

FAST: dict[str, Any] = {"guidance_pass": "batched", "guidance_until": 0.5}
"""Of the bundled model, from ``quality`` with 60 prompts, 2026-11-22: 47 clips right, 51 with the card's settings,
which is no significant loss. Fewer steps lose more: 40 to 46 right with any scheduler."""
FAST_UNET: dict[str, Any] = {"scheduler": "dpm++2m", "steps": 20}
"""Of the random UNet: alone and with ``cache_every`` nearer to the converged clip than DDIM's 50 steps, see there."""
CLOSE = 1e-3
"""Largest difference of latents, whose deviation is about 1, that counts as equal; both ways add up in float32."""

Clip = NDArray[np.uint8]


class Plain:
    """diffusers as its own pages show it."""

    def __init__(self, generator: DiffusersGenerator) -> None:
        self.card = generator.card
        loaded = generator.load()
        kind = pipeline_class(self.card.pipeline)
        # The dtype is said, or a text encoder that was saved in half precision computes in it.
        self.pipe = kind.from_pretrained(generator.folder.path, dtype=loaded.dtype, local_files_only=True)
        self.pipe.to(loaded.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.saved = self.pipe.scheduler

    def __call__(self, request: FilmRequest, output: str = "np") -> Any:
        """``request``, completed, without any shortcut: frames uint8 [T, H, W, 3], or ``output="latent"``."""
        self.pipe.scheduler = build(str(request.scheduler), self.saved, self.card.scheduler)
        with torch.no_grad(), noise_of_steps(request.seed):
            (film,) = self.pipe(
                **self.card.call,
                prompt=request.prompt,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance,
                num_frames=frames_to_ask(self.pipe, int(request.frames or 1)),
                height=request.height,
                width=request.width,
                generator=torch.Generator().manual_seed(request.seed),
                output_type=output,
                return_dict=False,
            )
        return film if output == "latent" else (film[0] * 255).round().astype(np.uint8)


def check_equal(report: Report, case: str, generator: DiffusersGenerator, plain: Plain, **change: Any) -> None:
    """Both ways film the same: latents within ``CLOSE`` and pictures within one step of 255; else the program ends."""
    request = generator.check(replace(FilmRequest("a red circle moves right", seed=11), **change))
    kept: list[torch.Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.safetensors"
        frames = generator.film(request, latents=path).frames
        kept.append(read_latents(path)[0])
    difference = float((kept[0] - plain(request, "latent").cpu()).abs().max())
    pictures = int(np.abs(frames.astype(int) - plain(request)).max())
    if not (difference <= CLOSE and pictures <= 1):
        raise SystemExit(f"{case}: not equal to diffusers: latents differ by {difference:.2g}, pictures by {pictures}")
    report.row(case, "gpt4video", **{"latents differ by": difference, "pictures by, of 255": pictures})


def bundle(report: Report, generator: DiffusersGenerator, rounds: int) -> None:
    """The bundled model at equal steps and with ``FAST``, each way with the same prompts and seeds, judged."""
    plain = Plain(generator)
    defaults = generator.check(FilmRequest("a red circle"))
    case = f"bundled film model, {defaults.steps} steps"
    check_equal(report, case, generator, plain)
    check_equal(report, f"{case}, in turn", generator, plain, guidance_pass="in-turn")
    shown: dict[str, list[bool]] = {}

    def way(name: str, film: Callable[[FilmRequest], Clip], **change: Any) -> Callable[[], None]:
        asked = iter(tasks(rounds + 1, 0))  # one more: the warm round
        right = shown.setdefault(name, [])

        def once() -> None:
            task = next(asked)
            request = generator.check(replace(FilmRequest(task.prompt, seed=task.seed), **change))
            clips.append((right, film(request), task))

        return once

    clips: list[tuple[list[bool], Clip, Task]] = []
    ours = lambda request: generator.film(request).frames  # noqa: E731
    names = (f"plain diffusers, {defaults.steps} steps", f"gpt4video, {defaults.steps} steps", _said(FAST))
    ways = {names[0]: way(names[0], plain), names[1]: way(names[1], ours), names[2]: way(names[2], ours, **FAST)}
    times = take_turns(ways, rounds=rounds)
    for right, clip, task in clips:
        right.append(judge(look(clip, most=1), task.scene)["all"])
    report.times("bundled film model, equal steps", {n: times[n] for n in names[:2]}, ours=names[1], clock="cpu")
    report.times(
        "bundled film model, fewer steps", {n: times[n] for n in (names[0], names[2])}, ours=names[2], clock="cpu"
    )
    for name, right in shown.items():
        case = "bundled film model, fewer steps" if name != names[1] else "bundled film model, equal steps"
        report.row(case, name, **{f"right of {len(right)}": sum(right)})


def unet(report: Report, folder: Path, size: str, rounds: int) -> None:
    """The random UNet: DDIM with 50 steps both ways, then ``FAST_UNET``, alone and with ``cache_every``."""
    generator = DiffusersGenerator.open(write_sized_generator(folder, size))
    plain = Plain(generator)
    parameters = sum(p.numel() for p in plain.pipe.unet.parameters())
    case = f"random UNet, {parameters / 1e6:.0f} M parameters"
    check_equal(report, f"{case}, 3 steps", generator, plain, steps=3)
    steps = 50 if size == "middle" else 5
    seeds: dict[str, Iterator[int]] = {}

    def way(name: str, film: Callable[[FilmRequest], object], **change: Any) -> Callable[[], object]:
        numbers = seeds.setdefault(name, count())

        def once() -> object:
            seed = next(numbers)
            return film(
                generator.check(replace(FilmRequest(f"a circle {seed}", seed=seed), **{"steps": steps, **change}))
            )

        return once

    fast = FAST_UNET if size == "middle" else {**FAST_UNET, "steps": 2}
    ways: dict[str, tuple[Callable[[FilmRequest], object], dict[str, Any]]] = {
        f"plain diffusers, ddim, {steps} steps": (plain, {}),
        f"gpt4video, ddim, {steps} steps": (generator.film, {}),
        _said(fast): (generator.film, fast),
        _said(fast | {"cache_every": 2}): (generator.film, fast | {"cache_every": 2}),
    }
    times = take_turns(
        {name: way(name, film, **change) for name, (film, change) in ways.items()}, rounds=rounds, warm=0
    )
    first = next(iter(ways))
    for name in list(ways)[1:]:
        report.times(case, {first: times[first], name: times[name]}, ours=name, clock="cpu")


def _said(change: dict[str, Any]) -> str:
    return "gpt4video, " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in change.items())


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("speed", "quality"), default="speed")
    parser.add_argument("--generator", default=DEFAULT_GENERATOR, help="name or folder of the bundled film model")
    parser.add_argument("--prompts", type=int, default=100, help="with quality: how many")
    parser.add_argument("--rounds", type=int, default=12, help="of the bundled model")
    parser.add_argument("--quick", action="store_true", help="a few seconds, of no meaning")
    options = parser.parse_args()
    report = Report(f"generation{'_quality' if options.what == 'quality' else ''}", quick=options.quick)
    generator = DiffusersGenerator.open(options.generator)
    if options.what == "quality":
        from benchmarks.generation_quality import sweep_bundle, sweep_unet

        sweep_bundle(report, generator, 4 if options.quick else options.prompts)
        with tempfile.TemporaryDirectory() as scratch:
            sweep_unet(report, Path(scratch), "small" if options.quick else "middle")
    else:
        bundle(report, generator, 1 if options.quick else options.rounds)
        with tempfile.TemporaryDirectory() as scratch:
            unet(report, Path(scratch), "small" if options.quick else "middle", 1 if options.quick else 2)
    report.finish()


if __name__ == "__main__":
    main()
