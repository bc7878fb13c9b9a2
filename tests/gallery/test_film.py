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

from gpt4video_cli import assistant
from gpt4video_cli.assistant import film
from gpt4video_cli.errors import CancelledError, GenerationError, Gpt4VideoError
from gpt4video_cli.events import ClipReady, GenerationProgress, Notice, Refusal
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.filming import film_events
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.gallery.side_car import read_side_car
from gpt4video_cli.safety.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
REQUEST = FilmRequest("a red circle moves left", seed=3)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_events_and_files_of_a_film(wan: DiffusersGenerator, tmp_path: Path) -> None:
    events = list(film(wan, FilmOrder(REQUEST, tmp_path / "a.mp4", number=2)))
    notices = [event.text.split(" (")[0] for event in events if isinstance(event, Notice)]
    assert notices == ["not screened: generation prompt", "not screened: generated clip"]
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


def test_a_refused_prompt_loads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assistant, "screen", lambda subject: Verdict("refused", subject, "guard", "violence"))
    events = list(film(Untouchable(), FilmOrder(REQUEST, tmp_path / "a.mp4")))  # type: ignore[arg-type]
    assert events == [Refusal("guard", "violence", "the generation prompt was refused")]
    assert names(tmp_path) == []


def test_a_refused_clip_is_never_written(
    wan: DiffusersGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def screen(subject: Any) -> Verdict:
        return Verdict("refused" if subject == "generated clip" else "allowed", subject, "guard", "gore")

    monkeypatch.setattr(assistant, "screen", screen)
    events = list(film(wan, FilmOrder(REQUEST, tmp_path / "a.mp4")))
    assert isinstance(events[-1], Refusal) and not any(isinstance(event, Notice) for event in events)
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
import os, signal, sys
from gpt4video_cli.assistant import film
from gpt4video_cli.events import GenerationProgress
from gpt4video_cli.gallery import clip_file, decoding, latents_file
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest

stage, folder, clip = sys.argv[1:]
generator = DiffusersGenerator.open(folder)
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if stage == "decoding":
    generator.load().pipe.vae.decode = die
if stage == "keeping":  # in the middle of the file of latents
    os.replace = die
if stage == "writing":  # the clip is encoded, and not yet in its place
    clip_file.put_in_place = die
order = FilmOrder(FilmRequest("a red circle moves left", seed=3), clip)
for event in film(generator, order):
    if stage == "filming" and isinstance(event, GenerationProgress) and event.step == 2:
        die()
"""


@pytest.mark.parametrize("stage", ["filming", "keeping", "decoding", "writing"])
def test_a_killed_run_leaves_no_half_file_and_resumes(
    generator_folder: Any, wan: DiffusersGenerator, tmp_path: Path, stage: str
) -> None:
    clip = tmp_path / "a.mp4"
    search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-c", KILLED, stage, str(generator_folder("wan")), str(clip)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = [name for name in names(tmp_path) if not name.startswith(".")]  # temporary files have hidden names
    latents = tmp_path / "a.mp4.latents.safetensors"
    assert left == ([latents.name] if stage in ("decoding", "writing") else [])
    if left:
        (*_, ready) = film(wan, FilmOrder(REQUEST, clip, resume=latents))
        assert isinstance(ready, ClipReady) and ready.film is not None
        assert np.array_equal(ready.film.frames, wan.film(REQUEST).frames)
        assert not latents.exists() and clip.exists()
        assert json.loads((tmp_path / "a.json").read_text())["seed"] == 3


def test_latents_that_cannot_be_written_are_one_line(wan: DiffusersGenerator, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(Gpt4VideoError, match="cannot be written") as error:
        list(film(wan, FilmOrder(REQUEST, tmp_path / "taken" / "a.mp4")))
    assert "latents.safetensors" in error.value.line() and "\n" not in error.value.line()
