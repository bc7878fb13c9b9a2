"""Compiles every Triton kernel to machine code for GPUs that need not be here, and checks that it fits into them."""

from __future__ import annotations

import time
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gpt4video_kernels import cross_attention_kernels as kernels
from gpt4video_kernels.cross_attention_triton import Plan, choose_plan

SHARED = 99 * 1024
"""Bytes of shared memory that a program may have on capabilities 8.6 and 8.9, the least of those taken."""
KERNELS: tuple[tuple[Any, dict[str, bool]], ...] = (
    (kernels.forward_kernel, {}),
    (kernels.merge_kernel, {}),
    (kernels.queries_backward_kernel, {}),
    (kernels.keys_backward_kernel, {"OWN": False}),
    (kernels.keys_backward_kernel, {"OWN": True}),
)
FLOAT32 = {"partial", "partial_sums", "log_sum_exp", "delta", "dq"}


def kind(name: str, dtype: str) -> str:
    """The type of a kernel's argument."""
    if name.isupper():
        return "constexpr"
    if name in {"scale", "plain_scale"}:
        return "fp32"
    if name == "mask":
        return "*u8"
    if name in FLOAT32:
        return "*fp32"
    if name in {"q", "kf", "vf", "ko", "vo", "k", "v", "do", "dk", "dv", "out"}:
        return f"*{dtype}"
    return "i32"


def compile_kernel(kernel: Any, constants: dict[str, Any], dtype: str, capability: int, plan: Plan) -> Any:
    signature = {name: kind(name, dtype) for name in kernel.arg_names}
    # As the launcher would say of aligned tensors: it lets loads be wide.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, of) in enumerate(signature.items())
        if name != "mask" and (of.startswith("*") or (of == "i32" and name[-2:] in {"_b", "_h", "_n", "_s"}))
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": plan.warps, "num_stages": 1 if "backward" in kernel.__name__ else plan.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def main() -> None:
    for capability in (80, 90):
        for dtype, element, width in (("bf16", 2, 64), ("fp16", 2, 128), ("fp32", 4, 80)):
            plan = choose_plan(128, 32 * 257, 16, width, element, 108)
            for kernel, more in KERNELS:
                began = time.perf_counter()
                everything = {
                    "D": width,
                    "BLOCK_Q": plan.block_q,
                    "BLOCK_K": plan.block_k,
                    "BLOCK_D": plan.block_d,
                    "HAS_MASK": True,
                    "PRECISION": "tf32x3" if dtype == "fp32" else "tf32",
                    **more,
                }
                constants = {name: value for name, value in everything.items() if name in kernel.arg_names}
                found = compile_kernel(kernel, constants, dtype, capability, plan)
                shared, seconds = found.metadata.shared, time.perf_counter() - began
                print(f"{capability} {dtype} {width} {kernel.__name__} {more} {shared} bytes, {seconds:.1f} s")
                assert found.asm["cubin"], "no machine code"
                assert shared <= SHARED, f"{shared} bytes of shared memory"
                assert "mma" in found.asm["ptx"] or kernel is kernels.merge_kernel, "no tensor cores"


if __name__ == "__main__":
    main()
