"""The command as a person starts it: killed and resumed, two processes, wrong input, and what it leaves behind."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from gpt4video_cli.errors import Gpt4VideoError, InputError, UsageError
from gpt4video_cli.training.checkpoint_store import TENSORS, CheckpointStore
from gpt4video_cli.training.report import Report, read_log
from gpt4video_cli.training.settings import Settings, make_settings, read_config
from gpt4video_cli.training.stage_run import Told, make_plan, train_stage
from tests.training.conftest import Make, write

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """``python ARGUMENTS`` with the program on its path."""

    def run(*arguments: str) -> subprocess.Popen[str]:
        search = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        environment = {**os.environ, "PYTHONPATH": search, "GPT4VIDEO_HOME": str(tmp_path / "home")}
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


def command(told: Path, base: Path, output: Path) -> list[str]:
    numbers = "--stage 2 --batch-size 4 --max-steps 24 --lr 1e-2 --save-every 0 --evaluate-every 9 --device cpu"
    files = ["--data", str(told), "--model", str(base), "--output", str(output)]
    return ["-m", "gpt4video_cli", "train", *numbers.split(), *files]


def test_a_run_killed_three_times_ends_bit_by_bit_where_an_uninterrupted_one_does(
    start: Start, told: Path, base: Path, tmp_path: Path
) -> None:
    whole = start(*command(told, base, tmp_path / "whole"))
    assert whole.wait() == 0, whole.stderr and whole.stderr.read()
    cut = tmp_path / "cut"
    checkpoints = CheckpointStore(cut / "checkpoints" / "train")
    rng = random.Random(4)
    killed = []
    for step in sorted(rng.sample(range(2, 23), 3)):
        process = start(*command(told, base, cut), *(["--resume"] if killed else []))
        while process.poll() is None and max(checkpoints.steps(), default=0) < step:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)  # anywhere within a step
        process.kill()
        assert process.wait() == -signal.SIGKILL
        killed.append(max(checkpoints.steps()))
    assert killed == sorted(killed) and killed[-1] < 24
    last = start(*command(told, base, cut), "--resume")
    assert last.wait() == 0, last.stderr and last.stderr.read()
    for name in ("adapter/adapter_model.safetensors", "abstractor.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logs = [
        [json.loads(line) for line in (f / "train.jsonl").read_text().splitlines()] for f in (cut, tmp_path / "whole")
    ]
    assert [r["step"] for r in logs[0]] == [r["step"] for r in logs[1]]
    assert logs[0][-1]["evaluation"] == logs[1][-1]["evaluation"]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_first(start: Start, told: Path, base: Path, tmp_path: Path, by: int) -> None:
    arguments = [word if word != "24" else "5000" for word in command(told, base, tmp_path / "run")]
    arguments[arguments.index("--save-every") + 1] = "600"
    process = start(*arguments)
    while not (tmp_path / "run" / "train.jsonl").exists() or not (tmp_path / "run" / "train.jsonl").stat().st_size:
        time.sleep(0.05)
        assert process.poll() is None, process.stderr and process.stderr.read()
    process.send_signal(by)
    assert process.wait(30) == 130
    assert process.stderr is not None
    said = process.stderr.read()
    assert "a checkpoint was saved, --resume goes on from it" in said and "Traceback" not in said
    assert max(CheckpointStore(tmp_path / "run" / "checkpoints" / "train").steps()) > 0
    assert not (tmp_path / "run" / "card.toml").exists()


# Each stage and each way once; the other pairs take a minute more.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("stage", "shard"),
    [(1, False), (2, True), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((2, False), (1, True)))],
)
def test_two_processes_do_what_one_does(
    start: Start, told: Path, watched: Path, base: Path, tmp_path: Path, stage: int, shard: bool
) -> None:
    """The same batch of 6: losses within 1e-4 for 20 steps. Dropout is off, because each process draws its own."""
    config = tmp_path / "config.toml"
    data = watched if stage == 1 else told
    config.write_text(
        f"stage = {stage}\ndata = [{json.dumps(str(data))}]\nmodel = {json.dumps(str(base))}\nbatch_size = 6\n"
        "micro_batch_size = 2\nmax_steps = 20\nlearning_rate = 5e-3\nlog_every = 1\nsave_every = 0\ndevice = 'cpu'\n"
        + ("lora_dropout = 0.0\n" if stage == 2 else "")
    )
    train = ["gpt4video_cli", "train", "--config", str(config), "--output"]
    one = start("-m", *train, str(tmp_path / "one"))
    assert one.wait() == 0, one.stderr and one.stderr.read()
    launcher = (
        "-m torch.distributed.run --nproc-per-node 2 --master-port 0 --rdzv-backend c10d --rdzv-endpoint localhost:0"
    )
    words = [*launcher.split(), "-m", *train, str(tmp_path / "two"), *(["--shard"] if shard else [])]
    two = start(*words)
    assert two.wait() == 0, two.stderr and two.stderr.read()
    losses = []
    for folder in ("one", "two"):
        records = read_log(tmp_path / folder / "train.jsonl")
        assert len(records) == 20
        losses.append([(record["loss"], record.get("evaluation", 0.0)) for record in records])
    assert [a for a, _ in losses[0]] == pytest.approx([a for a, _ in losses[1]], abs=1e-4)
    assert losses[0][-1][1] == pytest.approx(losses[1][-1][1], abs=1e-4)
    name = "abstractor.safetensors" if stage == 1 else "adapter/adapter_model.safetensors"
    left, right = (load_file(tmp_path / folder / name) for folder in ("one", "two"))
    assert all(float((left[key] - right[key]).abs().mean()) < 2e-3 for key in left)  # Adam makes much of little
    if shard:  # pieces are put together from a checkpoint as they were
        content = (tmp_path / "two" / name).read_bytes()
        again = start(*words, "--resume")
        assert again.wait() == 0, again.stderr and again.stderr.read()
        assert (tmp_path / "two" / name).read_bytes() == content
    found = CheckpointStore(tmp_path / "two" / "checkpoints" / "train").latest()
    assert found is not None and found.values["options"]["processes"] == 2
    assert {name for name in found.tensors if name.startswith("random/cpu")} == {"random/cpu", "random/cpu/process-1"}


def test_a_run_leaves_a_log_a_curve_and_a_board(start: Start, told: Path, base: Path, tmp_path: Path) -> None:
    process = start(*command(told, base, tmp_path / "run"), "--json")
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert json.loads(out)["steps"] == 24 and "validation" in said and "tokens/s" in said
    with Image.open(tmp_path / "run" / "loss.png") as picture:
        assert picture.size == (960, 540) and len(set(picture.convert("L").tobytes())) > 20
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    records = read_log(tmp_path / "run" / "train.jsonl")
    assert [r["step"] for r in records if "evaluation" in r] == [9, 18, 24]
    for name in ("loss", "learning_rate", "gradient", "samples", "tokens", "memory", "seconds", "left"):
        assert all(record[name] >= 0 for record in records), name
    best = min(records, key=lambda record: record.get("evaluation", 99.0))
    assert CheckpointStore(tmp_path / "run" / "checkpoints" / "train").best() == best["step"]


def test_settings_survive_their_file_and_flags_win(settings: Make, tmp_path: Path) -> None:
    _, resolved = settings(2, lora_rank=4).resolved()
    file = tmp_path / "settings.toml"
    file.write_text(resolved.as_toml())
    assert make_settings(file, {}) == resolved
    assert make_settings(file, {"learning_rate": 0.5, "seed": None}) == replace(resolved, learning_rate=0.5)
    assert {field.name for field in fields(Settings)} >= set(read_config(file))


def test_a_run_goes_on_with_the_settings_that_it_kept(settings: Make) -> None:
    """With 39 dialogues in batches of 4, and 3 epochs unless something else is said."""
    for changes, steps in (
        ({"max_steps": 300}, 300),
        ({"max_steps": None}, 29),
        ({"max_steps": 300, "epochs": 1.0}, 10),
        ({"max_steps": 7, "epochs": 1.0}, 7),
    ):
        plan = make_plan(settings(2, **changes))
        assert plan.steps == steps == make_plan(plan.settings).steps


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage = 2\nnope = 1\n", "unknown setting nope"),
        ("stage = '2'\n", "stage must be of type int, found '2'"),
        ("data = 'x'\n", "data must be a list of strings"),
        ("stage = ", "not valid TOML"),
    ],
)
def test_wrong_configurations_name_file_and_setting(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        make_settings(file, {"data": ("x",), "output": "y"})
    assert said in str(error.value) and str(file) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": 3}, "--stage is 3"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "float8"}, "precision is 'float8'; it must be one of auto, float32, bfloat16"),
        ({"data": ()}, "no data"),
        ({"stage": 1, "lora_rank": 8}, "lora_rank belongs to stage 2"),
    ],
)
def test_wrong_settings_are_named(settings: Make, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(settings(2), **changes)


def test_data_of_the_wrong_stage_is_named_by_file_and_line(settings: Make, watched: Path, told: Path) -> None:
    with pytest.raises(InputError, match=rf"{told}:1: no clip file, which stage 1 \(align\) watches"):
        make_plan(settings(1, data=(str(told),)))
    with pytest.raises(InputError, match=rf"{watched}:1: clip 0 has no description, which stands for it in stage 2"):
        make_plan(settings(2, data=(str(watched),)))


def test_what_cannot_be_used_stops_or_is_listed(settings: Make, watched: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in watched.read_text().splitlines()]
    for line in lines:
        line["clips"] = [{"path": str(watched.parent / line["clips"][0]["path"])}]
    lines[3]["clips"] = [{"path": "gone.mp4"}]
    lines[5]["turns"][0]["assistant"] = ""
    (tmp_path / "broken.mp4").write_text("no video")
    lines[7]["clips"] = [{"path": "broken.mp4"}]
    data = write(tmp_path / "data.jsonl", lines)
    data.write_text(data.read_text() + "not json\n\n")
    with pytest.raises(InputError, match=rf"{data}:4: clip 0: .*gone\.mp4 is not there"):
        train_stage(settings(1, data=(str(data),)))
    result = train_stage(settings(1, data=(str(data),), on_error="skip", max_steps=6))
    skipped = [json.loads(line) for line in (result.folder / "skipped.jsonl").read_text().splitlines()]
    assert [entry["place"] for entry in skipped] == [f"{data}:{n}" for n in (4, 6, 13, 8)]
    assert "broken.mp4" in skipped[-1]["why"] and skipped == [{"place": p, "why": w} for p, w in result.skipped]
    good = [line for number, line in enumerate(lines) if number not in (3, 5)]
    with pytest.raises(InputError, match=r"data\.jsonl:6: .*broken\.mp4"):  # found when it is decoded
        train_stage(settings(1, data=(str(write(data, good)),), output=str(tmp_path / "other"), max_steps=6))
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(InputError, match=rf"{empty}: no dialogues for stage 1"):
        make_plan(settings(1, data=(str(empty),)))


def test_a_dialogue_longer_than_the_context_is_named(settings: Make, told: Path, tmp_path: Path) -> None:
    line = json.loads(told.read_text().splitlines()[0])
    line["turns"][0]["user"] = "word " * 600
    with pytest.raises(InputError, match=r"long\.jsonl:1: \d+ tokens; the model's context has 512"):
        make_plan(settings(2, data=(str(write(tmp_path / "long.jsonl", [line])),)))


def test_a_run_that_had_other_batches_is_not_resumed(settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:  # small training sets had no window of their own
        before.setattr("gpt4video_cli.training.stage_run.WINDOW", 0)
        train_stage(settings(2))
    with pytest.raises(Gpt4VideoError, match=r"made with other options \(window of batches: None, now \d+\)"):
        train_stage(settings(2), resume=True)


def test_a_folder_that_is_taken_is_left_alone(settings: Make, tmp_path: Path, told: Path) -> None:
    first = settings(2)
    train_stage(first)
    before = {path: path.read_bytes() for path in Path(first.output).rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="holds a run already; --resume goes on with it"):
        train_stage(first)
    with pytest.raises(Gpt4VideoError, match=r"made with other options \(learning_rate: 0\.01, now 0\.5\)"):
        train_stage(replace(first, learning_rate=0.5), resume=True)
    other = write(tmp_path / "told.jsonl", [json.loads(line) for line in told.read_text().splitlines()[1:]])
    with pytest.raises(Gpt4VideoError, match=r"made with other options \(data: .*told\.jsonl sha256:"):
        train_stage(replace(first, data=(str(other),)), resume=True)
    assert before == {path: path.read_bytes() for path in Path(first.output).rglob("*") if path.is_file()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="is not empty"):
        train_stage(replace(first, output=str(tmp_path / "mine")))
    with pytest.raises(InputError, match="no run to resume there"):
        train_stage(replace(first, output=str(tmp_path / "mine")), resume=True)
    with pytest.raises(UsageError, match="is a file"):
        train_stage(replace(first, output=str(tmp_path / "mine" / "thesis.tex")))


def test_a_damaged_checkpoint_is_passed_over_and_said(settings: Make) -> None:
    whole = train_stage(settings(2, save_every=0.0))
    weights = (whole.folder / "adapter" / "adapter_model.safetensors").read_bytes()
    newest = sorted((whole.folder / "checkpoints" / "train").glob("step-*"))[-1] / TENSORS
    newest.write_bytes(newest.read_bytes()[:-100])
    said: list[str] = []
    train_stage(settings(2, save_every=0.0), resume=True, told=Told(notice=said.append))
    assert len(said) == 1 and "was cut off or changed" in said[0] and "the checkpoint before it is used" in said[0]
    assert (whole.folder / "adapter" / "adapter_model.safetensors").read_bytes() == weights


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_is_whole(
    settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = settings(2, save_every=0.0, max_steps=6)

    def full(self: object, report: Report) -> None:
        if report.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", "train.jsonl")

    with monkeypatch.context() as patch:
        patch.setattr("gpt4video_cli.training.report.Log.write", full)
        with pytest.raises(Gpt4VideoError, match=r"^train\.jsonl: No space left on device$") as error:
            train_stage(asked)
    assert error.value.hint and "--resume" in error.value.hint
    assert CheckpointStore(Path(asked.output) / "checkpoints" / "train").steps()[-1] == 3
    assert train_stage(asked, resume=True).records[-1]["step"] == 6


def test_an_adapter_of_another_width_is_one_clear_line(settings: Make, tmp_path: Path) -> None:
    from gpt4video_cli.model.random_model import write_random_model

    narrow = write_random_model(tmp_path / "narrow", width=32, adapter=True)
    wide = write_random_model(tmp_path / "wide", width=64, context_length=512)
    (narrow / "adapter").rename(wide / "adapter")
    with pytest.raises(Gpt4VideoError, match=r"q_proj has input width 32, the language model's has 64"):
        train_stage(settings(2, model=str(wide)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "cake", "-o", "x"], "--recipe is 'cake'; it must be bundle or film"),
        (["--recipe", "bundle", "--stage", "1", "-o", "x"], "--recipe and --stage contradict each other"),
        (["--recipe", "bundle"], "--output is missing"),
        (["--stage", "1", "-o", "x"], "--data is missing"),
        (["--recipe", "film", "-o", "taken"], "taken.work: holds an unfinished run; --resume goes on with it"),
    ],
)
def test_wrong_words_are_one_line(start: Start, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "taken.work").mkdir()
    process = start("-m", "gpt4video_cli", "train", *words)
    out, error = process.communicate()
    assert process.returncode == 2 and not out
    assert said in error and len(error.splitlines()) == 1
