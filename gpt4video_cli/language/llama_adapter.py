"""LoRA adapters of llama.cpp: read once, then in force, scaled or off without reading anything again.

llama.cpp takes any file whose tensors fit, one whose numbers are all zero as well. So each adapter must prove itself on
a probe prompt before it counts as loaded. V: size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import WeightsError
from gpt4video_cli.language.adapters import Adapter
from gpt4video_cli.language.llama_context import LlamaContext, LlamaModel
from gpt4video_cli.language.llama_library import library, reason, running

if TYPE_CHECKING:
    import numpy as np

PROBE_TOKENS = 8
"""Ids of the probe prompt, spread over the vocabulary."""
_LEAST_CHANGE = 1e-6
"""Of a logit, relative to the largest one: float32 rounds to 6e-8."""

Probe = Callable[[], "np.ndarray"]
"""Logits float32 [V] after the probe prompt, with what is in force now; a copy."""


class LlamaAdapters:
    """The adapters that were loaded for one model. They are freed with it."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._pointers: dict[Path, Any] = {}
        self._plain: np.ndarray | None = None

    def put_in_force(self, adapters: Sequence[Adapter], context: LlamaContext, probe: Probe) -> None:
        """Have exactly ``adapters`` in force in ``context``; those of scale 0 are left out.

        Raises ``WeightsError`` for a file that is no adapter of this model, or changes nothing; what was in force
        before is then off.
        """
        context.use_adapters([])
        chosen = [adapter for adapter in adapters if adapter.scale != 0]
        for adapter in chosen:
            if adapter.path not in self._pointers:
                self._pointers[adapter.path] = self._load(adapter.path, context, probe)
        context.use_adapters([(self._pointers[adapter.path], adapter.scale) for adapter in chosen])

    def _load(self, path: Path, context: LlamaContext, probe: Probe) -> Any:
        import numpy as np

        llama = library()
        if not path.is_file():
            raise WeightsError(f"{path}: no such adapter file")
        if self._plain is None:
            self._plain = probe()
        with running():
            pointer = llama.llama_adapter_lora_init(self._model.pointer, str(path).encode())
            if not pointer:
                raise WeightsError(
                    f"{path}: llama.cpp cannot load the adapter: {reason()}",
                    hint="it is damaged, or was trained for another language model",
                )
        context.use_adapters([(pointer, 1.0)])
        try:
            with_it = probe()
        finally:
            context.use_adapters([])
        if not np.isfinite(with_it).all():
            llama.llama_adapter_lora_free(pointer)
            raise WeightsError(f"{path}: with the adapter the model's scores are not numbers", hint="it is damaged")
        if np.abs(with_it - self._plain).max() <= _LEAST_CHANGE * np.abs(self._plain).max():
            llama.llama_adapter_lora_free(pointer)
            raise WeightsError(
                f"{path}: the adapter changes nothing: the scores after a probe prompt stay the same",
                hint="it was saved before training",
            )
        return pointer
