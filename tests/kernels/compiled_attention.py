"""Compile fused attention in every configuration, for the GPU that the argument names (80 or 90); a script."""

from __future__ import annotations

import sys

import triton
from compiled import registers_and_spills
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from jowa.kernels import attention_triton as attention
from jowa.kernels.attention import MIX_1, MIX_2, STEP

SHARED = {80: 163 * 1024, 90: 227 * 1024}
KINDS = {"spread": "*fp32", "delta": "*fp32", "streams": "*i32", "seed": "*i64"}
KINDS |= dict.fromkeys(("scale", "inflate", "plain_scale"), "fp32")
KINDS |= dict.fromkeys(("heads", "length", "threshold"), "i32")


def source(kernel: triton.runtime.JITFunction, dtype: str, constants: dict[str, int]) -> ASTSource:
    """With pointers and strides that 16 divides, as training's: only such loads run ahead, through shared memory."""
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        stride = name[1:2] == "_"
        types[name] = "constexpr" if name in constants else "i32" if stride else KINDS.get(name, f"*{dtype}")
        if stride or types[name].startswith("*"):
            attributes[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, types, constants, attributes)


def check(name: str, compiled: ASTSource, capability: int, warps: int, stages: int) -> None:
    options = {"num_warps": warps, "num_stages": stages}
    done = triton.compile(compiled, target=GPUTarget("cuda", capability, 32), options=options)
    shared = done.metadata.shared
    assert shared <= SHARED[capability], f"{name} wants {shared} bytes of shared memory"
    registers, spilled = registers_and_spills(done.asm["ptx"])
    assert spilled == 0, f"{name} spills {spilled} bytes"
    print(f"compiled: {name} for sm_{capability}, {registers} registers, {shared} bytes shared", flush=True)


if __name__ == "__main__":
    capability = int(sys.argv[1])
    numbers = {"STEP": STEP, "MIX_1": MIX_1, "MIX_2": MIX_2}
    kernels = (
        ("forward", attention.forward_kernel, attention.FORWARD),
        ("backward", attention.backward_kernel, attention.BACKWARD),
    )
    for dropout in (False, True):
        words = " with dropout" if dropout else ""
        for kind, kernel, table in kernels:
            for (width, size), config in table.items():
                constants = numbers | {"D": size, "BLOCK": config.block, "INNER": config.inner, "DROPOUT": dropout}
                for dtype in ("fp32",) if width == 4 else ("bf16", "fp16"):
                    name = f"{kind} {dtype} {size}{words}"
                    check(name, source(kernel, dtype, constants), capability, config.warps, config.stages)
        for dtype in ("bf16", "fp16", "fp32"):
            constants = numbers | {"D": 128, "BLOCK": attention.ROWS_BLOCK, "DROPOUT": dropout}
            compiled = source(attention.rows_kernel, dtype, constants)
            check(f"rows {dtype} 128{words}", compiled, capability, attention.ROWS_WARPS, 3)
    # Triton makes constants of arguments that are 1.
    one = numbers | {"D": 64, "DROPOUT": True, "length": 1, "heads": 1}
    for kind, kernel, table in kernels:
        config = table[2, 64]
        compiled = source(kernel, "bf16", one | {"BLOCK": config.block, "INNER": config.inner})
        check(f"{kind} of one token", compiled, capability, config.warps, config.stages)
    compiled = source(attention.rows_kernel, "bf16", one | {"BLOCK": attention.ROWS_BLOCK})
    check("rows of one token", compiled, capability, attention.ROWS_WARPS, 3)
