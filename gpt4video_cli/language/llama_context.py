"""llama.cpp's model and context behind Python objects that free them, and its batches of tokens or of embeddings.

Letters: n positions of a batch, D width of the language model's embeddings, V size of its vocabulary.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import Gpt4VideoError, UsageError, WeightsError
from gpt4video_cli.language.llama_library import leaving, library, physical_cores, reason, running
from gpt4video_cli.language.llama_options import LlamaOptions

if TYPE_CHECKING:
    import numpy as np

_FLASH = {"auto": -1, "off": 0, "on": 1}  # enum llama_flash_attn_type
_ABORTED = 2


class LlamaModel:
    """Weights of a GGUF file, mapped or loaded. ``pointer`` is valid as long as this object is."""

    def __init__(self, path: Path, options: LlamaOptions) -> None:
        """Raises ``WeightsError`` with llama.cpp's reason, ``UsageError`` for GPU layers that it cannot have."""
        llama = library()
        if options.gpu_layers > 0 and not llama.llama_supports_gpu_offload():
            raise UsageError(
                f"--gpu-layers {options.gpu_layers}: the installed llama-cpp-python was built without GPU support",
                hint="install one that was built for this GPU, or leave the option out",
            )
        wanted = llama.llama_model_default_params()
        wanted.n_gpu_layers = options.gpu_layers
        wanted.load_mode = llama.LLAMA_LOAD_MODE_MMAP if options.mmap else llama.LLAMA_LOAD_MODE_NONE
        going_on = llama.llama_progress_callback(lambda *_: not leaving.is_set())
        wanted.progress_callback = going_on
        with running():
            pointer = llama.llama_model_load_from_file(str(path).encode(), wanted)
            if not pointer:
                raise WeightsError(
                    f"{path}: llama.cpp cannot load it: {reason()}",
                    hint="it is damaged or incomplete, or made for another version: make it again with gpt4video "
                    "models export",
                )
        self.path = path
        self.pointer: Any = pointer
        self._free = weakref.finalize(self, llama.llama_model_free, pointer)
        vocabulary = llama.llama_model_get_vocab(pointer)
        self.vocabulary = int(llama.llama_vocab_n_tokens(vocabulary))
        self.width = int(llama.llama_model_n_embd(pointer))
        self.trained_context = int(llama.llama_model_n_ctx_train(pointer))

    def close(self) -> None:
        """Free it now. No context may be open."""
        self._free()


class LlamaContext:
    """A key/value cache of ``cells`` positions that ``sequences`` conversations share, and what computes with it.

    ``chunk``: most positions that one call evaluates. Not for several threads at once.
    """

    def __init__(
        self, model: LlamaModel, options: LlamaOptions, *, kind: str, cells: int, chunk: int, sequences: int
    ) -> None:
        """``kind`` of the model's weights (``q8_0``): what options that are ``auto`` go by.

        Raises ``Gpt4VideoError`` with llama.cpp's reason: for the most part no memory for the cache.
        """
        import numpy as np

        self._llama = llama = library()
        self._model = model  # a context must not outlive its model
        self.chunk = chunk
        wanted = llama.llama_context_default_params()
        wanted.n_ctx = cells
        wanted.n_batch = wanted.n_ubatch = max(chunk, sequences)  # fewer than sequences end the process (assert)
        wanted.n_seq_max = sequences
        wanted.kv_unified = True  # any conversation may use any cell
        wanted.n_threads = options.threads or physical_cores()
        wanted.n_threads_batch = options.batch_threads or wanted.n_threads
        wanted.flash_attn_type = _FLASH[options.flash(kind)]
        cache_type = options.cache_type(kind)
        wanted.type_k = wanted.type_v = getattr(llama, f"GGML_TYPE_{cache_type.upper()}")
        wanted.no_perf = True
        with running():
            pointer = llama.llama_init_from_model(model.pointer, wanted)
            if not pointer:
                raise Gpt4VideoError(
                    f"llama.cpp cannot make a context of {cells} positions with {cache_type} keys and values: "
                    f"{reason()}",
                    hint="--context-length makes it smaller",
                )
        self.pointer: Any = pointer
        self._free = weakref.finalize(self, llama.llama_free, pointer)
        self._memory = llama.llama_get_memory(pointer)
        self._sequence = ctypes.c_int32(0)
        self._tokens = np.zeros(chunk, np.int32)
        self._positions = np.zeros(chunk, np.int32)
        self._counts = np.ones(chunk, np.int32)
        self._wanted = np.zeros(chunk, np.int8)  # 1 where logits are wanted
        self._owners = (ctypes.POINTER(ctypes.c_int32) * chunk)(*[ctypes.pointer(self._sequence)] * chunk)
        self._batch = llama.llama_batch(
            n_tokens=0,
            token=None,
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._owners,
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self._token_pointer = self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._no_tokens = ctypes.POINTER(ctypes.c_int32)()
        self._no_embeddings = ctypes.POINTER(ctypes.c_float)()
        self._stopped: BaseException | None = None

    def close(self) -> None:
        """Free it now."""
        self._free()

    def decode_tokens(
        self, ids: Sequence[int], *, sequence: int, first: int, wanted: bool, stop: Callable[[], bool] | None = None
    ) -> bool:
        """Evaluate at most ``chunk`` token ids as the positions from ``first`` on; ``wanted``: logits after the last.

        False where ``stop`` said so before the end: nothing of it is kept then. Raises ``Gpt4VideoError``.
        """
        self._tokens[: len(ids)] = ids
        self._batch.token, self._batch.embd = self._token_pointer, self._no_embeddings
        return self._decode(len(ids), sequence, first, wanted, stop)

    def decode_embeddings(
        self,
        embeddings: np.ndarray,
        *,
        sequence: int,
        first: int,
        wanted: bool,
        stop: Callable[[], bool] | None = None,
    ) -> bool:
        """``decode_tokens`` for video embeddings float32 [n, D], contiguous."""
        self._batch.token = self._no_tokens
        self._batch.embd = embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return self._decode(len(embeddings), sequence, first, wanted, stop)

    def _decode(self, n: int, sequence: int, first: int, wanted: bool, stop: Callable[[], bool] | None) -> bool:
        self._sequence.value = sequence
        self._batch.n_tokens = n
        self._positions[:n] = range(first, first + n) if n > 1 else first
        self._wanted[:n] = 0
        self._wanted[n - 1] = wanted
        if stop is None or n == 1:  # one token is soon done; asking at each step made it take 5 % longer
            code = self._llama.llama_decode(self.pointer, self._batch)
        else:
            code = self._decode_stoppably(stop)
        if code == 0:
            return True
        self.forget(sequence, first)
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            raise stopped
        if code == _ABORTED:
            return False
        raise Gpt4VideoError(f"llama.cpp failed to evaluate {n} positions (code {code}): {reason()}")

    def _decode_stoppably(self, stop: Callable[[], bool]) -> int:
        """Asks ``stop`` before each step of the computation (a layer has about 30), and lets Ctrl-C through."""

        def asked(_: Any) -> bool:
            try:
                return stop()
            except BaseException as error:  # an exception cannot pass through llama.cpp
                self._stopped = error
                return True

        callback = self._llama.ggml_abort_callback(asked)
        self._llama.llama_set_abort_callback(self.pointer, callback, None)
        try:
            return int(self._llama.llama_decode(self.pointer, self._batch))
        finally:
            self._llama.llama_set_abort_callback(self.pointer, self._llama.ggml_abort_callback(), None)

    def logits(self) -> np.ndarray:
        """Logits float32 [V] after the last position evaluated with ``wanted``: a view, valid until the next call."""
        import numpy as np

        pointer = self._llama.llama_get_logits_ith(self.pointer, -1)
        return np.ctypeslib.as_array(pointer, (self._model.vocabulary,))

    def forget(self, sequence: int, first: int = 0) -> None:
        """Drop a sequence's positions from ``first`` on. Harmless after ``close``."""
        if self._free.alive:
            self._llama.llama_memory_seq_rm(self._memory, sequence, first, -1)

    def length(self, sequence: int) -> int:
        """Positions that a sequence has."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def state(self, sequence: int) -> bytes:
        """Keys and values of a sequence, to be put back by ``restore``."""
        size = self._llama.llama_state_seq_get_size(self.pointer, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = self._llama.llama_state_seq_get_data(self.pointer, buffer, size, sequence)
        return bytes(memoryview(buffer)[:written])

    def restore(self, sequence: int, state: bytes) -> bool:
        """Put a state into an empty sequence; False where it is not this model's or finds no room."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        with running():
            return bool(self._llama.llama_state_seq_set_data(self.pointer, buffer, len(state), sequence))

    def use_adapters(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Have exactly these adapters (llama.cpp's pointers) in force, each with its scale."""
        count = len(adapters)
        pointers = (self._llama.llama_adapter_lora_p_ctypes * max(1, count))(*[pointer for pointer, _ in adapters])
        scales = (ctypes.c_float * max(1, count))(*[scale for _, scale in adapters])
        if self._llama.llama_set_adapters_lora(self.pointer, pointers, count, scales):
            raise Gpt4VideoError(f"llama.cpp cannot use the adapters: {reason()}")
