"""Compile the Triton kernels for GPUs that need not be there; a script, for the interpreter must be off."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from jowa.kernels import c51_loss_triton as c51
from jowa.kernels import linear_cross_entropy_triton as entropy
from jowa.kernels import vq_lookup_triton as vq
from jowa.kernels.c51_loss import MOST_ACTIONS, MOST_ATOMS

POINTER, INTEGER, REAL = "*fp32", "i32", "fp32"


@dataclass(frozen=True)
class Kernel:
    """A kernel at the sizes of the 150M preset."""

    name: str
    function: triton.runtime.JITFunction
    types: dict[str, str]
    constants: dict[str, int]
    warps: int
    stages: int = 3

    def source(self) -> ASTSource:
        types = self.types | dict.fromkeys(self.constants, "constexpr")
        return ASTSource(self.function, {name: types[name] for name in self.function.arg_names}, self.constants)


C51 = {"logits": "*bf16", "actions": "*i64", "N": INTEGER} | dict.fromkeys(
    ("successor", "rewards", "discounts"), POINTER
)
C51 |= dict.fromkeys(("v_min", "spacing", "epsilon"), REAL)
C51_SIZES = {"E": 3, "A": 18, "Z": 51, "BLOCK_A": 32, "BLOCK_Z": 64}

KERNELS: tuple[Kernel, ...] = (
    *(
        Kernel(
            name, vq.nearest_two,
            dict.fromkeys(("latents", "codebook", "squares", "lowest", "second", "chosen"), POINTER)
            | {"index": "*i32", "count": INTEGER, "codes": INTEGER},
            {"D": 512, "BLOCK_N": vq.BLOCK_N, "BLOCK_V": vq.BLOCK_V, "BLOCK_D": vq.BLOCK_D, "GATHER": gather},
            vq.WARPS, vq.STAGES,
        )
        for name, gather in (("vq_lookup", 0), ("vq_lookup with codes", vq.BLOCK_GATHER))
    ),
    *(
        Kernel(f"c51_loss {way}{words}", function, C51 | {"logits": kind} | types, C51_SIZES, c51.WARPS)
        for words, kind in (("", "*bf16"), (" in fp16", "*fp16"), (" in fp32", POINTER))
        for way, function, types in (
            ("forward", c51.forward_kernel, {"td": POINTER, "gap": POINTER}),
            ("backward", c51.backward_kernel,
             {"td_gradient": POINTER, "gap_gradient": POINTER, "gradient": kind}),
        )
    ),
    *(
        Kernel(
            f"cross-entropy of {classes} classes in {dtype}{' with gradient' if gradient else ''}",
            entropy.in_place_kernel, {"logits": f"*{dtype}", "targets": "*i64", "losses": POINTER},
            {"V": classes, "BLOCK": classes, "DIFFERENTIATE": gradient}, entropy.warps_of(classes),
        )
        for classes in (512, 2048, 16384)
        for dtype in ("fp32", "fp16", "bf16")
        for gradient in (False, True)
    ),
)  # fmt: skip

# A launch also picks these: codes of other widths (64 numbers: local tokenizers; 196: patches), critics of one member
# and the largest that the kernels take, every block of classes.
SEARCH, FORWARD, BACKWARD = (
    next(kernel for kernel in KERNELS if kernel.name == name)
    for name in ("vq_lookup with codes", "c51_loss forward in fp32", "c51_loss backward in fp32")
)
ENTROPY = next(kernel for kernel in KERNELS if kernel.name == "cross-entropy of 512 classes in fp32 with gradient")
LARGEST = {"E": 5, "A": MOST_ACTIONS, "Z": MOST_ATOMS, "BLOCK_A": MOST_ACTIONS, "BLOCK_Z": MOST_ATOMS}
OTHER_SIZES = (
    *(
        replace(SEARCH, name=f"{SEARCH.name} of {width} numbers", constants=SEARCH.constants | {"D": width})
        for width in (1, 16, 64, 196)
    ),
    *(
        replace(kernel, name=f"{kernel.name} of {words}", constants=kernel.constants | sizes)
        for kernel in (FORWARD, BACKWARD)
        for words, sizes in (("one member", {"E": 1}), ("the largest critic", LARGEST))
    ),
    *(
        replace(
            ENTROPY, name=f"cross-entropy of a block of {block}", warps=entropy.warps_of(block),
            constants=ENTROPY.constants | {"V": block, "BLOCK": block},
        )
        for block in (1 << power for power in range(15))
        if block not in (512, 2048, 16384)
    ),
)  # fmt: skip


def registers_and_spills(ptx: str) -> tuple[int, int]:
    """What an assembler that ships with Triton says of one kernel: registers a thread, bytes spilled."""
    target = re.search(r"\.target (sm_\w+)", ptx)
    assert target, ptx[:200]
    # There may be two, and one of them too old for the language that Triton writes.
    assemblers = sorted((Path(triton.__file__).parent / "backends" / "nvidia" / "bin").glob("ptxas*"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        options = ["-v", f"--gpu-name={target[1]}", source, "-o", Path(folder) / "kernel.cubin"]
        tried = [subprocess.run([tool, *options], capture_output=True, text=True, check=False) for tool in assemblers]
    said = next((done.stderr for done in tried if done.returncode == 0), None)
    assert said is not None, [done.stderr for done in tried]
    registers = re.search(r"Used (\d+) registers", said)
    spills = re.findall(r"(\d+) bytes spill", said)
    assert registers and spills, said
    return int(registers[1]), sum(map(int, spills))


def compile_for_all(kernel: Kernel) -> None:
    """For A100 and H100, without spilled registers and within a block's shared memory; prints what it takes."""
    for capability, most in ((80, 163 * 1024), (90, 227 * 1024)):
        options = {"num_warps": kernel.warps, "num_stages": kernel.stages}
        done = triton.compile(kernel.source(), target=GPUTarget("cuda", capability, 32), options=options)
        name, shared = f"{kernel.name} for sm_{capability}", done.metadata.shared
        assert shared <= most, f"{name} wants {shared} bytes of shared memory"
        registers, spilled = registers_and_spills(done.asm["ptx"])
        assert spilled == 0, f"{name} spills {spilled} bytes"
        print(f"compiled: {name}, {registers} registers, {shared} bytes shared", flush=True)


if __name__ == "__main__":
    for kernel in KERNELS + OTHER_SIZES:
        compile_for_all(kernel)
