"""What a run would train, on what, and what it would take; from configurations alone, without touching weights.

Parts are built on the meta device, where parameters have shapes and no content; one step runs on tensors without
content (``memory.py``), which counts its bytes and its multiplications.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gpt4video_cli.data.layout import spread
from gpt4video_cli.model.abstractor import Abstractor
from gpt4video_cli.model.abstractor_config import read_abstractor_config
from gpt4video_cli.model.strict_load import choose_device, read_json
from gpt4video_cli.model.visual_encoder import VisualEncoder, VisualEncoderConfig
from gpt4video_cli.training.batches import Rows, make_rows, packed_rows, shares
from gpt4video_cli.training.memory import LiveBytes, without_content
from gpt4video_cli.training.report import peak_memory
from gpt4video_cli.training.settings import Settings
from gpt4video_cli.training.stage_model import Inputs, StageModel, with_adapter
from gpt4video_cli.training.stage_run import Plan, choose_compute, make_order, make_plan

GAPS = {"cpu": 1.4, "cuda": 1.05}
"""What a device's allocator holds for each byte of tensors that come and go in a step. Measured with
benchmarks/memory_estimate.py: glibc's leaves gaps between blocks of changing sizes, of 1.15 (for 0.5 GB in a step) to
1.68 (2.4 GB); with MALLOC_MMAP_THRESHOLD_=1048576 there are none, and a step takes 1.4 times as long. For CUDA it is a
common margin, not measured."""
LOOKED_AT = 512
"""Steps among which the largest micro-batch is looked for."""


@dataclass(frozen=True)
class Part:
    """Parameters of a part of the model."""

    name: str
    trained: int
    frozen: int


@dataclass(frozen=True)
class DryRun:
    """``memory``: MiB at the peak, of ``tensors`` and, on a CPU, of the program itself; ``seconds``: of all steps.
    ``multiplications``: multiply-adds of a step, forward and backward."""

    stage: int
    name: str
    device: str
    compute: str
    parts: list[Part]
    steps: int
    dialogues: int
    held_out: int
    skipped: int
    clips: int
    tokens: int
    learned: int
    lengths: dict[str, int]
    sources: dict[str, int]
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    tensors: float
    memory: float
    multiplications: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def dry_run(settings: Settings, *, device: str | None = None) -> DryRun:
    """Everything that can be known. ``device``: as if on ``cpu`` or ``cuda``; None: where the run would be."""
    plan = make_plan(settings)
    place = torch.device(device) if device else choose_device(plan.settings.device)
    compute = _compute(plan, place)
    model, encoder = hollow_model(plan, compute)
    rows = largest_rows(plan)
    program = peak_memory() if place.type == "cpu" else 0.0
    kept, live, flops = step_on_nothing(plan, model, encoder, rows, compute)
    micro_batches = -(-plan.stage.batch_size // plan.settings.micro_batch_size)
    per_token = flops / max(1, int((rows.owner >= 0).sum()))
    of_a_step = per_token * plan.training.tokens / len(plan.training.samples) * plan.stage.batch_size
    tensors = live / 2**20
    samples = plan.training.samples
    return DryRun(
        stage=plan.stage.number,
        name=plan.stage.name,
        device=place.type,
        compute=str(compute).removeprefix("torch."),
        parts=_parts(model, encoder),
        steps=plan.steps,
        dialogues=len(samples),
        held_out=len(plan.validation),
        skipped=len(plan.training.skipped),
        clips=plan.training.clips,
        tokens=plan.training.tokens,
        learned=plan.training.learned,
        lengths=spread([len(sample.ids) for sample in samples]),
        sources=dict(plan.training.sources),
        batch_size=plan.stage.batch_size,
        micro_batch_size=plan.stage.batch_size // micro_batches,
        learning_rate=plan.stage.learning_rate,
        tensors=tensors,
        memory=kept / 2**20 + (live - kept) / 2**20 * GAPS.get(place.type, 1.0) + program,
        multiplications=of_a_step / 2,
        seconds=plan.steps * of_a_step / speed(place, compute) if device is None else 0.0,
    )


def _compute(plan: Plan, place: torch.device) -> torch.dtype:
    if place.type == "cuda" and not torch.cuda.is_available():  # as if
        return torch.float32 if plan.settings.precision == "float32" else torch.bfloat16
    return choose_compute(plan.settings.precision, place)


def hollow_model(plan: Plan, compute: torch.dtype) -> tuple[StageModel, VisualEncoder | None]:
    """The stage's model on the meta device, frozen parts in ``compute``; and the encoder where clips are seen."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    folder = plan.folder
    config = LlamaConfig(**read_json(folder / "language" / "config.json"), attn_implementation="sdpa")
    with torch.device("meta"):
        llama: Any = LlamaForCausalLM(config).to(compute)
        if plan.settings.gradient_checkpointing:
            llama.gradient_checkpointing_enable({"use_reentrant": False})
            llama.enable_input_require_grads()
        if plan.stage.lora is not None:
            return StageModel(plan.stage, with_adapter(llama, plan.stage.lora, None, seed=0), None, compute), None
        abstractor = Abstractor(read_abstractor_config(folder / "abstractor.safetensors"))
        encoder = VisualEncoder(_vision_config(folder)).to(compute).requires_grad_(False)
        return StageModel(plan.stage, llama, abstractor, compute), encoder


def _vision_config(folder: Path) -> VisualEncoderConfig:
    file = folder / "vision" / "config.json"
    return VisualEncoderConfig.from_clip_vision_config(read_json(file), file)


def largest_rows(plan: Plan) -> Rows:
    """The micro-batch of the run's first steps that has the most positions."""
    samples = plan.training.samples
    order = make_order(plan)
    micro = min(plan.settings.micro_batch_size, plan.stage.batch_size)
    found: Sequence[int] = ()
    most = -1
    for step in range(min(plan.steps, LOOKED_AT)):
        for indices in shares(order.batch(step), processes=1, micro_batch_size=micro)[0]:
            size = len(indices) * max(len(samples[i].ids) for i in indices)
            if size > most:
                found, most = indices, size
    chosen = [samples[i] for i in found]
    if not plan.settings.packing or plan.stage.sees_clips:
        return make_rows(chosen)
    width = int(read_json(plan.folder / "language" / "config.json")["hidden_size"])
    return make_rows(chosen, packed_rows([len(sample.ids) for sample in chosen], width))


def step_on_nothing(
    plan: Plan, model: StageModel, encoder: VisualEncoder | None, rows: Rows, compute: torch.dtype
) -> tuple[int, int, float]:
    """Two steps of a model on the meta device: bytes that stay between steps, bytes at the peak, and floating point
    operations of a step."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    live, kept = LiveBytes(), 0
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        without_content(model)
        features = None
        if encoder is not None:
            without_content(encoder)
            features = _features(plan, encoder, len(rows.clips), compute)
        optimiser = torch.optim.AdamW([p for _, p in model.trained()], foreach=True)
        inputs = Inputs(rows, features)
        for step in range(2):  # the optimiser's memory comes with its first step
            with FlopCounterMode(display=False) as counter:
                model(inputs).backward()
            nn.utils.clip_grad_norm_([p for _, p in model.trained()], 1.0, foreach=True)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if step == 0:
                kept = live.live
    return kept, live.peak, float(counter.get_total_flops())


def _features(plan: Plan, encoder: VisualEncoder, clips: int, compute: torch.dtype) -> torch.Tensor:
    """Of so many clips, encoded one after the other, as ``ClipFeatures`` does."""
    side, frames = encoder.config.image_size, plan.card.frames
    with torch.no_grad():
        (one,) = encoder(torch.empty(1, frames, 3, side, side, dtype=compute)).to(torch.float16)
    return torch.stack([one] * max(1, clips))


def _parts(model: StageModel, encoder: VisualEncoder | None) -> list[Part]:
    modules: dict[str, nn.Module | None] = {"visual encoder": encoder, "abstractor": model.abstractor}
    parts = [_part(name, module.parameters()) for name, module in modules.items() if module is not None]
    language = list(model.language_model.named_parameters())
    parts.append(_part("language model", [p for name, p in language if ".lora_" not in name]))
    if any(".lora_" in name for name, _ in language):
        parts.append(_part("adapter", [p for name, p in language if ".lora_" in name]))
    return parts


def _part(name: str, parameters: Any) -> Part:
    sizes = [(p.numel(), p.requires_grad) for p in parameters]
    return Part(name, sum(n for n, trained in sizes if trained), sum(n for n, trained in sizes if not trained))


def speed(device: torch.device, compute: torch.dtype) -> float:
    """Floating point operations a second of products of 1024 x 1024 matrices here, forward and backward of a model
    reach about half of it."""
    left = torch.randn(1024, 1024, device=device, dtype=compute)
    product = left @ left
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.2:
        product = left @ product * 1e-3
        count += 1
        float(product[0, 0])  # waits for a GPU
    return 0.5 * 2 * 1024**3 * count / (time.perf_counter() - started)
