"""Compile the Triton kernels for GPUs that need not be there; a script, for the interpreter must be off."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from jowa.kernels import vq_lookup_triton as vq

POINTER, INTEGER = "*fp32", "i32"


def vq_kernel() -> ASTSource:
    constants = {"D": 512, "BLOCK_N": vq.BLOCK_N, "BLOCK_V": vq.BLOCK_V, "BLOCK_D": vq.BLOCK_D}
    signature = dict.fromkeys(("latents", "codebook", "squares", "lowest", "second"), POINTER)
    signature |= {"index": "*i32", "count": INTEGER, "codes": INTEGER} | dict.fromkeys(constants, "constexpr")
    ordered = {name: signature[name] for name in vq.nearest_two.arg_names}
    return ASTSource(vq.nearest_two, ordered, constants)


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


if __name__ == "__main__":
    for capability, shared in ((80, 163 * 1024), (90, 227 * 1024)):
        options = {"num_warps": vq.WARPS, "num_stages": vq.STAGES}
        done = triton.compile(vq_kernel(), target=GPUTarget("cuda", capability, 32), options=options)
        assert done.metadata.shared <= shared, f"{done.metadata.shared} bytes of shared memory on sm_{capability}"
        registers, spilled = registers_and_spills(done.asm["ptx"])
        assert spilled == 0, f"vq_lookup spills {spilled} bytes on sm_{capability}"
        print(f"compiled: vq_lookup for sm_{capability}, {registers} registers, {done.metadata.shared} bytes shared")
