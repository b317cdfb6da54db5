"""Types of the native core (csrc/); jowa.planner.tree, jowa.planner.engine and jowa.data.rows hold the contracts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Float = NDArray[np.float32]
_Int = NDArray[np.int64]
_Bool = NDArray[np.bool_]

_Argument = object
"""A NumPy array, or the address of memory that was checked already."""
_Layout = list[tuple[str, str, tuple[int, ...], int]]

cuda_available_in_build: bool

def describe_fault(code: int) -> str | None: ...
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...

class BeamTree:
    def __init__(
        self,
        widths: list[int],
        horizons: list[int],
        num_actions: int,
        gamma: float,
        td_lambda: float,
        respect_ends: bool,
        cuda: bool,
    ) -> None: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def pages_per_root(self) -> int: ...
    @property
    def level(self) -> int: ...
    def layout(self) -> _Layout: ...
    def attach(self, state: int) -> None: ...
    def reset(self, stream: int = 0) -> None: ...
    def expand(
        self,
        q: _Argument,
        legal: _Argument,
        parents: int,
        actions: int,
        valid: int,
        page_table: int,
        depths: int,
        stream: int = 0,
    ) -> None: ...
    def keep(
        self,
        rewards: _Argument,
        ends: _Argument,
        values: _Argument,
        slots: int,
        carried: int,
        valid: int,
        alive: int,
        stream: int = 0,
    ) -> None: ...
    def best(self, actions: int, values: int, stream: int = 0) -> None: ...
    def finished(self) -> bool: ...
    def pending(self) -> bool: ...

class MCTSTree:
    def __init__(
        self,
        num_roots: int,
        capacity: int,
        num_actions: int,
        gamma: float,
        temperature: float,
        c_init: float,
        c_base: float,
        respect_ends: bool,
        gumbel: bool,
        c_visit: float,
        c_scale: float,
        cuda: bool,
    ) -> None: ...
    @property
    def state_bytes(self) -> int: ...
    def layout(self) -> _Layout: ...
    def attach(self, state: int) -> None: ...
    def reset(self, stream: int = 0) -> None: ...
    def start(
        self,
        active: _Argument,
        q: _Argument,
        legal: _Argument,
        max_depth: _Argument,
        priors: _Argument | None,
        gumbel: _Argument | None,
        budget: _Argument | None,
        considered: _Argument | None,
        stream: int = 0,
    ) -> None: ...
    def select(
        self,
        leaves: _Argument,
        rows: int,
        columns: int,
        nodes: int,
        parents: int,
        actions: int,
        valid: int,
        page_table: int,
        depths: int,
        stream: int = 0,
    ) -> None: ...
    def backup(self, rewards: _Argument, ends: _Argument, q: _Argument, stream: int = 0) -> None: ...
    def best(self, actions: int, values: int, stream: int = 0) -> None: ...
    def advance(
        self, mask: _Argument, actions: _Argument, gumbel: _Argument | None, kept: int, stream: int = 0
    ) -> None: ...
    def pending(self) -> bool: ...

_Fault = tuple[int, int, str] | None

class RowReader:
    def __init__(
        self,
        folder: str,
        suffix: str,
        shard_rows: int,
        chunk_rows: int,
        row_bytes: int,
        codec: str,
        checksum: bool,
    ) -> None: ...
    def read(self, first: int, count: int, out: NDArray[Any]) -> _Fault: ...
    def check(self, shard: int, first_chunk: int, chunks: int) -> _Fault: ...

def gather(
    readers: list[list[RowReader]],
    outs: list[NDArray[Any]],
    game: NDArray[np.int32],
    first: _Int,
    count: _Int,
    length: int,
    threads: int,
    prefetch: bool,
) -> tuple[int, int, _Fault] | None: ...
def set_max_mapped(count: int) -> int: ...
def crc32c(data: bytes | bytearray | memoryview | NDArray[Any]) -> int: ...

class Engine:
    instructions: str
    pass_bytes: int
    pass_products: int
    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        width: int,
        vocab: int,
        actions: int,
        atoms: int,
        members: int,
        q_width: int,
        context_steps: int,
        tasks: int,
        task_embedding: bool,
        bfloat16: bool,
        instructions: str | None = None,
    ) -> None: ...
    def load(self, name: str, array: _Float) -> None: ...
    def check_complete(self) -> None: ...
    def reserve(self, roots: int, pages: int) -> None: ...
    def encode(
        self, tokens: _Int, actions: _Int, lengths: _Int, tasks: _Int, slots: _Int | None
    ) -> tuple[_Float, _Float]: ...
    def imagine(
        self,
        actions: _Int,
        page_table: NDArray[np.int32],
        depths: NDArray[np.int32],
        drafts: _Int | None,
        sureness: _Float | None,
        seeds: _Int | None,
        temperature: float,
    ) -> tuple[_Int, _Float, _Bool, _Float, _Float, tuple[int, int, int, int, int], _Int]: ...
    def costs(self) -> tuple[float, float]: ...

def peak(bfloat16: bool) -> float: ...
def apply(function: str, x: _Float, instructions: str | None = None) -> _Float: ...
def nearest_codes(
    latents: int,
    rows: int,
    codebook: int,
    codes: int,
    width: int,
    tokens: int,
    chosen: int,
    threads: int,
    instructions: str | None = None,
) -> list[int]: ...
def critic_forward(
    logits: int,
    taken: int,
    successor: int,
    rewards: int,
    discounts: int,
    td: int,
    gap: int,
    sizes: list[int],
    numbers: list[float],
    threads: int,
    instructions: str | None = None,
) -> None: ...
def critic_backward(
    logits: int,
    taken: int,
    successor: int,
    rewards: int,
    discounts: int,
    td_gradient: int,
    gap_gradient: int,
    gradient: int,
    sizes: list[int],
    numbers: list[float],
    threads: int,
    instructions: str | None = None,
) -> None: ...
