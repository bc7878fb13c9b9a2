"""``gpt4video generate``: what goes to stdout, what bad input says, and that a clip can be made again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4video_cli.cli.app import run
from gpt4video_cli.errors import ExitCode
from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frames_of(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def pictures_of(folder: Path) -> np.ndarray:
    from PIL import Image

    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def test_the_path_is_on_stdout_and_the_rest_on_stderr(
    film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "a red circle", "--raw", "-g", str(film_model), "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    assert out == "a-red-circle-5.mp4\n"
    assert err.splitlines() == [
        "note: not screened: generated clip (no guard for frames is installed)",
    ]
    assert names(here) == ["a-red-circle-5.json", "a-red-circle-5.mp4"]
    assert frames_of(here / "a-red-circle-5.mp4").shape == (5, 32, 32, 3)


def test_a_fresh_process_is_quick_and_quiet(gpt4video: Any, film_model: Path, here: Path) -> None:
    start = time.perf_counter()
    done = gpt4video("generate", "a red circle", "--raw", "-g", film_model, "-o", here / "a.mp4", "--quiet")
    seconds = time.perf_counter() - start
    print(f"cold `generate --raw` with a random model: {seconds:.1f} s")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{here / 'a.mp4'}\n", "")
    assert seconds < 60  # 4 s alone on 2 cores


def test_json_says_everything(film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "-n",
        "2",
        "-o",
        "a.mp4",
        "--steps",
        "2",
        "--size",
        "16x32",
        "--fps",
        "4",
        "--frames",
        "3",
        "--guidance-until",
        "0.5",
        "--guidance-pass",
        "batched",
        "--cache-threshold",
        "0.1",
        "--json",
        "-q",
    ]
    assert run(["generate", "a red circle", "--raw", "-g", str(film_model), "--negative", "blue", *options]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == "" and set(answer) == {"clips", "notices", "refusal", "verdicts"}
    first, second = answer["clips"]
    assert (first["path"], second["path"]) == ("a-1.mp4", "a-2.mp4")
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["prompt"] == "a red circle" and first["negative_prompt"] == "blue"
    settings = first["settings"]
    assert (settings["width"], settings["height"], settings["frames"], settings["fps"]) == (16, 32, 3, 4.0)
    assert (settings["steps"], settings["dtype"], settings["device"]) == (2, "float32", "cpu")
    shortcuts = (settings["guidance_until"], settings["guidance_pass"], settings["cache_threshold"])
    assert shortcuts == (0.5, "batched", 0.1) and settings["compile"] is False
    assert set(first["seconds"]) == {"load", "denoise", "decode", "safety"}
    assert json.loads(Path(first["side_car"]).read_text())["seed"] == 0
    assert frames_of(here / "a-1.mp4").shape == (3, 32, 16, 3)


def test_from_a_description_or_a_clip_gives_the_same_clip(
    film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared as pictures, which are exactly what was filmed."""
    own = ["-g", str(film_model), "-q"]
    wanted = ["generate", "a red circle", "--raw", *own, "--seed", "9", "--steps", "2"]
    for target in ("a.mp4", "first/"):
        assert run([*wanted, "-o", target]) == 0
    first = pictures_of(here / "first")
    for source, target in (("a.json", "b/"), ("a.mp4", "c/")):
        assert run(["generate", "--from", source, *own, "-o", target]) == 0
        assert np.array_equal(pictures_of(here / target), first)
    assert run(["generate", "--from", "a.json", *own, "-o", "d/", "--seed", "10"]) == 0
    other = pictures_of(here / "d")
    assert not np.array_equal(other, first)
    assert json.loads((here / "d" / "clip.json").read_text())["settings"]["steps"] == 2
    written = frames_of(here / "a.mp4").astype(int)
    assert np.abs(written - first).mean() < np.abs(written - other).mean()
    # The folder of the model is not in the description.
    assert run(["generate", "--from", "a.json", "-o", "e.mp4"]) == ExitCode.USAGE
    assert "name its folder with --generator" in capsys.readouterr().err


def test_another_model_than_the_clips_is_said(film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "a red circle", "--raw", "-g", str(film_model), "-q", "-o", "a.mp4"]) == 0
    described = json.loads((here / "a.json").read_text())
    (here / "a.json").write_text(json.dumps({**described, "revision": "older"}))
    capsys.readouterr()
    assert run(["generate", "--from", "a.json", "-g", str(film_model), "-o", "b.mp4"]) == 0
    assert "note: the model is not the one that made the clip" in capsys.readouterr().err
    (here / "a.json").write_text(json.dumps({**described, "settings": {"frames": "many"}}))
    assert run(["generate", "--from", "a.json", "-g", str(film_model), "-o", "c.mp4"]) == ExitCode.INPUT
    assert "a.json: clip.settings.frames is not a valid int" in capsys.readouterr().err


def test_a_run_that_died_while_decoding_is_finished(
    film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpt4video_cli.gallery.diffusers_generator import DiffusersGenerator
    from gpt4video_cli.gallery.generator import FilmRequest

    latents = here / "a.mp4.latents.safetensors"
    film = DiffusersGenerator.open(str(film_model)).film(FilmRequest("a red circle", seed=4), latents=latents)
    assert run(["generate", "--resume", latents.name, "-o", "a.webm", "--json", "-q"]) == 0
    (clip,) = json.loads(capsys.readouterr().out)["clips"]
    assert (clip["prompt"], clip["seed"], clip["path"]) == ("a red circle", 4, "a.webm")
    assert frames_of(here / "a.webm").shape == film.frames.shape
    assert names(here) == ["a.json", "a.webm"]


def test_endings_choose_the_kind_of_file(film_model: Path, here: Path) -> None:
    for target in ("a.gif", "a.webm", "frames/"):
        assert run(["generate", "x", "--raw", "-g", str(film_model), "-q", "-o", target, "--no-metadata"]) == 0
    assert names(here) == ["a.gif", "a.webm", "frames"]
    assert names(here / "frames")[0] == "frame_0001.png"


BAD = [
    ([], ExitCode.USAGE, "there is no text to film"),
    (["  "], ExitCode.USAGE, "the prompt is empty"),
    (["x", "--size", "big"], ExitCode.USAGE, "--size is 'big'"),
    (["x", "--size", "30x32"], ExitCode.USAGE, "multiples of 4 from 16 to 128; the nearest is 32x32"),
    (["x", "--frames", "17"], ExitCode.USAGE, "random can do 1 to 16"),
    (["x", "--fps", "0"], ExitCode.USAGE, "--fps is 0"),
    (["x", "--steps", "0"], ExitCode.USAGE, "--steps is 0"),
    (["x", "--guidance", "nan"], ExitCode.USAGE, "--guidance is nan"),
    (["x", "--scheduler", "ddim"], ExitCode.USAGE, "'ddim' is for a noise-predicting model"),
    (["x", "--scheduler", "nice"], ExitCode.USAGE, "'nice' is not known; possible: ddim"),
    (["x", "--seed", "-1"], ExitCode.USAGE, "--seed is -1"),
    (["x", "-n", "0"], ExitCode.USAGE, "-n is 0"),
    (["x", "--offload", "some"], ExitCode.USAGE, "--offload is 'some'"),
    (["x", "--offload", "model", "--device", "cpu"], ExitCode.USAGE, "but the device is cpu"),
    (["x", "--dtype", "int8"], ExitCode.USAGE, "--dtype is 'int8'"),
    (["x", "--device", "toaster"], ExitCode.USAGE, "--device is 'toaster'"),
    (["x", "-o", "a.avi"], ExitCode.USAGE, "the ending .avi is not known"),
    (["x", "-o", "nowhere/a.mp4"], ExitCode.USAGE, "nowhere: no such folder"),
    (["x", "-o", "taken.mp4"], ExitCode.USAGE, "taken.mp4: exists; --force replaces it"),
    (["x", "--cache-every", "2"], ExitCode.USAGE, "--cache-every cannot be given: random (WanPipeline)"),
    (["x", "--compile", "--cache-threshold", "0.1"], ExitCode.USAGE, "exclude each other"),
    (["x", "--video", "a.mp4"], ExitCode.USAGE, "films from text alone"),
    (["--from", "nothing.json"], ExitCode.INPUT, "nothing.json: cannot be read"),
    (["--from", "taken.mp4"], ExitCode.INPUT, "taken.mp4"),
    (["--resume", "nothing.safetensors"], ExitCode.INPUT, "nothing.safetensors: no such file"),
    (["--resume", "taken.mp4"], ExitCode.INPUT, "taken.mp4: not a file of latents"),
    (["--resume", "taken.mp4", "--steps", "3"], ExitCode.USAGE, "--steps cannot be given with it"),
    (["x", "--resume", "taken.mp4"], ExitCode.USAGE, "a text cannot be given with it"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), BAD, ids=[" ".join(arguments) for arguments, *_ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    film_model: Path, here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: ExitCode, said: str
) -> None:
    (here / "taken.mp4").write_text("not a clip")
    assert run(["generate", *arguments, "--raw", "-g", str(film_model)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    error = [line for line in err.splitlines() if not line.startswith("note: not screened")]
    assert len(error) == 1 and said in error[0] and error[0].startswith("error: "), err
    assert names(here) == ["taken.mp4"] and (here / "taken.mp4").read_text() == "not a clip"


def test_generators_that_are_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "x", "--raw", "-g", "zeroscop-v2-576w"]) == ExitCode.USAGE
    assert "did you mean zeroscope-v2-576w" in capsys.readouterr().err
    assert run(["generate", "x", "--raw", "-g", "zeroscope-v2-576w"]) == ExitCode.WEIGHTS
    assert "gpt4video models pull zeroscope-v2-576w" in capsys.readouterr().err
    assert names(here) == []


def test_force_replaces(film_model: Path, here: Path) -> None:
    (here / "a.mp4").write_text("old")
    (here / "a.json").write_text("old")
    assert run(["generate", "x", "--raw", "-g", str(film_model), "-q", "-o", "a.mp4", "--force"]) == 0
    assert frames_of(here / "a.mp4").shape[0] == 5 and json.loads((here / "a.json").read_text())["prompt"] == "x"


def test_hostile_prompts_become_safe_names(film_model: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for prompt in ("../../etc/passwd", "-rf /", "a\x1b]0;b\x07c", "\U0001f3ac", "<video>x</video>"):
        assert (
            run(["generate", prompt if prompt[0] != "-" else " " + prompt, "--raw", "-g", str(film_model), "-q"]) == 0
        )
        (line,) = capsys.readouterr().out.splitlines()
        assert "/" not in line and line[0] not in ".-" and "\x1b" not in line
        assert (here / line).is_file()


def test_an_assistant_that_asks_for_no_clip_is_an_error(
    film_model: Path, random_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The random assistant answers gibberish."""
    assert run(["generate", "a red circle", "-g", str(film_model), "-m", str(random_model)]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("error: the assistant asked for no clip")
    assert "--raw" in err and names(here) == []


def test_what_the_assistant_asks_for_is_filmed(
    film_model: Path,
    random_model: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real assistant with a model that writes two prompts: its stream of text is replaced, nothing else."""

    def stream(engine: Any, segments: Any, options: Any, *, cache: Any, stats: Any, cancel: Any) -> Any:
        stats.finish_reason = "stop"
        yield "Here: <vid"
        yield "eo>a big red circle</video> and <video>a small blue square</video>."

    monkeypatch.setattr("gpt4video_cli.assistant.stream_text", stream)
    assert run(["generate", "film two things", "-g", str(film_model), "-m", str(random_model)]) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["a-big-red-circle-0.mp4", "a-small-blue-square-0.mp4"]
    assert 'prompt: "a big red circle"' in err
    assert json.loads((here / "a-small-blue-square-0.json").read_text())["prompt"] == "a small blue square"


def test_a_refusal_ends_with_its_code(
    film_model: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiffusersGenerator, "load", None)  # it would raise
    assert run(["generate", "a man is beheaded, blood everywhere", "--raw", "-g", str(film_model)]) == ExitCode.REFUSED
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("refused (text, violence): Sorry, this cannot be filmed: it looks like ")
    assert len(err.splitlines()) == 1 and "beheaded" not in err
    assert names(here) == []


def test_ctrl_c_ends_with_130_and_leaves_nothing(environment: dict[str, str], film_model: Path, here: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gpt4video_cli",
        "generate",
        "x",
        "--raw",
        "-g",
        str(film_model),
        "--steps",
        "1000",
        "--verbose",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=here
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stderr.readline()  # the first gate has passed: the model is being loaded
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == ExitCode.INTERRUPTED
        assert process.stdout.read() == b"" and process.stderr.read() == b""
    assert names(here) == []


def test_the_default_generator_is_the_bundles() -> None:
    from gpt4video_cli.weights.find_generator import DEFAULT_GENERATOR, find_generator

    assert find_generator(DEFAULT_GENERATOR).card.folder == "package:gpt4video_cli.bundle/film"
