"""Checkpoints: whole or not there, the last ones and the best stay, damage is passed over and said."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gpt4video_cli.errors import Gpt4VideoError, InputError
from gpt4video_cli.training.checkpoint_store import (
    STATE,
    TENSORS,
    CheckpointStore,
    differences,
    optimiser_state,
    random_state,
    set_optimiser_state,
    set_random_state,
)


def save(store: CheckpointStore, step: int) -> Path:
    return store.save(step, {"a": torch.full((3,), float(step))}, {"loss": step / 2, "text": "ä"})


def test_what_is_saved_is_loaded_and_old_ones_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "c", keep=2)
    assert store.latest() is None
    for step in (1, 5, 9):
        save(store, step)
        if step == 1:
            store.mark_best(1)
    assert store.steps() == [1, 5, 9]  # the best stays beside the last two
    store.mark_best(9)
    save(store, 12)
    assert store.steps() == [9, 12]
    found = store.latest()
    assert found is not None and found.step == 12 and found.values == {"loss": 6.0, "text": "ä"}
    assert torch.equal(found.tensors["a"], torch.full((3,), 12.0))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["best", "step-00000009", "step-00000012"]


def test_the_same_step_may_be_saved_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 3)
    store.save(3, {"a": torch.zeros(1)}, {})
    found = store.latest()
    assert found is not None and torch.equal(found.tensors["a"], torch.zeros(1))


@pytest.mark.parametrize("damage", ["cut tensors", "flipped byte", "cut state", "no tensors", "other version"])
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path: Path, damage: str) -> None:
    said: list[str] = []
    store = CheckpointStore(tmp_path, tell=said.append)
    save(store, 1)
    newest = save(store, 2)
    tensors, state = newest / TENSORS, newest / STATE
    content = tensors.read_bytes()
    if damage == "cut tensors":
        tensors.write_bytes(content[:-5])
    elif damage == "flipped byte":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut state":
        state.write_text(state.read_text()[:40])
    elif damage == "no tensors":
        tensors.unlink()
    else:
        state.write_text(state.read_text().replace('"version": 1', '"version": 2'))
    found = store.latest()
    assert found is not None and found.step == 1
    (line,) = said
    assert line.startswith(f"{newest}: ") and line.endswith("the checkpoint before it is used")
    with pytest.raises(InputError):
        store.load(2)


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gpt4video_cli.training.checkpoint_store._flush", full)
    with pytest.raises(Gpt4VideoError, match="step-00000002: the checkpoint cannot be written: No space left"):
        save(store, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_killed_while_saving_leaves_whole_ones(tmp_path: Path) -> None:
    """SIGKILL at a random moment of a loop that does nothing but save."""
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from gpt4video_cli.training.checkpoint_store import CheckpointStore\n"
        "store = CheckpointStore(Path(sys.argv[1]))\n"
        "for step in range(10_000):\n"
        "    store.save(step, {'a': torch.full((200_000,), float(step))}, {'step': step})\n"
        "    print(step, flush=True)\n"
    )
    for number in range(3):
        folder = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(3 + number):
            last = int(process.stdout.readline())
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = CheckpointStore(folder).latest()
        assert found is not None and found.step >= last
        assert float(found.tensors["a"][0]) == found.step == found.values["step"]


def test_an_optimiser_and_dropout_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def model_and_optimiser() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        model(torch.ones(2, 4)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    model, optimiser = model_and_optimiser()
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    step(model, optimiser)
    parameters = {f"parameters/{name}": p for name, p in model.named_parameters()}
    CheckpointStore(tmp_path).save(1, {**parameters, **optimiser_state(optimiser, names), **random_state()}, {})
    step(model, optimiser)

    other, other_optimiser = model_and_optimiser()
    found = CheckpointStore(tmp_path).latest()
    assert found is not None
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(found.tensors[f"parameters/{name}"])
    set_optimiser_state(other_optimiser, {p: name for name, p in other.named_parameters()}, found.tensors)
    torch.rand(7)
    set_random_state(found.tensors)
    step(other, other_optimiser)
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_configuration_is_compared_by_its_values() -> None:
    old, new = {"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 2, "c": None}
    assert differences(old, new) == ["a: 1, now 2"]
