"""What both search trees share in Python: array types, argument checks, faults, and views of the native state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

try:
    from jowa import _native
except ImportError:
    _native = None  # type: ignore[assignment]

native = _native
"""The native core, None where it was not built."""

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]

BAD_Q, NO_LEGAL_ACTION, BAD_REWARD, NAN_VALUE, BAD_PRIOR = range(1, 6)
FAULTS = {
    0: "no fault",
    BAD_Q: "q is NaN (in a Monte-Carlo tree, or with td_lambda below 1, also: infinite) for a legal action",
    NO_LEGAL_ACTION: "legal allows no action",
    BAD_REWARD: "a reward is not finite",
    NAN_VALUE: "a value is NaN",
    BAD_PRIOR: "a prior or noise of a legal action is not finite, or a prior is negative",
}
DTYPES = {"i": np.int32, "l": np.int64, "f": np.float32, "d": np.float64, "b": np.bool_}


def describe_fault(code: int) -> str:
    """Why a root was taken out of the search, from its entry in ``failed``."""
    return FAULTS[int(code)]


def native_available() -> bool:
    """True when the native core was built and imports."""
    return native is not None


def require_native() -> None:
    """Raise a RuntimeError that says what to do unless the native core imports."""
    if native is None:
        raise RuntimeError("jowa was installed without its native core: run pip install -e . in the checkout")


def check(name: str, array: object, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise a TypeError or ValueError that names the argument unless dtype and shape are exactly these."""
    expected = np.dtype(dtype).name
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array of {expected}, got {type(array).__name__}")
    if array.dtype != expected:
        raise TypeError(f"{name} must be a NumPy array of {expected}, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def array_argument(argument: object) -> object:
    """The argument, for the native core to check; a number is refused, which it would take for an address."""
    if isinstance(argument, int):
        raise TypeError(f"expected a NumPy array, got the number {argument}")
    return argument


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise a ValueError that names the argument unless ``value`` is at least ``least``."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_unit(name: str, value: float) -> None:
    """Raise a ValueError that names the argument unless ``value`` is a discount."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


class Stateful(Protocol):
    """A native batch of trees."""

    @property
    def state_bytes(self) -> int: ...
    def layout(self) -> list[tuple[str, str, tuple[int, ...], int]]: ...
    def attach(self, state: int) -> None: ...


def views(tree: Stateful, state: NDArray[np.uint8]) -> Arrays:
    """The arrays of a native tree's ``state`` by name, without copies: see the fields in csrc/."""
    return {
        name: np.frombuffer(state, DTYPES[kind], count=int(np.prod(shape)), offset=offset).reshape(shape)
        for name, kind, shape, offset in tree.layout()
    }


def addresses(arrays: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    """Where the arrays' numbers lie in memory."""
    return tuple(array.ctypes.data for array in arrays)


def flat_nodes(arrays: Arrays, counts: Int, first: int, names: Sequence[str]) -> Arrays:
    """Nodes ``first`` to ``counts`` (R,) of every root as flat arrays, root by root.

    ``arrays`` hold rows of roots, ``names`` says which of them to take; integers come out as int64.  ``parent``
    becomes an index into the flat arrays, -1 where the parent is the root itself.
    """
    used = np.arange(arrays["parent"].shape[1]) < counts[:, None]
    used[:, :first] = False
    root, node = np.nonzero(used)
    offset = np.cumsum([0, *used.sum(axis=1)])[:-1]
    flat: Arrays = {"root": root.astype(np.int64)}
    parent = arrays["parent"][used].astype(np.int64)
    flat["parent"] = np.where(parent < first, -1, offset[root] + parent - first)
    if first:
        flat["node"] = node.astype(np.int64)
    for name in names:
        column = arrays[name][used]
        flat[name] = column.astype(np.int64) if column.dtype == np.int32 else column
    return flat
