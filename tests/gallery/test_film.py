"""A prompt's way through the assistant: gates, events, files; and what is left when it is stopped or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gpt4video_cli.assistant import film
from gpt4video_cli.errors import CancelledError, GenerationError, Gpt4VideoError
from gpt4video_cli.events import ClipReady, GenerationProgress, Notice, Refusal
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.filming import film_events
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.side_car import read_side_car
from gpt4video_cli.safety.gates import Gates

ROOT = Path(__file__).resolve().parents[2]
REQUEST = FilmRequest("a red circle moves left", seed=3)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_events_and_files_of_a_film(wan: DiffusersGenerator, tmp_path: Path) -> None:
    events = list(film(wan, FilmOrder(REQUEST, tmp_path / "a.mp4", number=2)))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == ["not screened: generated clip (no guard for frames is installed)"]
    ready = events[-1]
    assert isinstance(ready, ClipReady) and (ready.path, ready.number) == (str(tmp_path / "a.mp4"), 2)
    assert ready.film is not None and ready.film.frames.shape == (5, 32, 32, 3)
    assert names(tmp_path) == ["a.json", "a.mp4"]  # the latents are gone
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (32, 32, 8)
        assert sum(1 for _ in container.decode(stream)) == 5
    described = read_side_car(tmp_path / "a.mp4")
    assert (described.prompt, described.seed, described.model) == (REQUEST.prompt, 3, "random")
    assert described.sample == 2 and described.revision == wan.revision
    assert [verdict["outcome"] for verdict in described.verdicts] == ["allowed", "not screened"]
    assert described.settings["steps"] == 3 and described.settings["dtype"] == "float32"
    assert described.as_dict() == read_side_car(tmp_path / "a.json").as_dict()


def test_without_metadata_nothing_is_said(wan: DiffusersGenerator, tmp_path: Path) -> None:
    list(film(wan, FilmOrder(REQUEST, tmp_path / "a.mp4", metadata=False)))
    assert names(tmp_path) == ["a.mp4"]
    assert b"circle" not in (tmp_path / "a.mp4").read_bytes()


class Untouchable:
    """A generator that must not be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used")


class Finds:
    """A guard that finds ``category`` in every text that has ``word``, and in every picture."""

    name = "finds"

    def __init__(self, category: str, word: str = "") -> None:
        self.category, self.word = category, word

    def score(self, seen: Any) -> Any:
        if isinstance(seen, str):
            return {self.category: 0.9 if self.word in seen else 0.1}
        return [{self.category: 0.9} for _ in seen]


def test_a_refused_prompt_loads_nothing(tmp_path: Path) -> None:
    gates = Gates(shipped=Finds("violence", "circle"))
    events = list(film(Untouchable(), FilmOrder(REQUEST, tmp_path / "a.mp4"), gates))  # type: ignore[arg-type]
    refusal = events[-1]
    assert isinstance(refusal, Refusal) and (refusal.guard, refusal.category) == ("finds", "violence")
    assert refusal.message.startswith("Sorry, this cannot be filmed: it looks like graphic violence or gore.")
    assert "circle" not in refusal.message
    assert names(tmp_path) == []


def test_what_latents_were_made_of_is_judged_and_not_what_is_asked_for(wan: DiffusersGenerator, tmp_path: Path) -> None:
    latents = tmp_path / "kept.latents.safetensors"
    wan.film(REQUEST, latents=latents)
    order = FilmOrder(FilmRequest("something else"), tmp_path / "a.mp4", resume=latents)
    events = list(film(Untouchable(), order, Gates(shipped=Finds("violence", "circle"))))  # type: ignore[arg-type]
    assert isinstance(events[-1], Refusal) and names(tmp_path) == [latents.name]


def test_a_negative_prompt_may_name_what_is_not_to_be_shown(wan: DiffusersGenerator, tmp_path: Path) -> None:
    order = FilmOrder(FilmRequest("a circle", negative_prompt="gore"), tmp_path / "a.mp4")
    events = list(film(wan, order, Gates(shipped=Finds("violence", "gore"))))
    assert isinstance(events[-1], ClipReady)
    events = list(film(Untouchable(), order, Gates(shipped=Finds("minors", "gore"))))  # type: ignore[arg-type]
    assert isinstance(events[-1], Refusal) and events[-1].subject == "negative prompt"


def test_a_refused_clip_is_never_written(wan: DiffusersGenerator, tmp_path: Path) -> None:
    gates = Gates(shipped=Finds("hate", "nothing"), frames=lambda policy: [Finds("violence")])
    events = list(film(wan, FilmOrder(REQUEST, tmp_path / "a.mp4"), gates))
    refusal = events[-1]
    assert isinstance(refusal, Refusal) and refusal.subject == "generated clip" and "at 0.0 s" in refusal.message
    assert not any(isinstance(event, Notice) for event in events)
    assert names(tmp_path) == []


def test_closing_the_events_stops_the_generator(wan: DiffusersGenerator, tmp_path: Path) -> None:
    events = film(wan, FilmOrder(FilmRequest("a", steps=500), tmp_path / "a.mp4"))
    for event in events:
        if isinstance(event, GenerationProgress) and event.step == 2:
            break
    events.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "film"]
    assert names(tmp_path) == []


def test_a_cancel_is_told_from_a_failure(wan: DiffusersGenerator, tmp_path: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(CancelledError, match="cancelled"):
        for event in film(wan, FilmOrder(FilmRequest("a", steps=500), tmp_path / "a.mp4"), cancel=cancel):
            if isinstance(event, GenerationProgress) and event.step == 2:
                cancel.set()
    assert names(tmp_path) == []


def test_what_fails_in_the_thread_is_raised_where_the_events_are_read() -> None:
    def broken(tell: Callable[[Any], None]) -> Any:
        tell(Notice("begins"))
        raise GenerationError("breaks")

    heard = []
    with pytest.raises(GenerationError, match="breaks"):
        heard += film_events(broken, threading.Event())
    assert not [thread for thread in threading.enumerate() if thread.name == "film"]


KILLED = """
import json, os, signal, sys
from gpt4video_cli.assistant import film
from gpt4video_cli.gallery import clip_file, decoding, latents_file
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.loading import pipeline_class

folder, clips = sys.argv[1], json.loads(sys.argv[2])
generator = DiffusersGenerator.open(folder)
pipeline_class(generator.card.pipeline)  # imported once, which takes longer than all the rest
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


def killed(stage, clip):
    if stage == "filming":  # in the second step or soon after it, in the thread that films
        transformer = generator.load().pipe.transformer
        forward, calls = transformer.forward, []

        def late(*arguments, **options):
            calls.append(1)
            return die() if len(calls) > 2 else forward(*arguments, **options)

        transformer.forward = late
    if stage == "decoding":
        generator.load().pipe.vae.decoder.forward = die
    if stage == "keeping":  # in the middle of the file of latents
        os.replace = die
    if stage == "writing":  # the clip is encoded, and not yet in its place
        clip_file.put_in_place = die
    order = FilmOrder(FilmRequest("a red circle moves left", seed=3), clip)
    list(film(generator, order))
    os._exit(0)


for stage, clip in clips.items():
    child = os.fork()  # each has a process of its own
    if child == 0:
        killed(stage, clip)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
STAGES = ["filming", "keeping", "decoding", "writing"]


@pytest.fixture(scope="module")
def killed(generator_folder: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stage -> the folder of a run that was killed in it."""
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in STAGES}
    clips = json.dumps({stage: str(folder / "a.mp4") for stage, folder in folders.items()})
    search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-c", KILLED, str(generator_folder("wan")), clips]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, timeout=90, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 4, done.stderr
    return folders


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_leaves_no_half_file_and_resumes(
    killed: dict[str, Path], wan: DiffusersGenerator, stage: str
) -> None:
    folder = killed[stage]
    clip = folder / "a.mp4"
    left = [name for name in names(folder) if not name.startswith(".")]  # temporary files have hidden names
    latents = folder / "a.mp4.latents.safetensors"
    assert left == ([latents.name] if stage in ("decoding", "writing") else [])
    if left:
        (*_, ready) = film(wan, FilmOrder(REQUEST, clip, resume=latents))
        assert isinstance(ready, ClipReady) and ready.film is not None
        assert np.array_equal(ready.film.frames, wan.film(REQUEST).frames)
        assert not latents.exists() and clip.exists()
        assert json.loads((folder / "a.json").read_text())["seed"] == 3


def test_latents_that_cannot_be_written_are_one_line(wan: DiffusersGenerator, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(Gpt4VideoError, match="cannot be written") as error:
        list(film(wan, FilmOrder(REQUEST, tmp_path / "taken" / "a.mp4")))
    assert "latents.safetensors" in error.value.line() and "\n" not in error.value.line()
