"""The next token, chosen by llama.cpp's samplers with the meaning that ``sampling.py`` gives the options.

The same order: repetition penalty, temperature, top-k, top-p, draw. What differs: another random number generator, so a
seed draws other tokens than in PyTorch; a seed counts modulo 2**32 - 1; of tokens with exactly the k-th highest logit
only as many stay as make k; top-p adds the probabilities from the likeliest down and not from the unlikeliest up, which
rounds differently.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from math import isnan
from typing import Any

from gpt4video_cli.errors import Gpt4VideoError
from gpt4video_cli.language.engine import SamplingOptions
from gpt4video_cli.language.llama_context import LlamaContext, LlamaModel
from gpt4video_cli.language.llama_grammar import LlamaGrammar
from gpt4video_cli.language.llama_library import library

_SEEDS = 2**32 - 1
"""llama.cpp takes 32 bits, and the highest number means a seed of its own."""


class LlamaSampler:
    """Chooses the tokens of one reply. ``history``: the token ids of the prompt, for the repetition penalty."""

    def __init__(
        self, options: SamplingOptions, history: Iterable[int], model: LlamaModel, *, context_length: int
    ) -> None:
        self._llama = llama = library()
        vocabulary = model.vocabulary
        self._grammar = None if options.schema is None else LlamaGrammar(options.schema, model)
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        self._chain: Any = chain
        self._free = weakref.finalize(self, llama.llama_sampler_free, chain)
        if options.repetition_penalty != 1:
            penalties = llama.llama_sampler_init_penalties(
                vocabulary, context_length, options.repetition_penalty, 0.0, 0.0
            )
            for id_ in history:
                llama.llama_sampler_accept(penalties, id_)
            llama.llama_sampler_chain_add(chain, penalties)
        self._greedy = options.temperature == 0 and options.repetition_penalty == 1
        if options.temperature == 0:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
            return
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(options.temperature))
        if 0 < options.top_k < vocabulary:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_k(options.top_k))
        if options.top_p < 1:
            llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_p(options.top_p, 1))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(options.seed % _SEEDS))

    def next_token(self, context: LlamaContext) -> int:
        """The id after what ``context`` evaluated last; it counts as seen from now on."""
        logits = context.logits()
        best = int(logits.argmax())  # the first that is not a number, if there is any
        if isnan(logits[best]):
            raise Gpt4VideoError(
                "the language model's scores are not numbers (NaN)",
                hint="its weights are damaged, or the number format is too narrow for it: try --kv-type f32",
            )
        if self._grammar is not None:
            return self._grammar.next_token(logits, self._chain)
        if self._greedy:  # llama.cpp would copy the whole vocabulary first
            return best
        return int(self._llama.llama_sampler_sample(self._chain, context.pointer, -1))

    def close(self) -> None:
        """Free it now."""
        self._free()
        if self._grammar is not None:
            self._grammar.close()
