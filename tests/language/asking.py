"""Prompts, clips and questions for the tests of both engines. Letters: n tokens of a segment, D width."""

from __future__ import annotations

import torch

from gpt4video_cli.language import prompt_units
from gpt4video_cli.language.engine import (
    EmbeddingSegment,
    Engine,
    GenerationStats,
    KeptCache,
    SamplingOptions,
    Segment,
    TextSegment,
)
from gpt4video_cli.language.llama_sequences import LlamaCache
from gpt4video_cli.language.torch_engine import TorchCache

GREEDY = SamplingOptions(max_tokens=12)
SAMPLED = SamplingOptions(max_tokens=12, temperature=1.1, top_p=0.95, top_k=60, repetition_penalty=1.2, seed=7)


def clip(key: str, n: int = 16, width: int = 64) -> EmbeddingSegment:
    """Embeddings [n, width] float32 that depend on ``key``; numpy, as the program gives them."""
    generator = torch.Generator().manual_seed(sum(key.encode()))
    return EmbeddingSegment(key, torch.randn(n, width, generator=generator).numpy())


def prompt(*text: str) -> list[Segment]:
    """A start token and texts."""
    return [TextSegment("<s>", trusted=True), *map(TextSegment, text)]


def length(engine: Engine, segments: list[Segment]) -> int:
    """Positions of a prompt."""
    return len(prompt_units.lay_out(engine, segments, 10**6)[0])


def ask(
    engine: Engine, segments: list[Segment], options: SamplingOptions = GREEDY, cache: KeptCache | None = None
) -> tuple[list[int], GenerationStats]:
    """Token ids of a reply; checks what must hold after every reply."""
    cache, stats = cache or engine.new_cache(), GenerationStats()
    ids = list(engine.generate(segments, options, cache=cache, stats=stats))
    assert stats.ids == ids and stats.new_tokens == len(ids)
    assert stats.prompt_tokens == stats.reused_tokens + stats.evaluated_tokens == length(engine, segments)
    check_consistent(cache)
    return ids, stats


def check_consistent(cache: KeptCache) -> None:
    """The cache holds as many positions as it names, in every layer."""
    if isinstance(cache, TorchCache):
        held = [cache.past.get_seq_length(layer) for layer in range(len(cache.past.layers))]
        assert set(held) <= {len(cache.units)} and (held or not cache.units)
    else:
        assert isinstance(cache, LlamaCache)
        if cache.sequence is None:
            assert not cache.units
        else:
            assert cache.sequences.context.length(cache.sequence) == len(cache.units)


def units_of(cache: KeptCache) -> list[prompt_units.Unit]:
    """What the positions of ``cache`` were computed from."""
    assert isinstance(cache, TorchCache | LlamaCache)
    return cache.units
