"""A stage from settings to a model folder: data, model, loop, card. ``gpt4video train`` calls ``train_stage``.

settings -> dialogues (samples, skipped) -> order -> rows + features -> loss -> checkpoints -> model folder
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.data.layout import Layout
from gpt4video_cli.errors import Gpt4VideoError, InputError, UsageError
from gpt4video_cli.model.checkpoint import load_model
from gpt4video_cli.training.batches import WINDOW, Order
from gpt4video_cli.training.clip_features import ClipFeatures, default_folder
from gpt4video_cli.training.cluster import Accelerated, Cluster, whole
from gpt4video_cli.training.dialogue_set import DialogueSet, TrainingSample, read_training_data
from gpt4video_cli.training.loop import LoopOptions, run_task
from gpt4video_cli.training.report import Report, read_log
from gpt4video_cli.training.settings import FILE_NAME, Settings, configuration_hash
from gpt4video_cli.training.stage_model import load_stage_model
from gpt4video_cli.training.stage_task import Answer, StageTask
from gpt4video_cli.training.stages import Stage
from gpt4video_cli.training.trained_model import part_hashes, write_trained
from gpt4video_cli.video.reader import FrameReader
from gpt4video_cli.weights.card import Card
from gpt4video_cli.whole_file import write_whole

HELD_OUT_FROM = 20
"""With fewer dialogues none is held out, and no validation loss is measured unless a file for it is named."""


@dataclass(frozen=True)
class Plan:
    """All that is decided before any weights are read."""

    stage: Stage
    settings: Settings
    card: Card
    folder: Path
    training: DialogueSet
    validation: list[TrainingSample]
    options: LoopOptions

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.options.steps


@dataclass
class Told:
    """Where a run reports to; nothing is printed here."""

    report: Callable[[Report], None] = lambda _: None
    notice: Callable[[str], None] = lambda _: None
    answer: Callable[[Answer], None] = lambda _: None


@dataclass(frozen=True)
class Result:
    """``folder``: the model. ``records``: the log. ``skipped``: (``FILE:LINE``, why)."""

    folder: Path
    plan: Plan
    records: list[dict[str, Any]]
    skipped: list[tuple[str, str]] = field(default_factory=list)


def make_plan(asked: Settings) -> Plan:
    """Read data and configurations; weights are not touched. Raises for whatever cannot be trained on."""
    stage, settings = asked.resolved()
    layout = Layout(settings.model)
    training = read_training_data(settings.data, stage, layout, on_error=settings.on_error)
    if settings.validation:
        held = read_training_data(settings.validation, stage, layout, on_error=settings.on_error)
        validation = held.samples
        training.skipped += held.skipped
    else:
        validation = _hold_out(training, settings.seed)
    steps = max(1, round(len(training.samples) * stage.epochs / stage.batch_size))
    if settings.max_steps is not None:
        steps = settings.max_steps if asked.epochs is None else min(steps, settings.max_steps)
    options = LoopOptions(
        steps=steps,
        learning_rate=stage.learning_rate,
        warm_up=round(steps * stage.warm_up),
        weight_decay=stage.weight_decay,
        betas=(0.9, 0.999),
        clip=settings.clip,
        log_every=settings.log_every,
        save_every=settings.save_every,
        keep=settings.keep,
        evaluate_every=settings.evaluate_every if validation else 0,
    )
    return Plan(stage, settings, layout.card, layout.folder, training, validation, options)


def make_order(plan: Plan) -> Order:
    """The run's series of batches."""
    lengths = [len(sample.ids) for sample in plan.training.samples]
    asked = plan.settings
    return Order(lengths, batch_size=plan.stage.batch_size, seed=asked.seed, bucketing=asked.bucketing)


def _hold_out(training: DialogueSet, seed: int) -> list[TrainingSample]:
    """Take a hundredth of the samples away, 1 to 256, chosen by ``seed``."""
    count = len(training.samples)
    if count < HELD_OUT_FROM:
        return []
    chosen = set(random.Random(f"validation/{seed}").sample(range(count), min(256, max(1, count // 100))))
    held = [sample for i, sample in enumerate(training.samples) if i in chosen]
    training.samples = [sample for i, sample in enumerate(training.samples) if i not in chosen]
    return held


def train_stage(settings: Settings, *, resume: bool = False, told: Told | None = None) -> Result:
    """Train, and write the model folder. Errors are ``Gpt4VideoError``; ``KeyboardInterrupt`` after a signal."""
    told = told or Told()
    started = time.monotonic()
    plan = make_plan(settings)
    settings, stage, output = plan.settings, plan.stage, Path(plan.settings.output)
    cluster = Accelerated(settings.device)
    if stage.batch_size % cluster.processes:
        raise UsageError(f"a batch of {stage.batch_size} cannot be shared among {cluster.processes} processes")
    _claim(output, settings, resume=resume, cluster=cluster)
    compute = choose_compute(settings.precision, cluster.device)
    torch.manual_seed(settings.seed + cluster.rank)
    skipped = list(plan.training.skipped)
    with ExitStack() as stack:
        features = None
        if stage.sees_clips:
            reader = stack.enter_context(FrameReader())
            reader.warm()
            keep = Path(settings.features or default_folder()) if settings.keep_features else None
            vision = load_model(settings.model, device=str(cluster.device), dtype=compute)
            features = ClipFeatures(vision, reader, keep)
        model = load_stage_model(
            plan.folder,
            stage,
            device=cluster.device,
            compute=compute,
            four_bit=settings.four_bit,
            gradient_checkpointing=settings.gradient_checkpointing,
            seed=settings.seed,
        )
        samples, order = plan.training.samples, make_order(plan)
        task = stack.enter_context(
            StageTask(
                model,
                cluster.wrap(model, shard=settings.shard, units=list(model.llama().model.layers)),
                samples,
                plan.validation,
                order,
                settings,
                cluster,
                features,
                language=plan.folder / "language",
                skipped=skipped,
                told=told.answer,
                answers=output / "answers.jsonl",
            )
        )
        base = part_hashes(plan.folder)
        identity = {**settings.deciding(), "model": plan.card.name, "weights": base, "compute": str(compute)}
        if order.together < WINDOW:  # runs from before small sets had a window of their own would get other batches
            identity["window of batches"] = order.together
        with _in_one_line(output):
            run_task(
                task,
                plan.options,
                folder=output,
                name="train",
                tell=told.report,
                notice=told.notice if cluster.rank == 0 else lambda _: None,
                cluster=cluster,
                identity=identity,
            )
        skipped = list(dict.fromkeys(place for part in cluster.gathered(skipped) for place in part))
    records = read_log(output / "train.jsonl")
    weights = {name: whole(parameter.detach()) for name, parameter in model.trained()}  # of which all have a piece
    if cluster.rank == 0:
        lines = [json.dumps({"place": place, "why": why}, ensure_ascii=False) for place, why in skipped]
        write_whole(output / "skipped.jsonl", "".join(f"{line}\n" for line in lines))
        seconds = time.monotonic() - started
        training = _training(plan, identity, records, base, len(skipped), str(cluster.device), seconds)
        write_trained(output, plan.folder, plan.card, stage, model, weights, training)
    cluster.wait()
    return Result(output, plan, records, skipped)


@contextmanager
def _in_one_line(output: Path) -> Iterator[None]:
    """What a full disk or a full GPU looks like to a person."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise Gpt4VideoError(
            "the GPU has not enough memory",
            hint="a smaller --micro-batch-size, --gradient-checkpointing or --four-bit need less; --resume goes on",
        ) from error
    except OSError as error:
        place = error.filename or output
        raise Gpt4VideoError(
            f"{place}: {error.strerror or error}", hint="the last checkpoint is whole; --resume goes on from it"
        ) from error


def _training(
    plan: Plan,
    identity: dict[str, Any],
    records: list[dict[str, Any]],
    base: dict[str, str],
    skipped: int,
    device: str,
    seconds: float,
) -> dict[str, Any]:
    """What the card says of the run."""
    evaluated = [record for record in records if "evaluation" in record]
    best = min(evaluated, key=lambda record: record["evaluation"], default=None)
    validation: dict[str, Any] = {"dialogues": len(plan.validation)}
    if best is not None:
        last = evaluated[-1]["evaluation"]
        validation |= {"loss": last, "best_loss": best["evaluation"], "best_step": best["step"]}
    return {
        "stage": plan.stage.number,
        "steps": plan.steps,
        "batch_size": plan.stage.batch_size,
        "learning_rate": plan.stage.learning_rate,
        "seed": plan.settings.seed,
        "first_loss": records[0]["loss"] if records else 0.0,
        "last_loss": records[-1]["loss"] if records else 0.0,
        "device": device,
        "seconds_of_last_start": round(seconds, 1),
        "configuration": f"sha256:{configuration_hash(identity)}",
        "data": {
            "dialogues": len(plan.training.samples),
            "tokens": plan.training.tokens,
            "learned_tokens": plan.training.learned,
            "skipped": skipped,
            "files": ", ".join(identity["data"]),
        },
        "validation": validation,
        "base": {"model": plan.card.name, "files": ", ".join(f"{name} {value}" for name, value in base.items())},
    }


def choose_compute(precision: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in. Raises ``UsageError`` for bfloat16 on a GPU that lacks it."""
    able = device.type != "cuda" or torch.cuda.is_bf16_supported()
    if precision == "bfloat16":
        if not able:
            raise UsageError("this GPU has no bfloat16", hint="use --precision float32")
        return torch.bfloat16
    return torch.bfloat16 if precision == "auto" and device.type == "cuda" and able else torch.float32


def _claim(output: Path, settings: Settings, *, resume: bool, cluster: Cluster) -> None:
    """Make ``output`` this run's folder. Nothing that another run or a person left there is touched."""
    problem = ""
    if cluster.rank == 0:
        there = (output / FILE_NAME).exists()
        if output.exists() and not output.is_dir():
            problem = f"{output}: is a file; --output names a folder"
        elif resume and not there:
            problem = f"{output}: no run to resume there"
        elif not resume and there:
            problem = f"{output}: holds a run already; --resume goes on with it, another --output begins a new one"
        elif not there and output.is_dir() and any(output.iterdir()):
            problem = f"{output}: is not empty; --output must be a new folder"
        else:
            try:
                output.mkdir(parents=True, exist_ok=True)
                if not there:
                    write_whole(output / FILE_NAME, replace(settings, output=str(output.resolve())).as_toml())
            except OSError as error:
                problem = f"{output}: cannot be written: {error.strerror or error}"
    problem = cluster.gathered(problem)[0]
    if problem:
        raise InputError(problem) if resume else UsageError(problem)
