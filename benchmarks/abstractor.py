"""The abstractor at the 7B model's size against its formulas as they stand, and the attention in it by itself.

    python -m benchmarks.abstractor [--rounds 3] [--quick]

1,024 wide, 16 heads, 6 layers, 64 queries of each kind, 1 + 256 features of a frame; float32 on a CPU, bfloat16 on a
GPU where there is one. ``plain`` is eager torch over the concatenation with projections in every layer, ``SDPA`` the
same with torch's fused attention. That all give the same numbers is checked before anything is timed. The floor is what
cannot be avoided in the chosen layout: its FLOP, timed as one matrix product of this torch, and the bytes of weights,
features and results, each read or written once. A training step is one of stage 1 without the language model, which is
the same in both: forward, and backward to all weights of the abstractor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.plain_abstractor import eager_attention, plain_abstractor
from benchmarks.report import Report, spread, take_turns
from gpt4video_cli.model.abstractor import Abstractor, AbstractorConfig
from gpt4video_kernels.cross_attention import choose_way, cross_attention

TOKENS = 257
"""Features of a frame of ViT-L/14 at 224 pixels: 1 + P."""
LAYOUTS = {"paper": AbstractorConfig.paper, "mPLUG-Owl": AbstractorConfig.mplug_owl_video}
STEPS = ("plain", "SDPA", "ours")


def make_abstractor(config: AbstractorConfig, device: str, dtype: torch.dtype) -> Abstractor:
    """Random weights; those of the norms too, which a fresh one has at 1 and 0."""
    torch.manual_seed(0)
    abstractor = Abstractor(config).eval().requires_grad_(False)
    for layer in abstractor.layers:
        for norm in (layer.norm_queries, layer.norm_features, layer.norm_mlp):
            norm.weight.add_(0.1 * torch.randn_like(norm.weight))  # type: ignore[operator, union-attr, arg-type]
            norm.bias.add_(0.1 * torch.randn_like(norm.bias))  # type: ignore[operator, union-attr, arg-type]
    return abstractor.to(device, dtype)


def make_features(clips: int, frames: int, width: int, device: str, dtype: torch.dtype) -> Tensor:
    """[B, T, 1+P, D]"""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, frames, TOKENS, width, generator=generator).to(device, dtype)


def ways_of(abstractor: Abstractor, features: Tensor) -> dict[str, Callable[[], Tensor]]:
    return {
        "plain": lambda: plain_abstractor(abstractor, features),
        "SDPA": lambda: plain_abstractor(abstractor, features, F.scaled_dot_product_attention),
        "ours": lambda: abstractor(features),
    }


def check_equal(case: str, found: dict[str, Tensor], exact: Tensor, dtype: torch.dtype) -> dict[str, float]:
    """The largest errors as parts of the largest number. Half precision may not lose more than the plain form does."""
    errors = {name: float((value.double() - exact).abs().max() / exact.abs().max()) for name, value in found.items()}
    allowed = 1e-5 if dtype == torch.float32 else 1.5 * errors["plain"]
    for name, error in errors.items():
        if not error <= allowed:
            raise SystemExit(f"{case}: {name} is off by {error:.1e}, {allowed:.1e} is allowed")
    return errors


def floor_of(config: AbstractorConfig, frames: int) -> tuple[float, float]:
    """FLOP and numbers moved for one clip."""
    features, queries, width = frames * TOKENS, 2 * config.queries, config.width
    own = queries if config.joint_queries else config.queries
    projections = features * 2 * width * width + queries * (4 * width * width + 3 * width * config.mlp_width)
    attention = 2 * queries * (features + own) * width
    weights = config.layers * (4 * width * width + 3 * width * config.mlp_width)
    outputs = config.queries * config.output_width
    last = width * config.output_width * (1 if config.shared_projection else 2)
    flop = 2 * (config.layers * (projections + attention) + config.queries * last)
    return flop, weights + last + features * width + outputs


def measure_forward(
    report: Report, layout: str, frames: int, *, sizes: dict[str, int], rounds: int, device: str
) -> None:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    config = LAYOUTS[layout](**sizes)
    case = f"{layout}, T={frames}, {device} {str(dtype).removeprefix('torch.')}"
    abstractor = make_abstractor(config, device, dtype)
    features = make_features(1, frames, config.width, device, dtype)
    ways = ways_of(abstractor, features)
    with torch.inference_mode():
        found = {name: way() for name, way in ways.items()}
        exact = found["plain"]
        if dtype != torch.float32:
            exact = plain_abstractor(make_abstractor(config, device, dtype).float(), features.float())
        errors = check_equal(case, found, exact, dtype)
        flop, numbers = floor_of(config, frames)
        # As wide as the widest product in the abstractor: all layers' keys and values.
        left, right = features[0].flatten(0, 1), torch.randn(config.width, 12 * config.width).to(device, dtype)
        product = 2 * left.shape[0] * right.numel()
        timed = {**ways, "product": lambda: left @ right}
        times = take_turns(timed, rounds=rounds, warm=0 if device == "cpu" else 2, synchronise=waits(device))
        speed = product / min(getattr(times.pop("product"), clock_of(device)))
    report.times(case, times, ours="ours", clock=clock_of(device))
    for name, error in errors.items():
        report.row(case, name, **{"error against plain" if dtype == torch.float32 else "error": error})
    gflop, megabytes = round(flop / 1e9, 1), round(numbers * features.element_size() / 1e6, 1)
    report.row(case, "floor", **{f"{clock_of(device)} s": spread([flop / speed]), "GFLOP": gflop, "MB": megabytes})


def measure_attention(
    report: Report, frames: int, *, groups: int, sizes: dict[str, int], rounds: int, device: str
) -> None:
    """One layer's attention with all ways that can run here. Keys lie as the abstractor's one product leaves them."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    config = AbstractorConfig.paper(**sizes)
    features, queries, heads = frames * TOKENS, 2 * config.queries, config.heads
    case = f"attention, T={frames}, {groups} group{'s' * (groups > 1)}, {device} {str(dtype).removeprefix('torch.')}"
    torch.manual_seed(0)

    def drawn(rows: int, times: int) -> tuple[Tensor, ...]:
        together = torch.randn(1, rows, times, heads, config.width // heads).to(device, dtype)
        return together.permute(2, 0, 3, 1, 4).unbind(0)

    # One buffer has room for both segments: the product wrote the features' part, each layer writes its queries' part.
    buffers = drawn(features + queries, 2 * config.layers)[:2]
    k_features, v_features = (buffer[:, :, :features] for buffer in buffers)
    q, k_queries, v_queries = drawn(queries, 3)
    inputs = (q, k_features, v_features, k_queries, v_queries)
    group = torch.arange(queries, device=device) // (queries // groups)
    allowed = torch.ones(queries, features + queries, dtype=torch.bool, device=device)
    allowed[:, features:] = group[:, None] == group

    def in_buffer() -> Tensor:
        for buffer, own in zip(buffers, (k_queries, v_queries), strict=True):
            buffer[:, :, features:] = own
        return F.scaled_dot_product_attention(q, *buffers, attn_mask=allowed if groups > 1 else None)

    def apart(attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        found = []
        for own in torch.arange(queries).chunk(groups):
            rows = slice(int(own[0]), int(own[-1]) + 1)
            keys = torch.cat([k_features, k_queries[:, :, rows]], dim=2)
            found.append(attention(q[:, :, rows], keys, torch.cat([v_features, v_queries[:, :, rows]], dim=2)))
        return torch.cat(found, dim=2)

    ours = choose_way(q, features)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: apart(eager_attention),
        "SDPA": lambda: apart(F.scaled_dot_product_attention),
        "one buffer": in_buffer,
        ours: lambda: cross_attention(*inputs, None, groups, ours),
    }
    with torch.inference_mode():
        exact = cross_attention(*(t.double() for t in inputs), None, groups, "joined")
        check_equal(case, {name: way() for name, way in ways.items()}, exact, dtype)
        times = take_turns(ways, rounds=rounds, synchronise=waits(device))
    report.times(case, times, ours=ours, clock=clock_of(device))


def training_step(way: str, clips: int, sizes: dict[str, int], device: str) -> Callable[[], Tensor]:
    """Forward and backward of what this project trains; the function returns the embeddings."""
    config = AbstractorConfig.trained_here(**{"width": 1024, "output_width": 4096, **sizes})
    abstractor = make_abstractor(config, device, torch.float32).train().requires_grad_(True)
    features = make_features(clips, 4, config.width, device, torch.float32)
    forward = ways_of(abstractor, features)[way]
    goal = make_features(1, 1, config.output_width, device, torch.float32)[:, 0, : config.queries]

    def step() -> Tensor:
        abstractor.zero_grad()
        # On a GPU as it is trained there by default: weights in float32, products in bfloat16.
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            embeddings = forward()
        F.mse_loss(embeddings.float(), goal.expand(clips, -1, -1)).backward()
        return embeddings.detach()

    return step


def measure_training(report: Report, clips: int, *, sizes: dict[str, int], rounds: int, device: str) -> None:
    case = f"training step, {clips} clips, T=4, {device}"
    steps = {way: training_step(way, clips, sizes, device) for way in STEPS}
    found = {way: step() for way, step in steps.items()}
    check_equal(case, found, found["plain"].double(), torch.float32 if device == "cpu" else torch.bfloat16)
    times = take_turns(steps, rounds=rounds, warm=0 if device == "cpu" else 2, synchronise=waits(device))
    report.times(case, times, ours="ours", clock=clock_of(device))
    if device == "cpu" and sys.platform != "linux":
        report.skip(f"{case}: memory", "the highest is read from /proc")
        return
    peaks = {}
    for way in STEPS:
        if device == "cpu":  # what a process once had it keeps: each in one of its own
            words = [sys.executable, "-m", "benchmarks.abstractor", "--peak", way, "--clips", str(clips)]
            done = subprocess.run([*words, "--sizes", json.dumps(sizes)], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            peaks[way] = float(done.stdout)
        else:
            torch.cuda.reset_peak_memory_stats()
            steps[way]()
            peaks[way] = torch.cuda.max_memory_allocated() / 1e6
        report.row(case, way, **{"peak MB": round(peaks[way], 1)})
    for way in STEPS[:-1]:
        report.ratio(case, "ours", way, [peaks[way] / peaks["ours"]], "peak memory")


def peak_of(way: str, clips: int, sizes: dict[str, int]) -> float:
    """Megabytes that a training step needs at most, beyond what this process holds before it (Linux)."""
    step = training_step(way, clips, sizes, "cpu")
    training_step(way, 1, {"width": 64, "output_width": 16, "heads": 1, "mlp_width": 64}, "cpu")()  # what torch sets up
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(what: str) -> float:
    """Megabytes of this process's memory: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e6


def clock_of(device: str) -> str:
    """On a CPU its own seconds: other programs slow those of the clock."""
    return "cpu" if device == "cpu" else "wall"


def waits(device: str) -> Callable[[], object] | None:
    return torch.cuda.synchronize if device == "cuda" else None


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a small abstractor, one round")
    parser.add_argument("--peak", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--clips", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=json.loads, default={}, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(peak_of(options.peak, options.clips, options.sizes))
        return
    sizes = {"width": 128, "output_width": 64, "heads": 4, "mlp_width": 256} if options.quick else {}
    rounds = 1 if options.quick else options.rounds
    report = Report("abstractor", quick=options.quick)
    for device in ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",):
        measure = partial(measure_forward, report, sizes=sizes, device=device)
        for frames in (4, 8) if options.quick else (4, 8, 32):
            many = 30 if device == "cuda" else min(rounds, 2) if frames == 32 else rounds
            measure("paper", frames, rounds=many)
        measure("mPLUG-Owl", 8, rounds=30 if device == "cuda" else rounds)
        for frames, groups in ((4, 1), (4, 2)) if options.quick else ((4, 1), (4, 2), (32, 1), (32, 2)):
            many = 1 if options.quick else 9 if device == "cpu" else 50
            measure_attention(report, frames, groups=groups, sizes=sizes, rounds=many, device=device)
        measure_training(report, options.clips, sizes=sizes, rounds=min(rounds, 2), device=device)
    if not torch.cuda.is_available():
        report.skip(
            "bfloat16 on a GPU, with the Triton kernels", "no GPU here; they were only interpreted and compiled"
        )
    report.note(
        "In the paper's layout the plain form projects the features twice, once for each kind of query. In mPLUG-Owl's "
        "it has the same products to do as ours, and only norms, copies and the softmax can be saved."
    )
    report.note(f"torch used {torch.get_num_threads()} threads.")
    report.finish()


if __name__ == "__main__":
    main()
