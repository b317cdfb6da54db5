"""Types of the native core (csrc/).  jowa.planner.tree.SearchTree, jowa.planner.engine.Engine and
jowa.data.rows document the contracts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Float = NDArray[np.float32]
_Int = NDArray[np.int64]
_Bool = NDArray[np.bool_]

class BeamTree:
    def __init__(
        self, num_roots: int, width: int, horizon: int, num_actions: int, gamma: float, respect_ends: bool
    ) -> None: ...
    def reset(self) -> None: ...
    def expand(self, q: _Float, legal: _Bool) -> tuple[_Int, _Int, _Bool]: ...
    def keep(self, rewards: _Float, ends: _Bool, values: _Float) -> tuple[_Int, _Bool, _Bool, _Bool]: ...
    def decide_greedy(self, q: _Float, legal: _Bool) -> None: ...
    def finished(self) -> bool: ...
    def best(self) -> tuple[_Int, _Float]: ...
    def beam(self) -> tuple[_Float, _Int, _Bool]: ...
    def nodes(self) -> dict[str, NDArray[Any]]: ...

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

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def peak(bfloat16: bool) -> float: ...
def apply(function: str, x: _Float, instructions: str | None = None) -> _Float: ...
