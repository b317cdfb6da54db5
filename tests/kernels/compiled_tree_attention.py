"""Compile every configuration of tree attention's kernels that a launch may pick; a script, as compiled.py is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from compiled import Kernel, compile_for_all
from triton.compiler import ASTSource

from jowa.kernels import tree_attention_triton as tree

DTYPES = {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}
FLOATS = ("queries", "keys", "values", "mixed_out", "mixed_in", "out")
INTEGERS = ("lengths", "table", "counts")
COUNTS = ("H", "M", "MQ", "Q", "T", "J", "tiles", "pages", "splits")
HEAD = 64


@dataclass(frozen=True)
class Specialised(Kernel):
    """A kernel as a launch compiles it when pointers and strides divide by 16, as the model's own do."""

    def source(self) -> ASTSource:
        plain = super().source()
        at = {
            (index,): [["tt.divisibility", 16]]
            for index, name in enumerate(self.function.arg_names)
            if name not in (*COUNTS, "scale") and name not in self.constants
        }
        return ASTSource(self.function, plain.signature, self.constants, at)


def kernels(dtype: str) -> Iterator[Kernel]:
    """Both kernels, both tiles, for a dtype: with any strides and with the model's."""
    for function, constants in ((tree.context_kernel, {}), (tree.rows_kernel, {"PAGE": tree.PAGE})):
        types = dict.fromkeys(function.arg_names, "i32") | {"scale": "fp32"}
        types |= dict.fromkeys(FLOATS, DTYPES[dtype]) | dict.fromkeys(("spread_in", "spread_out"), "*fp32")
        types |= dict.fromkeys(INTEGERS, "*i32")
        for tile, keys, warps in (tree.tiling(getattr(torch, dtype), queries) for queries in (1, 37)):
            sizes = {"D": HEAD, "BLOCK_D": HEAD, "BLOCK_M": tile, "BLOCK_N": keys, **constants}
            sizes["PRECISION"] = "tf32x3" if dtype == "float32" else "ieee"
            name = f"tree_attention {function.__name__} of {tile} queries in {dtype}"
            kernel = Kernel(name, function, types, sizes, warps, tree.STAGES)
            yield kernel
            fields = {field: getattr(kernel, field) for field in kernel.__dataclass_fields__}
            yield replace(Specialised(**fields), name=f"{name} with aligned strides")


def of_other_heads() -> Iterator[Kernel]:
    """Head sizes are padded to a power of two from 16 on (``tiny`` has 32).  Both 16-bit types tile alike."""
    for size in (16, 32):
        for dtype in ("float32", "bfloat16"):
            for kernel in kernels(dtype):
                if isinstance(kernel, Specialised):
                    sizes = kernel.constants | {"D": size, "BLOCK_D": size}
                    yield replace(kernel, name=f"{kernel.name}, heads of {size}", constants=sizes)


def of_ones() -> Iterator[Kernel]:
    """A launch makes constants of arguments that are 1, here all that may be; the expressions must still compile."""
    for kernel in kernels("bfloat16"):
        if kernel.constants["BLOCK_M"] == 16 and not isinstance(kernel, Specialised):
            name = f"tree_attention {kernel.function.__name__} of ones"
            ones = dict.fromkeys(set(COUNTS) & set(kernel.function.arg_names), 1)
            yield replace(kernel, name=name, constants=kernel.constants | ones)


if __name__ == "__main__":
    for dtype in DTYPES:
        for kernel in kernels(dtype):
            compile_for_all(kernel)
    for kernel in (*of_ones(), *of_other_heads()):
        compile_for_all(kernel)
