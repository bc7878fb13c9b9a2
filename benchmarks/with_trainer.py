"""The same stage 2 with transformers' Trainer, for ``training_speed``: prints its rates as one line of JSON.

    python -m benchmarks.with_trainer MODEL DATA BATCH STEPS FOLDER

It gets the very batches that the program's own loop draws, padded on the right, with labels for all positions.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch


def main() -> None:
    """Command line of this module."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from gpt4video_cli.data.samples import IGNORED
    from gpt4video_cli.training.batches import Order
    from gpt4video_cli.training.report import peak_memory
    from gpt4video_cli.training.settings import Settings
    from gpt4video_cli.training.stage_model import load_stage_model
    from gpt4video_cli.training.stage_run import make_plan

    model_folder, data, batch, steps, folder = sys.argv[1:]
    count, size = int(steps), int(batch)
    asked = Settings(2, (data,), folder, model_folder, batch_size=size, max_steps=count, lora_dropout=0.0)
    plan = make_plan(asked)
    model = load_stage_model(plan.folder, plan.stage, device=torch.device("cpu"), compute=torch.float32)
    samples = plan.training.samples
    order = Order([len(s.ids) for s in samples], batch_size=size, seed=0)
    stream = [samples[i] for step in range(count) for i in order.batch(step)]
    times: list[float] = []
    losses: list[float] = []

    def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
        width = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for i, row in enumerate(rows):
            n = len(row.ids)
            ids[i, :n], labels[i, :n], mask[i, :n] = torch.tensor(row.ids), torch.tensor(row.labels), 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.monotonic())

        def on_log(self, *args: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                losses.append(round(logs["loss"], 3))

    class InOrder(Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(stream)

    options = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=size,
        max_steps=count,
        learning_rate=plan.stage.learning_rate,
        warmup_steps=plan.options.warm_up,
        lr_scheduler_type="cosine",
        weight_decay=plan.stage.weight_decay,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    adapted = model.language_model
    InOrder(adapted, options, data_collator=collate, train_dataset=stream, callbacks=[Clock()]).train()
    counted = times[4:-1]
    tokens = sum(len(s.ids) for s in stream[5 * size : (len(times) - 1) * size])
    seconds = counted[-1] - counted[0]
    rates = {"steps": (len(counted) - 1) / seconds, "samples": (len(counted) - 1) * size / seconds}
    print(json.dumps({**rates, "tokens": tokens / seconds, "memory": peak_memory(), "losses": losses[4:9]}))


if __name__ == "__main__":
    main()
