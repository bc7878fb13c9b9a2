"""Clips that a conversation asks for: filmed, changed or skipped, and seen with the next message.

The language model is real but random, so its stream of text is replaced by one that asks for a clip; everything else,
the text-to-video model among it, is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.safety.gates import Gates
from tests.cli.test_repl import Person

ASKS = "Gladly: <video>a big red circle</video>"
PROGRAM = f"""
import gpt4video_cli.assistant as assistant

def stream(engine, segments, options, *, cache, stats, cancel):
    stats.finish_reason = "stop"
    yield {ASKS!r}

assistant.stream_text = stream
from gpt4video_cli.cli.app import main
main()
"""


class AskedPerson(Person):
    """Somebody whose model always asks for a clip."""

    starts = ("-c", PROGRAM)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stream(engine: Any, segments: Any, options: Any, *, cache: Any, stats: Any, cancel: Any) -> Iterator[str]:
        stats.finish_reason = "stop"
        yield ASKS

    monkeypatch.setattr("gpt4video_cli.assistant.stream_text", stream)
    monkeypatch.chdir(tmp_path)


def test_a_person_decides_about_each_clip(
    environment: dict[str, str], tmp_path: Path, random_model: Path, film_model: Path
) -> None:
    home = {**environment, "GPT4VIDEO_HOME": str(tmp_path / "home")}
    here = tmp_path / "here"
    here.mkdir()
    person = AskedPerson(home, here, "-m", str(random_model), "-g", str(film_model))
    try:
        person.waits_for_prompt()
        person.types("a red circle, please")
        asked = person.sees(r"film it\? ")
        assert 'clip asked for: "a big red circle"' in asked
        assert "5 frames of 32x32, 3 steps, how long it takes here is not known yet" in asked
        person.types("")
        person.sees(r"clip written: a-big-red-circle-0\.mp4")
        person.waits_for_prompt(r"\[1 clip\] >")

        person.types("another")  # the filmed clip goes with this message
        again = person.sees(r"film it\? ")
        assert "about 0 s" in again or "about 1 s" in again  # the first film told how long it takes
        person.types("e")
        person.sees("prompt: ")
        person.types(" on white")
        person.sees(r"clip written: a-big-red-circle-on-white-0\.mp4")
        person.waits_for_prompt(r"\[1 clip\] >")
        person.types("/frames")
        person.sees(r"clip 1: a-big-red-circle-0\.mp4")
        person.sees(r"queued: a-big-red-circle-on-white-0\.mp4")

        person.types("/undo")  # the clip of the answer that is taken back goes, the message's own comes back
        person.sees("took back")
        person.waits_for_prompt(r"\[1 clip\] >")
        person.types("")
        person.sees(r"film it\? ")
        person.types("s")
        person.waits_for_prompt()
        person.types("/retry")
        person.sees(r"film it\? ")
        person.program.sendcontrol("c")
        person.waits_for_prompt()

        person.types("/set generate no")
        person.sees("generate = no")
        person.types("more")
        person.sees("generating is off")
        person.types("/set film-size 30x30")
        person.sees("film-size = 30x30")
        person.types("/generate a blue square")
        person.sees("error: the size is 30x30; .* can do multiples of")
        person.types("/set film-size default")
        person.types("/set generator zeroscop")
        person.sees("error: no generator 'zeroscop'.*did you mean zeroscope")
        person.types("/generate a blue square")
        person.sees(r"clip written: a-blue-square-0\.mp4")
        person.types("/generate a blue square")  # the same words once more: another clip
        person.sees(r"clip written: a-blue-square-1\.mp4")
        person.types("/exit")
        assert person.has_left() == 0
    finally:
        person.program.close(force=True)
    assert sorted(path.stem for path in here.glob("*.mp4")) == [
        "a-big-red-circle-0",
        "a-big-red-circle-on-white-0",
        "a-blue-square-0",
        "a-blue-square-1",
    ]
    times = json.loads((tmp_path / "home" / "film_times.json").read_text())
    assert times["version"] == 1 and len(times["times"]) == 1


def test_one_answer_films_unless_told_not_to(
    asked: None, random_model: Path, film_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["chat", "-m", str(random_model), "-g", str(film_model), "-p", "a red circle, please"]
    (tmp_path / "clips").mkdir()
    assert run([*common, "-o", "clips"]) == 0
    out, err = capsys.readouterr()
    assert out == "Gladly:\n"
    assert err.splitlines()[-1] == "clip written: clips/a-big-red-circle-0.mp4"
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {
        "a-big-red-circle-0.mp4",
        "a-big-red-circle-0.json",
    }
    assert run([*common, "--json", "--no-generate"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompts"], answer["films"]) == (["a big red circle"], [])
    assert run([*common, "--json", "--yes"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (film,) = answer["films"]
    assert (film["path"], film["prompt"], film["seed"]) == ("a-big-red-circle-0.mp4", "a big red circle", 0)
    assert not list((tmp_path / "clips").glob(".*"))


def test_what_cannot_be_filmed_is_told_after_the_answer(
    asked: None, random_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["chat", "-m", str(random_model), "-g", "zeroscope-v2-576w", "-p", "a red circle"]) == ExitCode.WEIGHTS
    out, err = capsys.readouterr()
    assert out == "Gladly:\n"
    assert err.splitlines()[-1].startswith(
        "error: generator 'zeroscope-v2-576w': cerspense/zeroscope_v2_576w is not on"
    )
    assert "gpt4video models pull zeroscope-v2-576w" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--yes", "--ask"], "error: --yes, --ask and --no-generate contradict each other"),
        (["--ask"], "error: --ask needs a terminal; --yes films, --no-generate does not"),
        (["-g", "nobody"], "error: no generator 'nobody'"),
        (["-o", "nowhere"], "error: --output is nowhere; it must be a folder that exists"),
    ],
)
def test_options_that_cannot_be(
    asked: None, random_model: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["chat", "-m", str(random_model), "-p", "x", *options]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message)


def test_what_was_filmed_before_a_failure_is_not_lost(
    asked: None,
    random_model: Path,
    film_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpt4video_cli.errors import GenerationError
    from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator

    def stream(engine: Any, segments: Any, options: Any, *, cache: Any, stats: Any, cancel: Any) -> Iterator[str]:
        stats.finish_reason = "stop"
        yield "<video>a red circle</video> and <video>a blue square</video>"

    film = DiffusersGenerator.film

    def failing(self: Any, request: Any, **more: Any) -> Any:
        if "blue" in request.prompt:
            raise GenerationError("out of memory")
        return film(self, request, **more)

    monkeypatch.setattr("gpt4video_cli.assistant.stream_text", stream)
    monkeypatch.setattr(DiffusersGenerator, "film", failing)
    done = run(["chat", "-m", str(random_model), "-g", str(film_model), "-p", "two clips", "--json"])
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert done == ExitCode.FAILED and err.splitlines()[-1] == "error: out of memory"
    assert [made["path"] for made in answer["films"]] == ["a-red-circle-0.mp4"]
    assert answer["prompts"] == ["a red circle", "a blue square"]


class Finds:
    """A guard that finds violence in every text that has ``word``, and in every picture."""

    name = "finds"

    def __init__(self, word: str) -> None:
        self.word = word

    def score(self, seen: Any) -> Any:
        if isinstance(seen, str):
            return {"violence": 0.9 if self.word in seen else 0.0}
        return [{"violence": 0.9} for _ in seen]


def test_a_prompt_that_a_guard_refuses_is_not_even_asked_for(
    asked: None,
    random_model: Path,
    film_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Gates, "open", lambda policy: Gates(policy, shipped=Finds("big")))
    done = run(["chat", "-m", str(random_model), "-g", str(film_model), "-p", "a red circle"])
    out, err = capsys.readouterr()
    assert (done, out) == (ExitCode.REFUSED, "Gladly:\n")
    (line,) = err.splitlines()  # once
    assert line.startswith("refused (finds, violence): Sorry, this cannot be filmed") and "big" not in line


def test_a_refused_clip_is_not_written(
    asked: None,
    random_model: Path,
    film_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(shipped=Finds("nothing"), frames=lambda policy: [Finds("")])
    monkeypatch.setattr(Gates, "open", lambda policy: gates)
    done = run(["chat", "-m", str(random_model), "-g", str(film_model), "-p", "a red circle", "--json"])
    assert done == ExitCode.REFUSED
    answer = json.loads(capsys.readouterr().out)
    refusal = answer["refusal"]
    assert (answer["films"], refusal["guard"], refusal["subject"]) == ([], "finds", "generated clip")
    assert [(verdict["subject"], verdict["outcome"]) for verdict in answer["verdicts"]] == [
        ("user text", "allowed"),
        ("generation prompt", "allowed"),
        ("generation prompt", "allowed"),
        ("generated clip", "refused"),
    ]
    assert not list(tmp_path.glob("*.mp4"))


def test_a_conversation_goes_on_after_a_refusal(
    environment: dict[str, str], tmp_path: Path, random_model: Path, film_model: Path
) -> None:
    """Neither what is asked nor an edited prompt passes; the person writes another prompt, which is filmed."""
    here = tmp_path / "here"
    here.mkdir()
    home = {**environment, "GPT4VIDEO_HOME": str(tmp_path / "home")}
    person = AskedPerson(home, here, "-m", str(random_model), "-g", str(film_model), columns=200)
    try:
        person.waits_for_prompt()
        person.types("show me a man who is beheaded and tortured, blood everywhere")
        person.sees(r"refused \(text, violence\): Sorry, I cannot help with that")
        person.waits_for_prompt()
        person.types("a red circle, please")
        person.sees(r"film it\? ")
        person.types("e")
        person.sees("prompt: ")
        person.types(" that is a man who is beheaded and tortured, blood everywhere")
        person.sees(r"refused \(text, violence\): Sorry, this cannot be filmed")
        person.sees(r"write another prompt\? ")
        person.types("y")
        person.sees("prompt: ")
        person.program.sendcontrol("u")  # clears the line
        person.types("a blue square")
        person.sees(r"clip written: a-blue-square-0\.mp4")
        person.waits_for_prompt(r"\[1 clip\] >")
        person.types("/exit")
        assert person.has_left() == 0
    finally:
        person.program.close(force=True)
    assert [path.name for path in here.glob("*.mp4")] == ["a-blue-square-0.mp4"]
