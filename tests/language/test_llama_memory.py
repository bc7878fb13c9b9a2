"""A thousand turns and two hundred changes of adapters in one process take no more memory than a few."""

from __future__ import annotations

import gc
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gpt4video_cli.language.adapters import Adapter
from gpt4video_cli.language.engine import GenerationStats, Segment, TextSegment, TokenSegment
from gpt4video_cli.language.llama_engine import LlamaEngine
from gpt4video_cli.language.stream import stream_text
from tests.language.asking import GREEDY, SAMPLED, check_consistent, clip, prompt

TURNS, SWITCHES, WARM = 1000, 200, 100


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_thousand_turns_and_two_hundred_switches_keep_memory_flat(
    tiny_gguf: Path, tiny_adapter_gguf: Path, tiny_language_folder: Path
) -> None:
    engine = LlamaEngine.load(tiny_gguf, tiny_language_folder)
    rng = random.Random(0)
    conversations: list[tuple[list[Segment], object]] = []
    sizes = []
    for turn in range(TURNS):
        if turn % (TURNS // SWITCHES) == 0:
            engine.use_adapters([Adapter("a", tiny_adapter_gguf, scale)] if (scale := rng.random() - 0.3) > 0 else [])
        if not conversations or rng.random() < 0.2:  # a new one; of old ones at most 20 go on
            conversations = [*conversations[-19:], (prompt(), engine.new_cache())]
        history, cache = rng.choice(conversations)
        if len(history) > 12:
            del history[1:]
        if rng.random() < 0.3:
            history.append(clip(f"clip {turn}"))
        history.append(TextSegment(f"what is it {turn}?"))
        stats = GenerationStats()
        options = replace(SAMPLED if turn % 2 else GREEDY, seed=turn)
        _ = "".join(stream_text(engine, history, options, cache=cache, stats=stats))  # type: ignore[arg-type]
        check_consistent(cache)  # type: ignore[arg-type]
        history += [TokenSegment(tuple(stats.ids)), TextSegment("</s>", trusted=True)]
        if turn % 50 == 49:
            gc.collect()
            sizes.append(resident())
    print("resident MB after each 50 turns:", [round(size / 1e6, 1) for size in sizes])
    grown = sizes[-1] - sizes[WARM // 50 - 1]
    assert grown < 3_000_000, f"{grown} bytes in {TURNS - WARM} turns"
