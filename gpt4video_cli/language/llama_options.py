"""How llama.cpp shall run a model; nothing of it is imported here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from gpt4video_cli.errors import UsageError

if TYPE_CHECKING:
    from gpt4video_cli.language.gguf_header import GgufHeader

KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
"""Bytes of one number in the key/value cache. q8_0: 32 numbers of 8 bits share a scale of 16."""
CONVERSATIONS = 16
"""Conversations whose keys and values are kept at the same time, as far as there is room."""
_CHEAP_CACHE = 32_000_000
"""Bytes; filling them with zeros takes 10 ms."""
SWITCHES = ("auto", "on", "off")
EXACT_KINDS = ("f32", "bf16", "f16")
"""Kinds of weights that are not quantised, the most exact first."""


@dataclass(frozen=True)
class LlamaOptions:
    """``threads`` compute single tokens, ``batch_threads`` prompts; 0: one for each physical core. ``gpu_layers``: how
    many layers lie on a GPU; -1: all of them where llama.cpp was built for one. ``flash_attention``: auto (off for
    weights that are not quantised, see ``flash``), on, off. ``kv_type`` of the cached keys and values: auto (f32 for
    weights in float32, else f16), f32, f16 or q8_0. ``mmap``: weights are mapped from their file, not copied."""

    threads: int = 0
    batch_threads: int = 0
    gpu_layers: int = -1
    flash_attention: str = "auto"
    kv_type: str = "auto"
    mmap: bool = True

    def __post_init__(self) -> None:
        for name, value in (("--threads", self.threads), ("batch_threads", self.batch_threads)):
            if not 0 <= value <= 512:  # GGML_MAX_N_THREADS
                raise UsageError(f"{name} is {value}; it must be between 1 and 512, or 0 for one for each core")
        if self.gpu_layers < -1:
            raise UsageError(f"--gpu-layers is {self.gpu_layers}; it must be 0 or more, or -1 for all")
        if self.flash_attention not in SWITCHES:
            raise UsageError(f"--flash-attention is {self.flash_attention!r}; it must be {', '.join(SWITCHES)}")
        if self.kv_type not in ("auto", *KV_BYTES):
            raise UsageError(f"--kv-type is {self.kv_type!r}; it must be auto, {', '.join(KV_BYTES)}")
        if self.kv_type == "q8_0" and self.flash_attention == "off":
            raise UsageError("--kv-type q8_0 and --flash-attention off contradict each other: only the former reads it")

    def changed(self) -> list[str]:
        """The command line's names of the options that are not as by default."""
        return [
            f"--{field.name.replace('_', '-')}" for field in fields(self) if getattr(self, field.name) != field.default
        ]

    def cache_type(self, kind: str) -> str:
        """``kv_type`` for a model whose weights are of this kind (``f16``, ``q4_k_m``)."""
        return self.kv_type if self.kv_type != "auto" else "f32" if kind == "f32" else "f16"

    def cache(self, header: GgufHeader, kind: str, length: int) -> tuple[int, int]:
        """Positions that the key/value cache has for conversations of ``length`` positions each, and its bytes.

        Enough for one whole conversation, which others must make room for; for as many more as cost next to nothing.
        """
        position = 2 * header.layers * header.key_value_width * KV_BYTES[self.cache_type(kind)]
        whole = max(1, min(CONVERSATIONS, int(_CHEAP_CACHE / (position * length))))
        return whole * length, int(position * whole * length)

    def flash(self, kind: str) -> str:
        """``flash_attention`` for a model whose weights are of this kind: on, off, or auto for llama.cpp to choose.

        llama.cpp's flash attention adds values up in float16. On the bundled model's logits (up to 14) it differs from
        PyTorch by 6e-3 with float32 weights, where ordinary attention differs by 7e-6, and by 8e-3 instead of 2e-3 with
        float16; it makes prompts of 1,024 tokens 6 to 9 % faster (8 layers 1,024 wide, one thread) and answers no
        slower. So what is not quantised goes without.
        """
        if self.flash_attention == "auto" and kind in EXACT_KINDS and self.kv_type != "q8_0":
            return "off"
        return self.flash_attention


DEFAULTS = LlamaOptions()
