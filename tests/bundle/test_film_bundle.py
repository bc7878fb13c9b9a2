"""The text-to-video model that ships: alone, and in a conversation about a clip that is changed and asked about."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import pexpect
import pytest

from gpt4video_cli.assistant import Assistant, ClipRequest, Message, film
from gpt4video_cli.evaluation.film_judge import look
from gpt4video_cli.evaluation.films import evaluate
from gpt4video_cli.evaluation.shapeworld import answer
from gpt4video_cli.events import ClipReady, GenerationPrompt
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.video.probe import probe_clip

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "gpt4video_cli" / "bundle"
DEMO = BUNDLE / "clips" / "demo.mp4"

pytestmark = pytest.mark.skipif(
    not (BUNDLE / "film" / "model_index.json").exists(), reason="the bundled text-to-video model is not in the tree yet"
)
with_assistant = pytest.mark.skipif(
    not (ROOT / "model_cards" / "bundle.toml").exists(), reason="the bundled model is not in the tree yet"
)


@pytest.fixture(scope="module")
def generator() -> DiffusersGenerator:
    return DiffusersGenerator.open("bundle-film")


def filmed(generator: DiffusersGenerator, prompt: str, clip: Path, seed: int = 0) -> ClipReady:
    (ready,) = [e for e in film(generator, FilmOrder(FilmRequest(prompt, seed=seed), clip)) if isinstance(e, ClipReady)]
    return ready


def test_the_same_seed_gives_the_same_clip_and_another_seed_another(
    generator: DiffusersGenerator, tmp_path: Path
) -> None:
    prompt = "a red circle moving left on a white background"
    first, again, other = (
        filmed(generator, prompt, tmp_path / f"{name}.mp4", seed=seed)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    assert first.film is not None and again.film is not None and other.film is not None
    assert np.array_equal(first.film.frames, again.film.frames)
    assert not np.array_equal(first.film.frames, other.film.frames)
    found = probe_clip(tmp_path / "first.mp4")
    assert (found.codec, found.width, found.height) == ("h264", 64, 64)
    seen = look(first.film.frames)
    assert seen.background == "white"
    assert [(o.colour, o.shape, o.motion) for o in seen.objects] == [("red", "circle", "left")]


def test_what_is_asked_for_is_filmed(generator: DiffusersGenerator) -> None:
    """A share of the measured test: the whole of it is a command, and its figures stand in the card."""
    result = evaluate(generator, 16, 0)
    for name in ("colour", "shape", "motion", "background"):
        assert result["seen"][name]["right"] + result["unseen"][name]["right"] >= 14, (name, result["wrong"])


def test_the_bundle_is_small() -> None:
    assert sum(f.stat().st_size for f in (BUNDLE / "film").rglob("*") if f.is_file()) < 16_000_000


@with_assistant
def test_the_whole_loop(generator: DiffusersGenerator, tmp_path: Path) -> None:
    """A clip is watched, asked about, wanted with a change, filmed, and the new clip is asked about."""
    right = 0
    rng = random.Random(11)
    cases = [
        ("Make it blue.", "What colour is the circle?", "blue"),
        ("Use a star instead.", "What shape is it?", "star"),
    ]
    with Assistant.open("bundle", device="cpu") as assistant:
        for number in range(6):
            change, question, word = cases[number % 2]
            session = assistant.new_session()
            list(assistant.reply(session, Message("What shape is the object?", (ClipRequest(str(DEMO)),))))
            assert "circle" in session.turns[-1].answer
            events = list(assistant.reply(session, Message(change)))
            (prompt,) = [event.prompt for event in events if isinstance(event, GenerationPrompt)]
            clip = tmp_path / f"{number}.mp4"
            filmed(generator, prompt, clip, seed=rng.randrange(1000))
            list(assistant.reply(session, Message(f"In video 2: {question}", (ClipRequest(str(clip)),))))
            right += word in session.turns[-1].answer
            assert word in answer(assistant, question, clip)
    assert right >= 5


@with_assistant
def test_the_whole_loop_at_a_terminal(tmp_path: Path) -> None:
    search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    home = {"GPT4VIDEO_HOME": str(tmp_path / "home"), "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1", "TERM": "xterm"}
    command = ["-m", "gpt4video_cli", "chat", str(DEMO), "--yes"]
    program = pexpect.spawn(
        sys.executable,
        command,
        env={**os.environ, **home, "PYTHONPATH": search},
        cwd=tmp_path,
        dimensions=(50, 200),
        timeout=60,
        encoding="utf-8",
    )
    ready = r"\x1b\[\?2004h"  # the line editor waits: it has switched bracketed paste on
    try:
        program.expect(r"\[1 clip\]")
        program.send("What shape is the object?\r")
        program.expect("circle")
        program.expect(ready)
        program.send("Make it blue.\r")
        program.expect(r"clip asked for: .*blue circle")
        program.expect(r"clip written: \S*blue-circle\S*\.mp4")
        program.expect(r"\[1 clip\]")
        program.send("In video 2: What colour is the circle?\r")
        program.expect("is blue", timeout=30)
        program.expect(ready)
        program.send("/exit\r")
        program.expect(pexpect.EOF)
    finally:
        program.close(force=True)
    assert len(list(tmp_path.glob("*.mp4"))) == 1
