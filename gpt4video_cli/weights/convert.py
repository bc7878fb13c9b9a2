"""Weights in public formats -> a model folder, or a part of one (the layout is in ``model.checkpoint``).

Names and shapes are checked before the first byte is written. Weights are read and written tensor by tensor, so that
memory for the largest tensor is enough, and the folder appears whole or not at all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from gpt4video_cli.errors import InputError, UsageError
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.weights.card import FILE_NAME
from gpt4video_cli.weights.convert_huggingface import plan_clip, plan_llama, shapes_of
from gpt4video_cli.weights.convert_mplug_owl import plan_mplug_owl
from gpt4video_cli.weights.convert_peft import CONFIG, STEM, check_adapter, plan_peft
from gpt4video_cli.weights.convert_plan import Plan, Planned, WeightsFile, same
from gpt4video_cli.weights.convert_shards import SHARD_BYTES, write_weights
from gpt4video_cli.weights.convert_source import Checkpoint, open_checkpoint
from gpt4video_cli.weights.convert_staging import refuse_full_disk, refuse_taken, staged
from gpt4video_cli.whole_file import whole_file

FORMATS = ("mplug-owl-video", "hf-clip", "hf-llama", "peft")
PARTS = {"mplug-owl-video": "", "hf-clip": "vision", "hf-llama": "language", "peft": "adapter"}
"""Format -> the folder that it makes of a model's; empty: the whole model's."""
_NEEDED = ("vision", "abstractor.safetensors", "language", FILE_NAME)


def import_weights(
    source: str | Path,
    format_: str,
    output: str | Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    tell: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Convert the folder or file ``source`` into the model folder ``output``; returns what was made.

    ``mplug-owl-video`` makes the whole folder with its card, ``hf-clip`` its ``vision``, ``hf-llama`` its ``language``
    and ``peft`` its ``adapter``; what is made must not be there yet. Floating tensors become ``dtype``, or keep their
    own. ``progress`` hears bytes written and bytes in all, ``tell`` what a person should know.

    Raises ``UsageError`` (format, taken output), ``InputError`` (no source), ``WeightsError`` (a checkpoint that is
    damaged, no plain weights, or of other tensors than its configuration says), ``Gpt4VideoError`` (disk).
    """
    if format_ not in FORMATS:
        raise UsageError(f"no format {format_!r}", hint=f"known: {', '.join(FORMATS)}")
    if shard_bytes < 1:
        raise UsageError("a shard must have a size above 0")
    source, output = Path(source), Path(output)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    target = output / PARTS[format_]
    refuse_taken(target)
    checkpoint = open_checkpoint(source, tell, stems=(STEM,) if format_ == "peft" else ("model", "pytorch_model"))
    plan = _plan(checkpoint, format_, output, dtype)
    refuse_full_disk(target, plan.size)
    done = 0

    def count(written: int) -> None:
        nonlocal done
        done += written
        progress(done, plan.size)

    with staged(target) as folder:
        for file in plan.weights:
            write_weights(folder, file, checkpoint, limit=shard_bytes, progress=count)
        for name, path in plan.copies.items():
            shutil.copyfile(path, folder / name)
        for name, text in plan.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        checkpoint.close()
    for note in (*plan.notes, *_lacking(output)):
        tell(note)
    return target


def pickle_to_safetensors(source: Path, target: Path) -> None:
    """Write the tensors of one pickle under their own names to ``target``, whole. Raises as ``import_weights`` does."""
    checkpoint = Checkpoint(source, [source])
    tensors = [Planned(name, entry.shape, entry.dtype, name, same) for name, entry in checkpoint.entries.items()]
    with whole_file(target) as temporary:
        temporary.unlink()
        file = WeightsFile(temporary.name, tensors, sharded=False)
        (made,) = write_weights(temporary.parent, file, checkpoint, progress=lambda _: None)
        made.replace(temporary)


def _plan(checkpoint: Checkpoint, format_: str, output: Path, dtype: torch.dtype | None) -> Plan:
    if format_ == "mplug-owl-video":
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", output.resolve().name).strip("-._") or format_
        return plan_mplug_owl(checkpoint, name=name, dtype=dtype)
    if format_ == "hf-clip":
        return plan_clip(checkpoint, dtype=dtype)
    if format_ == "peft":
        language = output / "language" / "config.json"
        base = shapes_of(read_json(language), language) if language.is_file() else None
        return plan_peft(checkpoint, base=base, dtype=dtype)
    plan = plan_llama(checkpoint, dtype=dtype)
    adapter = output / "adapter"
    if adapter.is_dir():  # it was imported before the language model that it is for
        shapes = {tensor.name: tensor.shape for tensor in plan.weights[0].tensors}
        check_adapter(open_checkpoint(adapter, stems=(STEM,)), read_json(adapter / CONFIG), shapes)
    return plan


def _lacking(output: Path) -> list[str]:
    missing = [name for name in _NEEDED if not (output / name).exists()]
    return [f"{output} is not a whole model yet: {', '.join(missing)} missing"] if missing else []
