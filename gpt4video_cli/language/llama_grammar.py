"""Constrained decoding in llama.cpp: of the next tokens only those stay that continue a document of a JSON schema.

V: size of the vocabulary.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from gpt4video_cli.errors import AnswerError, UsageError
from gpt4video_cli.language.json_grammar import grammar_of
from gpt4video_cli.language.llama_context import LlamaModel
from gpt4video_cli.language.llama_library import library, running

if TYPE_CHECKING:
    import numpy as np


class LlamaGrammar:
    """The grammar of one reply, which follows its tokens."""

    def __init__(self, schema: str, model: LlamaModel) -> None:
        """``schema``: as ``json_schema.read_schema`` gives it. Raises ``UsageError`` where it has no grammar."""
        import numpy as np

        self._llama = llama = library()
        self._model = model  # its vocabulary is used
        with running():
            grammar = llama.llama_sampler_init_grammar(
                llama.llama_model_get_vocab(model.pointer), grammar_of(schema).encode(), b"root"
            )
        if not grammar:
            raise UsageError("--schema: llama.cpp cannot use the schema as a grammar")
        self._grammar: Any = grammar
        self._free = weakref.finalize(self, llama.llama_sampler_free, grammar)
        self._rows = np.zeros(model.vocabulary, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])

    def next_token(self, logits: np.ndarray, chain: Any) -> int:
        """The id that the samplers of ``chain`` draw among those that the grammar allows; both have seen it then.

        ``logits`` float32 [V]. Raises ``AnswerError`` where nothing is allowed: llama.cpp would end the process.
        """
        import ctypes

        import numpy as np

        llama, rows = self._llama, self._rows
        rows["id"], rows["logit"], rows["p"] = np.arange(len(rows)), logits, 0
        data = ctypes.cast(rows.ctypes.data, ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data=data, size=len(rows), selected=-1, sorted=False)
        llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
        if bool(np.isneginf(rows["logit"]).all()):
            raise AnswerError("the model's vocabulary has no token that goes on with the JSON which --schema asks for")
        llama.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        llama.llama_sampler_accept(self._grammar, token)
        llama.llama_sampler_accept(chain, token)
        return token

    def close(self) -> None:
        """Free it now."""
        self._free()
