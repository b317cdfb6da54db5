"""The native search trees over tensors on one device, without waiting for it.

The state is one tensor on the device; on a CPU it is worked on by the same code as in :class:`NativeBeamTree` and
:class:`NativeMCTSTree`, on a GPU by kernels on the current stream.  Nothing here moves numbers between device and host
but ``beam``, ``nodes`` and ``root_children``, so faults and counters are tensors too, and a planner runs as many levels
or rounds as the largest root needs.  Answers are static tensors: valid until the next call of the same method, and
fit for CUDA graphs.  Letters and rules: :mod:`jowa.planner.beam_tree`, :mod:`jowa.planner.mcts_tree`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jowa.planner.beam_tree import Beam, beam_nodes_of, beam_of, check_beam_arguments
from jowa.planner.mcts_tree import (
    MCTSSettings,
    check_budget,
    check_mcts_arguments,
    mcts_nodes_of,
    native_mcts,
    root_children_of,
)
from jowa.planner.tree_state import Arrays, Int, Stateful, check_at_least, native, require_native, views

DTYPES = {"i": torch.int32, "l": torch.int64, "f": torch.float32, "d": torch.float64, "b": torch.bool}


class DeviceExpansion(NamedTuple):
    """:class:`jowa.planner.beam_tree.Expansion` as tensors."""

    parents: Tensor
    """int64 (R, C)."""
    actions: Tensor
    """int64 (R, C)."""
    valid: Tensor
    """bool (R, C)."""
    page_table: Tensor
    """int32 (R, C, J)."""
    depths: Tensor
    """int32 (R, C)."""


class DeviceKept(NamedTuple):
    """:class:`jowa.planner.beam_tree.Kept` as tensors."""

    slots: Tensor
    """int64 (R, K)."""
    carried: Tensor
    """bool (R, K)."""
    valid: Tensor
    """bool (R, K)."""
    alive: Tensor
    """bool (R, K)."""


class DeviceSelection(NamedTuple):
    """:class:`jowa.planner.mcts_tree.Selection` as tensors."""

    nodes: Tensor
    """int32 (R, M)."""
    parents: Tensor
    """int32 (R, M)."""
    actions: Tensor
    """int64 (R, M)."""
    valid: Tensor
    """bool (R, M)."""
    page_table: Tensor
    """int32 (R, M, J)."""
    depths: Tensor
    """int32 (R, M)."""


class _Memory:
    """A native tree's state on a device, and the addresses of what it is given."""

    def __init__(self, tree: Stateful, device: torch.device) -> None:
        self.tree, self.device = tree, device
        self.state = torch.zeros(tree.state_bytes, dtype=torch.uint8, device=device)
        tree.attach(self.state.data_ptr())

    def stream(self) -> int:
        """The device's current stream."""
        return torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0

    def outputs(self, tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
        """Where a call writes, and its stream."""
        return *(tensor.data_ptr() for tensor in tensors), self.stream()

    def field(self, name: str) -> Tensor:
        """An array of the state, not a copy."""
        kind, shape, offset = next((k, s, o) for n, k, s, o in self.tree.layout() if n == name)
        size = int(np.prod(shape)) * DTYPES[kind].itemsize
        return self.state[offset : offset + size].view(DTYPES[kind]).view(shape)

    def on_host(self) -> Arrays:
        """All arrays of the state, copied to the host."""
        return views(self.tree, self.state.cpu().numpy())

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room on the device."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def address(self, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        """Where an argument lies; a TypeError or ValueError that names it unless it is exactly as expected."""
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a tensor of {dtype}, got {got}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if tensor.device != self.device or not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous on {self.device}, got {tensor.device}, {tensor.stride()}")
        return tensor.data_ptr()


def _device(device: torch.device | str) -> torch.device:
    """``device`` with its index; a RuntimeError or ValueError where no native tree can live there."""
    require_native()
    chosen = torch.empty(0, device=device).device
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"search trees live on cpu or cuda, got {chosen}")
    if chosen.type == "cuda" and not native.cuda_available_in_build:
        raise RuntimeError("jowa's native core was built without CUDA: install a toolkit with nvcc and build again")
    return chosen


class DeviceBeamTree:
    """Beam search as :class:`jowa.planner.beam_tree.BeamTreeProtocol` has it; R, K, H, A, M, C, J as there."""

    def __init__(
        self, widths: Int, horizons: Int, num_actions: int, gamma: float = 0.99, respect_ends: bool = True,
        device: torch.device | str = "cpu", td_lambda: float = 1.0,
    ) -> None:  # fmt: skip
        self.device = _device(device)
        check_beam_arguments(widths, horizons, num_actions, gamma, td_lambda)
        self._tree = native.BeamTree(
            widths.tolist(), horizons.tolist(), num_actions, gamma, td_lambda, respect_ends, self.device.type == "cuda"
        )
        self.num_roots, self.num_actions = len(widths), num_actions
        self.width, self.horizon = int(widths.max()), int(horizons.max())
        self.pages_per_root = self._tree.pages_per_root
        self._memory = memory = _Memory(self._tree, self.device)
        for name, sizes in (("widths", widths), ("horizons", horizons)):
            memory.field(name).copy_(torch.from_numpy(sizes))
        self._expansions = tuple(self._expansion(slots * self.width) for slots in (1, self.width))
        rows = (self.num_roots, self.width)
        self._kept = DeviceKept(memory.empty(rows, torch.int64), *(memory.empty(rows, torch.bool) for _ in range(3)))
        self._best = memory.empty(rows[:1], torch.int64), memory.empty(rows[:1], torch.float32)
        self.failed = memory.field("failed")
        """int32 (R,): 0, or why the root was taken out of the search; the state itself."""
        self.reset()

    def _expansion(self, children: int) -> DeviceExpansion:
        rows, empty = (self.num_roots, children), self._memory.empty
        return DeviceExpansion(
            empty(rows, torch.int64), empty(rows, torch.int64), empty(rows, torch.bool),
            empty((*rows, max(self.horizon, 1)), torch.int32), empty(rows, torch.int32),
        )  # fmt: skip

    def reset(self) -> None:
        """Back to the roots alone."""
        self._tree.reset(self._memory.stream())

    def expand(self, q: Tensor, legal: Tensor) -> DeviceExpansion:
        """Propose children by ``q`` float32 (R, M, A) and ``legal`` bool (R, A)."""
        deep = self._tree.level > 0
        at, expansion = self._memory.address, self._expansions[deep]
        self._tree.expand(
            at("q", q, torch.float32, (self.num_roots, self.width if deep else 1, self.num_actions)),
            at("legal", legal, torch.bool, (self.num_roots, self.num_actions)),
            *self._memory.outputs(expansion),
        )  # fmt: skip
        return expansion

    def keep(self, rewards: Tensor, ends: Tensor, values: Tensor) -> DeviceKept:
        """Score the children by float32 ``rewards``, bool ``ends``, float32 ``values``, (R, C) each; keep the best."""
        at, shape = self._memory.address, tuple(self._expansions[self._tree.level > 0].valid.shape)
        self._tree.keep(
            at("rewards", rewards, torch.float32, shape), at("ends", ends, torch.bool, shape),
            at("values", values, torch.float32, shape),
            *self._memory.outputs(self._kept),
        )  # fmt: skip
        return self._kept

    def best(self) -> tuple[Tensor, Tensor]:
        """int64 (R,) the first action of the best plan so far; float32 (R,) its score."""
        self._tree.best(*self._memory.outputs(self._best))
        return self._best

    def beam(self) -> Beam:
        """The beam as it stands, on the host: waits for the device."""
        return beam_of(self._memory.on_host(), self.horizon)

    def nodes(self) -> Arrays:
        """Every node evaluated so far, on the host: waits for the device."""
        return beam_nodes_of(self._memory.on_host())


class DeviceMCTSTree:
    """Monte-Carlo search as :class:`jowa.planner.mcts_tree.MCTSTreeProtocol` has it, M = ``max_leaves`` always.

    ``max_leaves``: leaves of a round at most; ``max_depth``: levels below a context at most (J).
    """

    def __init__(
        self, num_roots: int, capacity: int, num_actions: int, settings: MCTSSettings | None = None,
        max_leaves: int = 1, max_depth: int = 8, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.device = _device(device)
        check_mcts_arguments(num_roots, capacity, num_actions)
        check_at_least("max_leaves", max_leaves, 1)
        check_at_least("max_depth", max_depth, 1)
        self.num_roots, self.capacity, self.num_actions = num_roots, capacity, num_actions
        self.settings, self.max_leaves, self.max_depth = settings or MCTSSettings(), max_leaves, max_depth
        self.pages_per_root = capacity
        self._tree = native_mcts(num_roots, capacity, num_actions, self.settings, self.device.type == "cuda")
        self._memory = memory = _Memory(self._tree, self.device)
        rows = (num_roots, max_leaves)
        self._selection = DeviceSelection(
            memory.empty(rows, torch.int32), memory.empty(rows, torch.int32), memory.empty(rows, torch.int64),
            memory.empty(rows, torch.bool), memory.empty((*rows, max_depth), torch.int32),
            memory.empty(rows, torch.int32),
        )  # fmt: skip
        self._best = memory.empty(rows[:1], torch.int64), memory.empty(rows[:1], torch.float32)
        self._advanced = memory.empty(rows[:1], torch.bool)
        self.failed, self.exhausted = memory.field("failed"), memory.field("exhausted")
        """int32 (R,) and bool (R,): the state itself."""
        self._tree.reset(memory.stream())

    def start(
        self,
        active: Tensor,
        q: Tensor,
        legal: Tensor,
        max_depth: Tensor,
        priors: Tensor | None = None,
        gumbel: Tensor | None = None,
        budget: Tensor | None = None,
        considered: Tensor | None = None,
    ) -> None:
        """Begin anew for the ``active`` roots, bool (R,); dtypes and shapes as in the contract.

        A ``max_depth`` int64 (R,) beyond the constructor's counts as that.
        """
        check_budget(self.settings, budget)
        at, roots, edges = self._memory.address, (self.num_roots,), (self.num_roots, self.num_actions)
        at("max_depth", max_depth, torch.int64, roots)
        self._depths = max_depth.clamp(max=self.max_depth)  # held while the kernel may read it
        self._tree.start(
            at("active", active, torch.bool, roots), at("q", q, torch.float32, edges),
            at("legal", legal, torch.bool, edges), self._depths.data_ptr(),
            None if priors is None else at("priors", priors, torch.float32, edges),
            None if gumbel is None else at("gumbel", gumbel, torch.float32, edges),
            None if budget is None else at("budget", budget, torch.int64, roots),
            None if considered is None else at("considered", considered, torch.int64, roots),
            self._memory.stream(),
        )  # fmt: skip

    def select(self, leaves: Tensor) -> DeviceSelection:
        """Walk down each root's tree up to ``leaves`` int64 (R,) times, ``max_leaves`` at most."""
        self._tree.select(
            self._memory.address("leaves", leaves, torch.int64, (self.num_roots,)), self.max_leaves, self.max_depth,
            *self._memory.outputs(self._selection),
        )  # fmt: skip
        return self._selection

    def backup(self, rewards: Tensor, ends: Tensor, q: Tensor) -> None:
        """Complete the round: float32 ``rewards`` (R, M), bool ``ends`` (R, M), float32 ``q`` (R, M, A)."""
        at, rows = self._memory.address, (self.num_roots, self.max_leaves)
        self._tree.backup(
            at("rewards", rewards, torch.float32, rows), at("ends", ends, torch.bool, rows),
            at("q", q, torch.float32, (*rows, self.num_actions)), self._memory.stream(),
        )  # fmt: skip

    def simulations(self) -> Tensor:
        """int64 (R,): simulations completed since the decision began; the state itself."""
        return self._memory.field("simulations")

    def best(self) -> tuple[Tensor, Tensor]:
        """int64 (R,) the decision so far; float32 (R,) its Q."""
        self._tree.best(*self._memory.outputs(self._best))
        return self._best

    def advance(self, mask: Tensor, actions: Tensor, gumbel: Tensor | None = None) -> Tensor:
        """Re-root where ``mask`` bool (R,) at the child by ``actions`` int64 (R,); bool (R,): where it was possible."""
        at, roots = self._memory.address, (self.num_roots,)
        noise = None if gumbel is None else at("gumbel", gumbel, torch.float32, (self.num_roots, self.num_actions))
        self._tree.advance(
            at("mask", mask, torch.bool, roots), at("actions", actions, torch.int64, roots), noise,
            self._advanced.data_ptr(), self._memory.stream(),
        )  # fmt: skip
        return self._advanced

    def root_children(self) -> Arrays:
        """As in the contract, on the host: waits for the device."""
        return root_children_of(self._memory.on_host(), self.settings.gamma)

    def nodes(self) -> Arrays:
        """As in the contract, on the host: waits for the device."""
        return mcts_nodes_of(self._memory.on_host(), self.settings.gamma)
