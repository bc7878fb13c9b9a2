"""Which shortcuts cost nothing that can be seen: called by ``python -m benchmarks.generation quality``.

The bundled model films the same prompts with the same seeds in many settings, and ``film_judge`` says which clips show
what was asked for. A setting is as good as the card's own if it does not lose significantly more clips than it wins
(McNemar's test, one-sided, 5 %). The random UNet's settings are compared by their distance from its converged clip.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.generation import Plain
from benchmarks.report import Report, spread
from benchmarks.sized_generator import STEPS, write_sized_generator
from gpt4video_cli.evaluation.film_judge import look
from gpt4video_cli.evaluation.films import judge, tasks
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.latents_file import read_latents

BUNDLE: tuple[dict[str, Any], ...] = (
    {},
    {"steps": 12},
    {"steps": 8},
    {"steps": 12, "scheduler": "flow-dpm++2m"},
    {"steps": 8, "scheduler": "flow-dpm++2m"},
    {"steps": 6, "scheduler": "flow-dpm++2m"},
    {"steps": 8, "scheduler": "flow-unipc"},
    {"guidance_until": 0.5},
    {"steps": 12, "guidance_until": 0.5},
    {"steps": 8, "guidance_until": 0.5},
    {"cache_threshold": 0.3},
    {"cache_threshold": 0.5},
)
UNET: tuple[dict[str, Any], ...] = (
    {},
    {"steps": 25, "scheduler": "ddim"},
    {"steps": 25, "scheduler": "dpm++2m"},
    {"steps": 20, "scheduler": "dpm++2m"},
    {"steps": 20, "scheduler": "dpm++2m-karras"},
    {"steps": 15, "scheduler": "dpm++2m"},
    {"steps": 20, "scheduler": "unipc"},
    {"steps": 20, "scheduler": "dpm++2m", "guidance_until": 0.5},
    {"steps": 20, "scheduler": "dpm++2m", "cache_every": 2},
    {"guidance_until": 0.5},
    {"cache_every": 2},
)
CONVERGED: dict[str, Any] = {"steps": 100, "scheduler": "dpm++2m"}


def not_worse(base: list[bool], other: list[bool]) -> bool:
    """Whether ``other`` does not lose significantly more of the same clips than it wins against ``base``."""
    lost = sum(a and not b for a, b in zip(base, other, strict=True))
    won = sum(b and not a for a, b in zip(base, other, strict=True))
    tail = sum(math.comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)
    return tail > 0.05


def sweep_bundle(report: Report, generator: DiffusersGenerator, prompts: int) -> None:
    """Each setting of ``BUNDLE`` with the same prompts and seeds; the plain pipeline's time on the same prompts."""
    plain, case = Plain(generator), f"bundled film model, {prompts} prompts"
    plain(generator.check(FilmRequest("a red circle")))
    generator.film(FilmRequest("a red circle"))
    seconds: dict[str, list[float]] = {"plain diffusers": []}
    right: dict[str, list[bool]] = {}
    for task in tasks(prompts, 0):
        asked = FilmRequest(task.prompt, seed=task.seed)
        began = time.process_time()
        plain(generator.check(asked))
        seconds["plain diffusers"].append(time.process_time() - began)
        for change in BUNDLE:
            name = _named(change)
            began = time.process_time()
            frames = generator.film(replace(asked, **change)).frames
            seconds.setdefault(name, []).append(time.process_time() - began)
            right.setdefault(name, []).append(judge(look(frames), task.scene)["all"])
    report.row(case, "plain diffusers", **{"cpu s": spread(seconds["plain diffusers"])})
    base = right[_named({})]
    good: list[tuple[float, str]] = []
    for name, verdicts in right.items():
        equal = not_worse(base, verdicts)
        figures = {"right": sum(verdicts) / len(verdicts), "not worse": "yes" if equal else "no"}
        report.row(case, name, **{"cpu s": spread(seconds[name])}, **figures)
        ratios = [a / b for a, b in zip(seconds["plain diffusers"], seconds[name], strict=True)]
        report.ratio(case, name, "plain diffusers", ratios, "cpu time")
        if equal:
            good.append((float(spread(seconds[name])["median"]), name))
    report.note(f"The fastest setting of the bundled model that is not worse: {min(good)[1]}.")


def sweep_unet(report: Report, folder: Path, size: str) -> None:
    """The distance of each setting of ``UNET`` from the converged clip, as a share of that clip's deviation."""
    generator = DiffusersGenerator.open(write_sized_generator(folder, size))
    asked = FilmRequest("a red circle", seed=1)
    goal, _ = _latents(generator, replace(asked, **CONVERGED), folder)
    for change in UNET:
        found, seconds = _latents(generator, replace(asked, **change), folder)
        distance = float((found - goal).square().mean().sqrt() / goal.std())
        name = _named(change or {"steps": STEPS, "scheduler": "ddim"})
        report.row(f"random UNet, {size}", name, **{"distance": distance, "cpu s of one clip": round(seconds, 2)})
    steps = CONVERGED["steps"]
    report.note(
        f"Distance: root mean square of the latents' difference from {steps} steps of dpm++2m, over its deviation."
    )


def _latents(generator: DiffusersGenerator, request: FilmRequest, folder: Path) -> tuple[torch.Tensor, float]:
    path = folder / "clip.latents.safetensors"
    began = time.process_time()
    generator.film(request, latents=path)
    return read_latents(path)[0], time.process_time() - began


def _named(change: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in change.items()) or "as the card says"
