"""Laws of the training loop: killed or told to stop, it goes on bit by bit; other options do not; the rates."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.training.checkpoint_store import CheckpointStore
from gpt4video_cli.training.loop import LoopOptions, learning_rate

REGRESSION = """
import sys
from pathlib import Path
import torch
from gpt4video_cli.recipes.closure import train_loop
from gpt4video_cli.training.loop import LoopOptions

torch.manual_seed(0)
layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2))

def loss_of(step):
    print(step, flush=True)
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return (layer(x) - x.roll(1, 1)).square().mean()

options = LoopOptions(steps=40, learning_rate=1e-2, warm_up=3, save_every=0.0, log_every=5, average=0.9)
train_loop(layer.named_parameters(), loss_of, options, folder=Path(sys.argv[1]), name="run")
print(layer[0].weight.detach().numpy().tobytes().hex())
"""


def regression(folder: Path, stop_at: int | None = None, by: int = signal.SIGKILL) -> tuple[int, str]:
    """A run in a process of its own, which gets a signal in the middle of step ``stop_at``: its code and weights."""
    process = subprocess.Popen([sys.executable, "-c", REGRESSION, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        last = line.strip()
        if last == str(stop_at):
            process.send_signal(by)
    return process.wait(), last


def test_a_run_that_was_killed_ends_bit_by_bit_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    code, whole = regression(tmp_path / "whole")
    assert code == 0 and len(whole) == 16 * 4 * 2
    for step in sorted(random.Random(6).sample(range(1, 39), 3)):
        code, _ = regression(tmp_path / "cut", stop_at=step)
        assert code == -signal.SIGKILL
    assert regression(tmp_path / "cut") == (0, whole)
    lines = (tmp_path / "whole" / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert regression(tmp_path / "cut") == (0, whole)  # a finished run gives the same once more


def test_matrices_go_with_muon_and_it_too_goes_on_where_it_stopped(tmp_path: Path) -> None:
    options = LoopOptions(steps=12, learning_rate=1e-2, warm_up=1, muon_rate=5e-2, weight_decay=0.0, save_every=0.0)

    def trained(folder: Path, fail_at: int = -1) -> torch.nn.ModuleDict:
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(9, 6), "layer": torch.nn.Linear(6, 6)})

        def loss_of(step: int) -> torch.Tensor:
            if step == fail_at:
                raise InterruptedError
            x = model["embedding"](torch.tensor([step % 4, 4]))
            return model["layer"](x).square().mean()

        train_loop(model.named_parameters(), loss_of, options, folder=folder, name="run")
        return model

    after = trained(tmp_path / "whole")
    found = CheckpointStore(tmp_path / "whole" / "checkpoints" / "run").latest()
    assert found is not None
    remembered = {key.removeprefix("optimiser/") for key in found.tensors if key.startswith("optimiser/")}
    assert "layer.weight/momentum_buffer" in remembered and "layer.weight/exp_avg" not in remembered
    assert {"embedding.weight/exp_avg", "layer.bias/exp_avg"} <= remembered
    with pytest.raises(InterruptedError):
        trained(tmp_path / "cut", fail_at=7)
    again = trained(tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(after.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_saves_first(tmp_path: Path, by: int) -> None:
    code, last = regression(tmp_path, stop_at=17, by=by)
    assert code in (1, -signal.SIGINT, 130) and int(last) < 39
    assert max(CheckpointStore(tmp_path / "checkpoints" / "run").steps()) == int(last) + 1


def test_other_options_do_not_resume(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 4)
    options = LoopOptions(steps=2, learning_rate=1e-2)
    train_loop(layer.named_parameters(), lambda _: layer.weight.sum(), options, folder=tmp_path, name="run")
    options = replace(options, steps=30)
    with pytest.raises(Gpt4VideoError, match=r"step-00000002: made with other options \(steps: 2, now 30\)"):
        train_loop(layer.named_parameters(), lambda _: torch.zeros(()), options, folder=tmp_path, name="run")


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)

    def loss_of(step: int) -> torch.Tensor:
        return layer.weight.sum() * (float("nan") if step == 2 else 1.0)

    with pytest.raises(Gpt4VideoError, match="the loss is nan at step 3"):
        train_loop(
            layer.named_parameters(), loss_of, LoopOptions(steps=5, learning_rate=1e-3), folder=tmp_path, name="run"
        )


def test_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    options = LoopOptions(steps=100, learning_rate=1.0, warm_up=10, floor=0.05)
    rates = [learning_rate(step, options) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.05)
