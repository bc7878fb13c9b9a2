"""The language model of a model folder as one GGUF file, for llama.cpp and the programs that are built on it.

Read and written tensor by tensor, so that memory for the largest tensor is enough. The file appears whole or not at
all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpt4video_cli.errors import UsageError
from gpt4video_cli.gallery.new_file import temporary_for
from gpt4video_cli.language.llama_folder import check_files
from gpt4video_cli.language.llama_library import is_installed
from gpt4video_cli.model.strict_load import read_json
from gpt4video_cli.weights.card import Card
from gpt4video_cli.weights.convert_huggingface import plan_llama
from gpt4video_cli.weights.convert_plan import Planned
from gpt4video_cli.weights.convert_source import Checkpoint, open_checkpoint
from gpt4video_cli.weights.convert_staging import refuse_full_disk
from gpt4video_cli.weights.gguf_adapter import export_adapter_gguf, merge_into
from gpt4video_cli.weights.gguf_file import WRITTEN, gguf_name, put_whole, refuse_file, row_order, write_gguf
from gpt4video_cli.weights.gguf_metadata import add_base, add_card, add_sizes, add_source, rope_tensors
from gpt4video_cli.weights.gguf_probe import first_difference
from gpt4video_cli.weights.gguf_quantise import LARGEST_BITS, QUANTISED, check_installed, fallback_note, quantise
from gpt4video_cli.weights.gguf_tokenizer import GgufTokenizer, add_tokenizer, read_tokenizer

__all__ = ["KINDS", "check_kind", "export_adapter_gguf", "export_gguf"]

KINDS = (*WRITTEN, *QUANTISED)
_STORED = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What is quantised: the numbers as they are stored, or float16."""


def check_kind(kind: str) -> str:
    """``kind`` in lower case; ``UsageError`` with names like it unless it is one of ``KINDS``."""
    known = kind.lower()
    if known not in KINDS:
        near = difflib.get_close_matches(known, KINDS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(KINDS)}"
        raise UsageError(f"no GGUF kind {kind!r}", hint=hint)
    return known


def export_gguf(
    language_folder: Path,
    output: Path,
    kind: str = "f16",
    *,
    adapter: Path | None = None,
    card: Card | None = None,
    force: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the LLaMA in ``language_folder`` to the GGUF file ``output``, whole, and return it.

    ``kind``: one of ``KINDS``, how matrices are stored. ``adapter``: a PEFT folder that is added to the weights, in
    float32. ``card``: what the file says of the model. An existing file is only replaced with ``force``. ``tell`` hears
    what a person should know, ``progress`` bytes done and bytes in all.

    Raises ``UsageError`` (kind, taken output, llama.cpp missing where it has to quantise), ``WeightsError`` (no LLaMA
    folder, a shard or tensor missing, an adapter for another model), ``Gpt4VideoError`` (disk).
    """
    language_folder, output, kind = Path(language_folder), Path(output), check_kind(kind)
    refuse_file(output, force=force)
    if kind in QUANTISED:
        check_installed()
    source = _open(language_folder, adapter, card)
    plain = kind if kind in WRITTEN else source.stored
    tensors = source.in_gguf(plain)
    size = sum(tensor.size for tensor in tensors)
    quantised = 0 if kind in WRITTEN else int(size / WRITTEN[plain].itemsize * LARGEST_BITS / 8)
    refuse_full_disk(output, size + quantised)
    done = 0

    def count(written: int) -> None:
        nonlocal done
        done += written
        progress(done, size + quantised)

    with temporary_for(output) as temporary:
        output.parent.mkdir(parents=True, exist_ok=True)
        if kind in WRITTEN:
            source.write(temporary, kind, tensors, count)
        else:
            with temporary_for(output) as unquantised:
                source.write(unquantised, plain, tensors, count)
                quantise(
                    unquantised, temporary, kind, lambda part: progress(size + int(part * quantised), size + quantised)
                )
            rows = {tensor.name: tensor.shape[1] for tensor in tensors if len(tensor.shape) > 1}
            if note := fallback_note(temporary, kind, rows):
                tell(note)
        if note := source.tokenizer_note(temporary):
            tell(note)
        put_whole(temporary, output, force=force)
    return output


@dataclass(frozen=True)
class _Source:
    """What is exported. ``tensors`` are under Hugging Face's names."""

    folder: Path
    config: Mapping[str, Any]
    checkpoint: Checkpoint
    tensors: list[Planned]
    tokenizer: GgufTokenizer
    adapter: Path | None
    card: Card | None

    @property
    def stored(self) -> str:
        """The kind that loses nothing of how most of the weights are stored."""
        entries = self.checkpoint.entries.values()
        largest = max(entries, key=lambda entry: entry.size)
        return _STORED.get(largest.dtype, "f16")

    def in_gguf(self, kind: str) -> list[Planned]:
        """The tensors as GGUF has them."""
        return [_in_gguf(planned, self.config, WRITTEN[kind]) for planned in self.tensors]

    def write(self, path: Path, kind: str, tensors: list[Planned], progress: Callable[[int], None]) -> None:
        """Metadata and tensors to a new file."""
        from gguf import GGUFWriter, LlamaFileType

        writer = GGUFWriter(None, "llama")
        writer.add_type("model")
        writer.add_file_type(LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
        add_card(writer, self.card)
        add_sizes(writer, self.config, self.folder / "config.json")
        add_base(writer, self.config)
        files = sorted({entry.file for entry in self.checkpoint.entries.values()})
        files += sorted(self.adapter.glob("*.safetensors")) if self.adapter else []
        add_source(writer, [self.folder / "config.json", *files])
        writer.add_bool("gpt4video.adapter_merged", self.adapter is not None)
        add_tokenizer(writer, self.tokenizer, self.folder)
        computed = rope_tensors(self.config, self.folder / "config.json")
        write_gguf(path, writer, tensors, self.checkpoint, computed=computed, progress=progress)

    def tokenizer_note(self, path: Path) -> str | None:
        """What to say of the tokenizer in the file at ``path``."""
        if self.tokenizer.note:
            return self.tokenizer.note
        text = first_difference(path, self.folder) if is_installed() else None
        if text is None:
            return None
        return (
            f"other programs will cut some texts otherwise than this model's own tokenizer does, for instance {text!r}"
        )


def _open(folder: Path, adapter: Path | None, card: Card | None) -> _Source:
    check_files(folder)
    config = read_json(folder / "config.json")
    checkpoint = open_checkpoint(folder)
    tensors = list(plan_llama(checkpoint).weights[0].tensors)
    if adapter is not None:
        tensors = merge_into(tensors, adapter, folder)
    return _Source(folder, config, checkpoint, tensors, read_tokenizer(folder, config), adapter, card)


def _in_gguf(planned: Planned, config: Mapping[str, Any], dtype: torch.dtype) -> Planned:
    module = planned.name.removesuffix(".weight")
    before, order = planned.change, row_order(module, config)
    return replace(
        planned,
        name=f"{gguf_name(module)}.weight",
        dtype=dtype if len(planned.shape) > 1 else torch.float32,
        change=lambda tensor: order(before(tensor)),
    )
