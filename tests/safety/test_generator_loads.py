"""A refused prompt loads nothing of a generator: in a conversation, a single answer, generate, generate --raw, a batch.

What is counted is every way into a generator's weights; the guard is the one that ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpt4video_cli.assistant import film
from gpt4video_cli.cli import chat_films
from gpt4video_cli.cli.app import run
from gpt4video_cli.cli.chat_films import ChatFilms, FilmWishes
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.events import Refusal
from gpt4video_cli.gallery import diffusers_generator
from gpt4video_cli.gallery.delivery import FilmOrder
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
from gpt4video_cli.gallery.generator import FilmRequest
from gpt4video_cli.safety.gates import Gates
from tests.safety.guards import Finds, Red

HARM = "a man is beheaded and tortured, blood everywhere"


@pytest.fixture(scope="module")
def film_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gpt4video_cli.gallery.random_generator import write_random_generator

    return write_random_generator(tmp_path_factory.mktemp("film") / "random")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A line for each time that weights of a generator are asked for."""
    counted: list[str] = []
    load = DiffusersGenerator.load

    def counting(self: DiffusersGenerator, **more: Any) -> Any:
        counted.append(self.card.name)
        return load(self, **more)

    monkeypatch.setattr(DiffusersGenerator, "load", counting)
    monkeypatch.setattr(diffusers_generator, "read_latents", lambda path: counted.append(str(path)))
    monkeypatch.chdir(tmp_path)
    return counted


def asks_for(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(engine: Any, segments: Any, options: Any, *, cache: Any, stats: Any, cancel: Any) -> Iterator[str]:
        stats.finish_reason = "stop"
        yield f"Gladly: <video>{prompt}</video>"

    monkeypatch.setattr("gpt4video_cli.assistant.stream_text", stream)


def test_what_is_allowed_is_counted(film_model: Path, loads: list[str]) -> None:
    """Or the zeros below would say nothing."""
    assert run(["generate", "a red circle", "--raw", "-g", str(film_model), "-o", "a.mp4"]) == 0
    assert loads
    described = json.loads(Path("a.json").read_text())["verdicts"]
    assert [(verdict["subject"], verdict["outcome"]) for verdict in described] == [
        ("generation prompt", "allowed"),
        ("generated clip", "not screened"),
    ]
    assert described[0]["policy"] == "standard" and "off" not in described[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", HARM, "--raw"],
        ["generate", HARM],
        ["generate", "a red circle"],  # the model describes it so that it is refused
        ["chat", "-p", "a red circle"],
        ["chat", "-p", HARM],
        ["chat", "-p", HARM, "--json"],
        ["generate", HARM, "--raw", "--no-guard", "frames", "--policy", "strict"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(HARM, "HARM"),
)
def test_nothing_is_loaded_for_what_is_refused(
    arguments: list[str],
    film_model: Path,
    tiny_model_folder: Path,
    loads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asks_for(HARM, monkeypatch)
    assert run([*arguments, "-m", str(tiny_model_folder), "-g", str(film_model)]) == ExitCode.REFUSED
    out, err = capsys.readouterr()
    assert loads == [] and not list(Path().glob("*.mp4"))
    assert "refused (text, violence): Sorry, " in err and "behead" not in out + err


def test_a_batch_loads_nothing_for_what_is_refused(
    film_model: Path, tiny_model_folder: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused is what a job says, and what the model asks for in its answer; then one job that is allowed."""
    said = {"id": "said", "prompt": HARM, "generate": True}
    asked = {"id": "asked", "prompt": "a red circle", "generate": True}
    Path("jobs.jsonl").write_text(f"{json.dumps(said)}\n{json.dumps(asked)}\n")
    command = ["batch", "jobs.jsonl", "-o", "r.jsonl", "-q", "-m", str(tiny_model_folder), "-g", str(film_model)]
    asks_for(HARM, monkeypatch)
    assert run(command) == ExitCode.PARTIAL
    errors = [json.loads(line) for line in Path("errors.jsonl").read_text().splitlines()]
    refused = {line["id"]: (line["kind"], line["exit_code"], line["refusal"]["subject"]) for line in errors}
    assert refused == {"said": ("refused", 5, "user text"), "asked": ("refused", 5, "generation prompt")}
    assert loads == [] and Path("r.jsonl").read_bytes() == b"" and not list(Path("films").iterdir())
    asks_for("a red circle", monkeypatch)
    assert run([*command, "--resume"]) == ExitCode.PARTIAL
    assert len(loads) == 1 and json.loads(Path("r.jsonl").read_text())["id"] == "asked"


def test_latents_of_what_is_refused_are_not_decoded(
    film_model: Path, loads: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = DiffusersGenerator.open(str(film_model))
    latents = tmp_path / "a.mp4.latents.safetensors"
    generator.film(FilmRequest(HARM), latents=latents)
    loads.clear()
    assert run(["generate", "--resume", str(latents), "-g", str(film_model)]) == ExitCode.REFUSED
    assert loads == [] and "Sorry" in capsys.readouterr().err


def test_a_clip_that_is_refused_now_is_not_made_again(
    film_model: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "a red circle", "--raw", "-g", str(film_model), "-o", "a.mp4"]) == 0
    described = json.loads(Path("a.json").read_text()) | {"prompt": HARM}
    Path("b.json").write_text(json.dumps(described))
    loads.clear()
    assert run(["generate", "--from", "b.json", "-g", str(film_model), "-o", "c.mp4"]) == ExitCode.REFUSED
    assert loads == [] and not Path("c.mp4").exists()


def test_slash_generate_and_an_edited_prompt(
    film_model: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``/generate`` and the conversation's edit do: a refused prompt can be rewritten by the person."""
    wishes = FilmWishes("yes", str(film_model))
    films = ChatFilms()
    shown = films.renderer(preview=False)
    films.film_all([HARM], wishes, shown)
    assert shown.refusal is not None and loads == []

    answers = iter(["e", HARM, "y", HARM + " again", "y", "a red circle"])
    monkeypatch.setattr("gpt4video_cli.cli.line_editor.ask_line", lambda *_, **__: next(answers))
    shown = films.renderer(preview=False)
    films.film_all(["a blue square"], FilmWishes("ask", str(film_model)), shown)
    assert [film["prompt"] for film in shown.films] == ["a red circle"] and shown.refusal is None
    assert len(loads) == 1 and next(answers, None) is None
    assert "behead" not in capsys.readouterr().err

    monkeypatch.setattr("gpt4video_cli.cli.line_editor.ask_line", lambda *_, **__: "n")
    assert chat_films.ask_to_rewrite("a") is None


def test_a_clip_to_be_redrawn_is_judged_first(long_clip: Path, tmp_path: Path) -> None:
    order = FilmOrder(FilmRequest("a red circle", video=str(long_clip)), tmp_path / "a.mp4")
    gates = Gates(shipped=Finds(), frames=lambda policy: [Red()])
    events = list(film(None, order, gates))  # type: ignore[arg-type]  # a generator that cannot even be asked
    refusal = events[-1]
    assert isinstance(refusal, Refusal) and (refusal.subject, refusal.category) == ("user clip", "violence")


def test_what_is_turned_off_is_said_and_recorded(
    film_model: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "a red circle", "--raw", "-g", str(film_model), "-o", "a.mp4", "--quiet"]
    assert run([*arguments, "--no-guard", "text"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("safety: guards are turned off: text;") and len(err.splitlines()) == 1
    verdicts = json.loads(Path("a.json").read_text())["verdicts"]
    assert [(verdict["outcome"], verdict["off"]) for verdict in verdicts] == [("not screened", ["text"])] * 2


def test_wrong_options_are_told_before_anything_is_loaded(
    film_model: Path, loads: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        (["--no-guard", "frame"], "did you mean frames"),
        (["--policy", "strct"], "did you mean strict"),
        (["--no-guard", "toxic-brt"], "did you mean toxic-bert"),
    ):
        assert run(["generate", "x", "--raw", "-g", str(film_model), *arguments]) == ExitCode.USAGE
        assert said in capsys.readouterr().err
    monkeypatch.setenv("GPT4VIDEO_POLICY", "missing.toml")
    assert run(["generate", "x", "--raw", "-g", str(film_model)]) == ExitCode.INPUT
    assert "missing.toml: cannot be read" in capsys.readouterr().err
    assert loads == []
