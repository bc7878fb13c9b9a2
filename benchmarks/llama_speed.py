"""Our engine's tokens a second against llama.cpp's own: the same GGUF file, threads and batch, in turn, in one process.

    python -m benchmarks.llama_speed --shape small --kinds q4_k_m,q8_0
    python -m benchmarks.llama_speed --shape 1b --kinds q4_k_m,q8_0 --threads 2

The binary ``llama-bench`` is not in llama-cpp-python's wheel. Where one is given (``--llama-bench PATH``) it is run
beside; what is always measured is a stand-in that does what its source does (tools/llama-bench/llama-bench.cpp,
``test_prompt`` and ``test_gen``): ``llama_decode`` of random tokens from ``llama_batch_get_one``, prompts in batches,
answers one token at a time, nothing sampled and nothing detokenised. Ours is a whole reply: segments in, sampled ids
out, greedy. ``ratio``: ours to the stand-in, the median of rounds that take turns. On a busy machine --threads 1 with
--clock cpu counts the seconds of this process alone. Weights are random, which changes no speed; files are kept in
--keep FOLDER.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Report, spread
from gpt4video_cli.language.engine import GenerationStats, SamplingOptions, TokenSegment
from gpt4video_cli.language.llama_engine import CHUNK, LlamaEngine
from gpt4video_cli.language.llama_library import library, physical_cores
from gpt4video_cli.language.llama_options import LlamaOptions
from gpt4video_cli.model.random_model import write_random_model

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
SHAPES = {  # width, layers, heads, key/value heads, MLP width, vocabulary
    "tiny": (256, 4, 4, 4, 768, 1024),
    "small": (1024, 8, 16, 16, 2816, 8192),
    "1b": (2048, 22, 32, 4, 5632, 32000),  # TinyLlama-1.1B
    "7b": (4096, 32, 32, 32, 11008, 32000),  # LLaMA-7B
}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--kinds", default="q4_k_m,q8_0")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of the answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--keep", type=Path, help="folder for the files, which are used again")
    parser.add_argument("--llama-bench", help="path of llama.cpp's llama-bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = options.keep or Path(scratch)
        context = options.prompt + options.answer + 64
        folder = write_shape(place / f"{options.shape}-{context}", SHAPES[options.shape], context=context)
        report = Report("llama_speed")
        for kind in options.kinds.split(","):
            file = folder / f"model-{kind}.gguf"
            if not file.exists():
                from gpt4video_cli.weights.gguf_export import export_gguf

                export_gguf(folder / "language", file, kind)
            measure(report, file, folder / "language", options)
            if options.llama_bench:
                sizes = ["-p", str(options.prompt), "-n", str(options.answer), "-t", str(options.threads)]
                subprocess.run([options.llama_bench, "-m", str(file), *sizes, "-r", str(options.rounds)], check=True)
        report.finish()


def write_shape(folder: Path, shape: tuple[int, ...], *, context: int) -> Path:
    """A model folder with a random LLaMA of this shape in 16 bits."""
    language = folder / "language"
    if (language / "config.json").exists():
        return folder
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    width, layers, heads, key_heads, mlp, vocabulary = shape
    write_random_model(folder, name=folder.name)
    tokenizer = {file: file.read_bytes() for file in language.glob("tokenizer*")}
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    try:
        LlamaForCausalLM(config).save_pretrained(language)
    finally:
        torch.set_default_dtype(torch.float32)
    for file, content in tokenizer.items():
        file.write_bytes(content)
    return folder


def measure(report: Report, file: Path, language: Path, options: argparse.Namespace) -> None:
    """One file: rounds of ours and of the stand-in take turns, so that what else the machine does hits both."""
    llama_options = LlamaOptions(threads=options.threads)
    engine = LlamaEngine.load(file, language, options=llama_options)
    engine.end_ids = frozenset()  # an answer shall not end early
    clock = CLOCKS[options.clock]
    stand_in = StandIn(
        engine._model.pointer,
        llama_options.flash(file.stem.partition("-")[2]),
        options.threads,
        options.prompt + options.answer,
        clock,
    )
    rng = random.Random(0)
    rates: dict[str, list[tuple[float, float]]] = {"prefill": [], "decode": []}
    for round_ in range(options.rounds + 1):
        ids = tuple(rng.randrange(3, 300) for _ in range(options.prompt))
        if round_ % 2:
            theirs = stand_in.once(list(ids), options.answer)
        ours = ours_once(engine, ids, options.answer, clock)
        if round_ % 2 == 0:
            theirs = stand_in.once(list(ids), options.answer)
        if round_ == 0:  # the first touches the file's pages
            continue
        for phase, mine, bare in zip(rates, ours, theirs, strict=True):
            rates[phase].append((mine, bare))
    for phase, pairs in rates.items():
        case = f"{options.shape} {file.stem.removeprefix('model-')}, {phase}"
        for way, rates_of_way in zip(("ours", "stand-in"), zip(*pairs, strict=True), strict=True):
            report.row(case, way, **{"tokens/s": spread(rates_of_way)})
        report.ratio(case, "ours", "stand-in", [a / b for a, b in pairs], f"tokens a second, {options.clock} time")
    stand_in.close()
    engine.close()


def ours_once(engine: LlamaEngine, ids: tuple[int, ...], answer: int, clock: Clock) -> tuple[float, float]:
    """Tokens a second of a prompt, and of an answer with greedy sampling."""
    sampling = SamplingOptions(max_tokens=answer + 1)  # the first token comes with the prompt
    cache, stats = engine.new_cache(), GenerationStats()
    began = clock()
    tokens = engine.generate([TokenSegment(ids)], sampling, cache=cache, stats=stats)
    next(tokens)
    middle = clock()
    count = sum(1 for _ in tokens)
    return len(ids) / (middle - began), count / (clock() - middle)


class StandIn:
    """llama-bench's inner loops on the same weights in memory, in a context of its own with our engine's settings.

    Loaded twice, they lie in other pages, which alone moved the ratio by 3 %.
    """

    def __init__(self, model: Any, flash: str, threads: int, length: int, clock: Clock) -> None:
        self._clock = clock
        self._llama = llama = library()
        wanted = llama.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = length, CHUNK, CHUNK
        wanted.n_threads = wanted.n_threads_batch = threads
        wanted.type_k = wanted.type_v = llama.GGML_TYPE_F16
        wanted.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[flash]
        self._context = llama.llama_init_from_model(model, wanted)
        self._memory = llama.llama_get_memory(self._context)

    def once(self, ids: list[int], answer: int) -> tuple[float, float]:
        """Tokens a second of a prompt in batches, then of ``answer`` single tokens."""
        llama = self._llama
        llama.llama_memory_clear(self._memory, False)
        began = self._clock()
        for at in range(0, len(ids), CHUNK):
            self._decode(ids[at : at + CHUNK])
        llama.llama_synchronize(self._context)
        middle = self._clock()
        for number in range(answer):
            self._decode([3 + number])
            llama.llama_synchronize(self._context)
        return len(ids) / (middle - began), answer / (self._clock() - middle)

    def _decode(self, ids: list[int]) -> None:
        tokens: Any = (ctypes.c_int32 * len(ids))(*ids)
        if self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(tokens, len(ids))):
            raise RuntimeError("llama_decode failed")

    def close(self) -> None:
        """Free the context."""
        self._llama.llama_free(self._context)


if __name__ == "__main__":
    main()
