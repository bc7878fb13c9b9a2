"""What a stage trains, as one module: rows and features in, loss out. Only the stage's own part has gradients.

Letters: R rows, L positions of a row, C clips, T frames, P patches, N video tokens of a clip, D_v and D_llm widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt4video_cli.errors import UsageError, WeightsError
from gpt4video_cli.model.abstractor import Abstractor, load_abstractor
from gpt4video_cli.training.batches import Rows, attention_mask
from gpt4video_cli.training.stages import LoraShape, Stage


@dataclass(frozen=True, eq=False)
class Inputs:
    """``features`` float16 ``[C, T, 1+P, D_v]`` of the rows' clips, None without clips. Where they differ in length:
    the shorter ones padded, and bool ``[C, T]``: which frames are real."""

    rows: Rows
    features: Tensor | None = None
    frame_mask: Tensor | None = None


class StageModel(nn.Module):
    """Abstractor (stage 1) and language model (a LLaMA; in stage 2 with its adapter), one of them trained."""

    def __init__(self, stage: Stage, language_model: Any, abstractor: Abstractor | None, compute: torch.dtype) -> None:
        super().__init__()
        self.stage = stage
        self.language_model: Any = language_model
        self.abstractor = abstractor
        self._compute = compute
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(is_trained(name, stage))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # updates are smaller than half precision can add
        # Layers that forget their activations do so in training mode alone; a LLaMA has no dropout of its own.
        self.train()

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """What changes, by name."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def forward(self, inputs: Inputs) -> Tensor:
        """Equation (5), summed over the tokens to be learned: their negative log likelihood given all before them."""
        rows = inputs.rows
        device = next(self.language_model.parameters()).device
        with torch.autocast(device.type, self._compute, enabled=self._compute != torch.float32):
            embeddings = self._embed(inputs, device)
            hidden = (
                self.llama()
                .model(
                    inputs_embeds=embeddings,
                    attention_mask=None if (mask := attention_mask(rows)) is None else mask.to(device),
                    position_ids=rows.positions.to(device) if rows.packed else None,
                    use_cache=False,
                )
                .last_hidden_state
            )
            # [n, V]: the logits of the other positions are never computed
            logits = self.llama().lm_head(hidden.flatten(0, 1)[rows.sources.to(device)])
        return F.cross_entropy(logits.float(), rows.targets.to(device), reduction="sum")

    def _embed(self, inputs: Inputs, device: torch.device) -> Tensor:
        """``[R, L, D_llm]``: of the ids, with the clips' tokens in their places."""
        rows = inputs.rows
        embeddings: Tensor = self.llama().get_input_embeddings()(rows.ids.to(device))
        if self.abstractor is None:
            return embeddings
        if inputs.features is None:  # no clip could be read: no gradient, but several processes wait for one
            return embeddings + 0 * sum(p.sum() for p in self.abstractor.parameters())
        mask = None if inputs.frame_mask is None else inputs.frame_mask.to(device)
        video = self.abstractor(inputs.features.to(device, torch.float32), mask)
        offsets = torch.arange(video.shape[1])
        row = torch.tensor([[clip[0]] for clip in rows.clips]).expand(-1, len(offsets)).to(device)
        column = (torch.tensor([[clip[1]] for clip in rows.clips]) + offsets).to(device)
        return embeddings.index_put((row, column), video.to(embeddings.dtype))  # out of place: gradients reach video

    def llama(self) -> Any:
        """The transformers model, with the adapter in its layers if it has one."""
        model = self.language_model
        return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_trained(name: str, stage: Stage) -> bool:
    """Whether ``stage`` changes the parameter of a ``StageModel`` with that name."""
    if stage.trains == "abstractor":
        return name.startswith("abstractor.")
    return name.startswith("language_model.") and ".lora_" in name


def load_stage_model(
    folder: Path,
    stage: Stage,
    *,
    device: torch.device,
    compute: torch.dtype,
    four_bit: bool = False,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> StageModel:
    """The parts of a model folder that ``stage`` needs, on ``device``; frozen ones in ``compute``.

    Stage 2 goes on with the folder's adapter, or with a fresh one drawn from ``seed``.
    """
    from gpt4video_cli.language.llama_folder import load_llama, quiet

    adapter = folder / "adapter"
    with quiet():
        llama = load_llama(folder / "language", device=str(device), dtype=compute, four_bit=four_bit)
        if gradient_checkpointing:
            llama.gradient_checkpointing_enable({"use_reentrant": False})
            llama.enable_input_require_grads()
    if stage.lora is not None:
        with quiet():
            return StageModel(stage, with_adapter(llama, stage.lora, adapter, seed=seed), None, compute)
    if adapter.is_dir():
        from gpt4video_cli.language.adapter import attach_adapter

        llama = attach_adapter(llama, adapter, merge=compute == torch.float32)
    abstractor = load_abstractor(folder / "abstractor.safetensors", device=str(device), dtype=torch.float32)
    return StageModel(stage, llama, abstractor, compute)


def with_adapter(llama: Any, shape: LoraShape, folder: Path | None, *, seed: int) -> Any:
    """``llama`` with the adapter in ``folder``, to be trained on, or with a fresh one of ``shape`` if there is none."""
    if folder is not None and folder.is_dir():
        return _adapter_again(llama, shape, folder)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=list(shape.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(llama, config)


def _adapter_again(llama: Any, shape: LoraShape, folder: Path) -> Any:
    from peft import PeftModel

    from gpt4video_cli.language.adapter import check_fits, read_adapter
    from gpt4video_cli.language.llama_folder import first_line

    check_fits(folder, read_adapter(folder), llama)
    try:
        adapted = PeftModel.from_pretrained(llama, str(folder), is_trainable=True, torch_device=str(llama.device))
    except Exception as error:  # peft raises ValueError, RuntimeError, KeyError, TypeError for a bad adapter
        raise WeightsError(f"{folder}: the adapter cannot be loaded: {first_line(error)}") from error
    config = adapted.peft_config["default"]
    found = (config.r, config.lora_alpha, set(config.target_modules))
    if found != (shape.rank, shape.alpha, set(shape.targets)):
        raise UsageError(
            f"{folder}: the model's adapter has rank {config.r}, alpha {config.lora_alpha} on "
            f"{', '.join(sorted(config.target_modules))}; this run wants rank {shape.rank}, alpha {shape.alpha} on "
            f"{', '.join(shape.targets)}",
            hint="gpt4video models merge folds it into its base first",
        )
    return adapted


def stack_features(features: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Clips ``[T_i, 1+P, D_v]`` as ``[C, T, 1+P, D_v]``, padded with zeros, and bool ``[C, T]``: real frames, or None
    where all are."""
    if not features:
        return None, None
    longest = max(len(clip) for clip in features)
    stacked = features[0].new_zeros(len(features), longest, *features[0].shape[1:])
    mask = torch.zeros(len(features), longest, dtype=torch.bool)
    for i, clip in enumerate(features):
        stacked[i, : len(clip)], mask[i, : len(clip)] = clip, True
    return stacked, None if bool(mask.all()) else mask
