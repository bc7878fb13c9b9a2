"""Laws of the two stages: what changes and what does not, which tokens are learned, rows, shares, features."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gpt4video_cli.assistant import Assistant, ClipRequest, Message
from gpt4video_cli.data.samples import IGNORED
from gpt4video_cli.errors import ClipError, Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.events import Done
from gpt4video_cli.language.engine import TokenSegment
from gpt4video_cli.training.batches import (
    WINDOW,
    Order,
    Rows,
    attention_mask,
    first_fit,
    make_rows,
    packed_rows,
    row_cost,
    shares,
)
from gpt4video_cli.training.clip_features import ClipFeatures
from gpt4video_cli.training.dialogue_set import TrainingSample
from gpt4video_cli.training.merge import merge_adapter
from gpt4video_cli.training.precompute import precompute_files
from gpt4video_cli.training.report import Watch, read_log
from gpt4video_cli.training.stage_model import Inputs, StageModel, load_stage_model, stack_features
from gpt4video_cli.training.stage_run import make_plan, train_stage
from gpt4video_cli.training.stages import INSTRUCT
from gpt4video_cli.video.reader import FrameReader
from tests.training.conftest import Make, write


def tensors(folder: Path) -> dict[str, dict[str, Tensor]]:
    """All weights of a model folder, by file."""
    return {str(file.relative_to(folder)): load_file(file) for file in sorted(folder.rglob("*.safetensors"))}


def parts_of(folder: Path) -> dict[str, dict[str, Tensor]]:
    return {name: value for name, value in tensors(folder).items() if not name.startswith("checkpoints")}


def test_stage_1_changes_all_of_the_abstractor_and_nothing_else(settings: Make, base: Path) -> None:
    result = train_stage(settings(1))
    before, after = parts_of(base), parts_of(result.folder)
    assert set(before) == set(after)
    for file in ("vision/model.safetensors", "language/model.safetensors"):
        assert (result.folder / file).read_bytes() == (base / file).read_bytes()
    old, new = before["abstractor.safetensors"], after["abstractor.safetensors"]
    assert [name for name in old if torch.equal(old[name], new[name])] == []
    saved = tensors(result.folder / "checkpoints" / "train")
    assert all(
        name.split("/")[1].startswith("abstractor.")
        for state in saved.values()
        for name in state
        if name.startswith(("parameters/", "optimiser/"))
    )


def test_stage_2_adds_an_adapter_and_changes_nothing_else(settings: Make, base: Path) -> None:
    result = train_stage(settings(2))
    before, after = parts_of(base), parts_of(result.folder)
    assert set(after) - set(before) == {"adapter/adapter_model.safetensors"}
    for file in before:
        assert (result.folder / file).read_bytes() == (base / file).read_bytes()
    adapter = after["adapter/adapter_model.safetensors"]
    assert {name.split(".")[-3] for name in adapter} == {"q_proj", "v_proj"}
    assert all(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)  # zero at first
    values = json.loads((result.folder / "adapter" / "adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"], values["lora_dropout"]) == (16, 16, 0.1)
    assert values["base_model_name_or_path"] == "../language"


def test_a_trained_model_chats_and_its_card_says_how_it_was_made(settings: Make, watched: Path) -> None:
    first = train_stage(settings(1))
    second = train_stage(settings(2, model=str(first.folder), output=str(first.folder) + "-2", prompts=2))
    with Assistant.open(str(second.folder)) as assistant:
        card = assistant.model.card
        session = assistant.new_session()
        events = list(assistant.reply(session, Message("What moves?", (ClipRequest(str(watched.parent / "0.mp4")),))))
        assert isinstance(events[-1], Done)
    assert card.name == "run-2" and "stage 2 (instruct)" in card.made_from and "stage 1 (align)" in card.made_from
    assert card.training["steps"] == 4 and card.training["data"]["dialogues"] == 39
    assert card.training["data"]["files"].startswith("told.jsonl sha256:")
    assert math.isclose(card.training["validation"]["loss"], second.records[-1]["evaluation"], abs_tol=1e-3)
    assert set(card.training["weights"]) >= {"adapter/adapter_model.safetensors", "abstractor.safetensors"}
    answers = [json.loads(line) for line in (second.folder / "answers.jsonl").read_text().splitlines()]
    assert [answer["question"] for answer in answers] == ["What moves?"] and answers[0]["expected"].startswith("A ")


def test_an_adapter_is_trained_on(settings: Make) -> None:
    first = train_stage(settings(2))
    second = train_stage(settings(2, model=str(first.folder), output=str(first.folder) + "-2", learning_rate=1e-9))
    old, new = (load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (first, second))
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)
    with pytest.raises(Gpt4VideoError, match=r"adapter has rank 16.*this run wants rank 4"):
        train_stage(settings(2, model=str(first.folder), output=str(first.folder) + "-3", lora_rank=4))


def test_features_that_were_kept_train_alike(settings: Make, tmp_path: Path) -> None:
    runs = [
        train_stage(settings(1, output=str(tmp_path / str(n)), keep_features=keep)).records
        for n, keep in enumerate((False, True, True))
    ]
    losses = [[record["loss"] for record in run] for run in runs]
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 4


def test_features_serve_only_for_what_they_were_made_of(
    base: Path, watched: Path, tmp_path: Path, settings: Make
) -> None:
    from gpt4video_cli.model.checkpoint import load_model

    clip, other = tmp_path / "clip.mp4", watched.parent / "1.mp4"
    clip.write_bytes((watched.parent / "0.mp4").read_bytes())
    kept = tmp_path / "kept"
    with FrameReader() as reader:
        features = ClipFeatures(load_model(base, device="cpu"), reader, kept)
        first = features.get(clip)
        assert torch.equal(first, features.get(watched.parent / "0.mp4"))  # the same content under another name
        assert (features.counts.computed, features.counts.found) == (1, 1)
        features.get(clip, 0.5, 1.0)
        assert features.counts.computed == 2
        clip.write_bytes(other.read_bytes())
        assert not torch.equal(first, features.get(clip)) and features.counts.computed == 3
        for file in kept.rglob("*.safetensors"):  # damaged: made again
            file.write_bytes(file.read_bytes()[:-9])
        assert torch.equal(first, features.get(watched.parent / "0.mp4")) and features.counts.computed == 4
        with pytest.raises(ClipError, match=r"gone\.mp4"):
            features.get(tmp_path / "gone.mp4")
        from gpt4video_cli.model.random_model import write_random_model

        another = load_model(write_random_model(tmp_path / "another", seed=1), device="cpu")
        counted = ClipFeatures(another, reader, kept)
        assert not torch.equal(first, counted.get(watched.parent / "0.mp4")) and counted.counts.computed == 1


@pytest.fixture(scope="module")
def samples(told: Path, base: Path) -> list[TrainingSample]:
    from gpt4video_cli.training.settings import Settings

    return make_plan(Settings(2, (str(told),), "nowhere", str(base))).training.samples


@pytest.fixture(scope="module")
def model(base: Path) -> StageModel:
    stage = replace(INSTRUCT, lora=replace(INSTRUCT.lora, dropout=0.0)) if INSTRUCT.lora else INSTRUCT
    made = load_stage_model(base, stage, device=torch.device("cpu"), compute=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.trained():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return made


def gradients(model: StageModel, rows: list[Rows]) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    total = 0.0
    for one in rows:
        loss = model(Inputs(one))
        loss.backward()
        total += float(loss.detach())
    return total, [p.grad.clone() for _, p in model.trained() if p.grad is not None]


def test_packed_rows_train_as_single_ones_do(model: StageModel, samples: list[TrainingSample]) -> None:
    packed = make_rows(samples[:12], first_fit([len(s.ids) for s in samples[:12]], 400))
    padded = make_rows(samples[:12])
    assert len(packed.ids) < 6 and len(padded.ids) == 12 and packed.packed and not padded.packed
    assert attention_mask(padded) is None
    ways = [gradients(model, rows) for rows in ([packed], [padded], [make_rows([s]) for s in samples[:12]])]
    for loss, grads in ways[1:]:
        assert loss == pytest.approx(ways[0][0], rel=1e-5)
        for mine, other in zip(ways[0][1], grads, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_no_sample_sees_another_in_its_row(model: StageModel, samples: list[TrainingSample]) -> None:
    """Other words in one sample change nothing of what the model makes of the next."""
    rows = make_rows(samples[:3], [[0, 1, 2]])
    assert len(rows.ids) == 1
    changed = rows.ids.clone()
    changed[rows.owner == 0] = changed[rows.owner == 0].roll(3)
    states = []
    for ids in (rows.ids, changed):
        hidden = model.llama().model(
            inputs_embeds=model.llama().get_input_embeddings()(ids),
            attention_mask=attention_mask(rows),
            position_ids=rows.positions,
        )
        states.append(hidden.last_hidden_state)
    same = (states[0] == states[1]).all(-1)
    assert bool(same[rows.owner > 0].all()) and not bool(same[rows.owner == 0].any())


def test_rows_hold_every_token_once_and_learn_what_the_labels_say(samples: list[TrainingSample]) -> None:
    lengths = [len(s.ids) for s in samples]
    for places in (None, first_fit(lengths, 300), packed_rows(lengths, 64), packed_rows(lengths, 4096)):
        rows = make_rows(samples, places)
        assert int((rows.owner >= 0).sum()) == sum(len(s.ids) for s in samples)
        assert len(rows.targets) == sum(s.learned for s in samples)
        assert torch.equal(rows.ids.flatten()[rows.sources + 1], rows.targets)  # each foretold from the place before
        assert places is None or sorted(i for row in places for i in row) == list(range(len(samples)))
    assert len(make_rows([]).targets) == 0 and packed_rows([], 64) == []


def test_samples_share_rows_where_that_is_less_work() -> None:
    assert packed_rows([100] * 8, 256) == [[i] for i in range(8)]  # nothing to gain
    shared = packed_rows([400, 60, 50, 40, 40, 30, 30, 20], 4096)
    assert sorted(map(len, shared)) == [1, 7] or len(shared) < 8
    for width in (64, 256, 4096):
        lengths = [500, 100, 90, 70, 60, 60, 50, 50]
        rows = packed_rows(lengths, width)
        most = max(sum(lengths[i] for i in row) for row in rows)
        assert row_cost(len(rows), most, width) <= row_cost(8, 500, width)


def test_each_epoch_sees_each_sample_once_in_batches_of_like_length(samples: list[TrainingSample]) -> None:
    lengths = [len(s.ids) for s in samples]
    order = Order(lengths, batch_size=4, seed=3)
    steps = WINDOW * min(WINDOW, len(samples) // 4)  # whole windows
    drawn = [order.batch(step) for step in range(steps)]
    seen = Counter(i for batch in drawn for i in batch)
    total = steps * 4
    assert set(seen.values()) <= {total // len(samples), -(-total // len(samples))}
    assert all(lengths[a] >= lengths[b] for batch in drawn for a, b in pairwise(batch))
    assert Order(lengths, batch_size=4, seed=3).batch(40) == drawn[40]  # without those before it
    assert Order(lengths, batch_size=4, seed=4).batch(0) != drawn[0]


@pytest.mark.parametrize(("count", "size"), ((24, 4), (25, 4), (7, 8), (3, 8), (130, 4)))
def test_a_dialogue_does_not_meet_itself_where_there_are_few(count: int, size: int) -> None:
    order = Order([10 + i for i in range(count)], batch_size=size, seed=0)
    epochs = 1 + -(-size // count)  # that a batch can reach into
    batches = [order.batch(step) for step in range(4 * count)]
    assert all(len(batch) == size for batch in batches)
    assert all(batch.count(index) <= epochs for batch in batches for index in batch)
    if count % size == 0:  # windows end with epochs
        assert all(len(set(batch)) == size for batch in batches)


def test_processes_share_a_batch_evenly_and_nothing_is_lost() -> None:
    for processes in (1, 2, 3):
        for size in (1, 3, 8):
            parts = shares(list(range(7)), processes=processes, micro_batch_size=size)
            assert len({len(part) for part in parts}) == 1
            assert sorted(i for part in parts for micro in part for i in micro) == list(range(7))


def test_micro_batches_add_up_to_the_batch(settings: Make, tmp_path: Path) -> None:
    runs = [
        train_stage(
            settings(stage, output=str(tmp_path / f"{stage}{micro}"), micro_batch_size=micro, lora_dropout=drop)
        )
        for stage, drop in ((1, None), (2, 0.0))
        for micro in (4, 3, 1)
    ]
    for group in (runs[:3], runs[3:]):
        losses = [[record["loss"] for record in run.records] for run in group]
        assert losses[0] == pytest.approx(losses[1], abs=2e-4) and losses[0] == pytest.approx(losses[2], abs=2e-4)


def test_forgetting_activations_changes_no_loss(settings: Make, tmp_path: Path) -> None:
    for stage in (1, 2):
        losses = [
            [
                record["loss"]
                for record in train_stage(
                    settings(stage, output=str(tmp_path / f"{stage}{forget}"), gradient_checkpointing=forget)
                ).records
            ]
            for forget in (False, True)
        ]
        assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_clips_of_different_lengths_are_padded_and_masked() -> None:
    features, mask = stack_features([torch.ones(3, 2, 4), torch.ones(1, 2, 4)])
    assert features is not None and features.shape == (2, 3, 2, 4) and mask is not None
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert stack_features([torch.ones(3, 2, 4)])[1] is None and stack_features([]) == (None, None)


def test_a_loss_that_explodes_stops_with_step_and_samples() -> None:
    watch = Watch("train")
    for step in range(20):
        watch.look(3.0 - step / 10, step, lambda _: [])
    with pytest.raises(Gpt4VideoError, match=r"the loss is 50, lately it was .* at step 21, in a:1, a:2"):
        watch.look(50.0, 20, lambda _: ["a:1", "a:2"])
    with pytest.raises(Gpt4VideoError, match=r"the loss is nan at step 22, in 0, 1, .* and 2 more"):
        watch.look(math.nan, 21, lambda _: [str(i) for i in range(10)])


def test_a_log_is_continued_where_a_resumed_run_begins(settings: Make) -> None:
    result = train_stage(settings(2))
    path = result.folder / "train.jsonl"
    assert [record["step"] for record in read_log(path)] == [1, 2, 3, 4]
    path.write_text(path.read_text() + '{"step": 9, "loss": 1}\n{"step": 1')
    again = train_stage(settings(2), resume=True)
    assert [record["step"] for record in again.records] == [1, 2, 3, 4]
    learned = [label for label in make_plan(settings(2)).training.samples[0].labels if label != IGNORED]
    assert len(learned) > 3


def test_clips_are_computed_before_training(base: Path, watched: Path, tmp_path: Path, settings: Make) -> None:
    lines = [json.loads(line) for line in watched.read_text().splitlines()]
    for line in lines:
        line["clips"] = [{"path": str(watched.parent / line["clips"][0]["path"])}]
    lines.append({**lines[0], "id": "again"})
    lines.append({**lines[0], "id": "gone", "clips": [{"path": "gone.mp4"}]})
    data, kept = write(tmp_path / "data.jsonl", lines), tmp_path / "kept"
    failed: list[tuple[str, str]] = []
    counts = precompute_files([data], str(base), kept, device="cpu", failed=failed)
    assert (counts.computed, counts.found, counts.failed) == (12, 0, 1)
    assert [place for place, _ in failed] == [f"{data}:14"]
    counts = precompute_files([data], str(base), kept, device="cpu", failed=[])
    assert (counts.computed, counts.found) == (0, 12)
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    train_stage(settings(1, data=(str(data),), on_error="skip", features=str(kept)))
    assert before == {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}


def test_a_merged_model_answers_as_with_its_adapter(settings: Make, tmp_path: Path) -> None:
    run = train_stage(settings(2, learning_rate=0.05, max_steps=8))
    merged = merge_adapter(str(run.folder), tmp_path / "merged")
    assert not (merged / "adapter").exists()
    logits = []
    for folder in (run.folder, merged):
        with Assistant.open(str(folder)) as assistant:
            logits.append(assistant.model.engine.logits([TokenSegment(tuple(range(3, 40)))]))  # type: ignore[attr-defined]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(WeightsError, match="has no adapter"):
        merge_adapter(str(merged), tmp_path / "again")
    with pytest.raises(UsageError, match="is not empty"):
        merge_adapter(str(run.folder), merged)
