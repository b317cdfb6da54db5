"""Search trees, a batch of roots at once: what planners import.

``beam_tree`` and ``mcts_tree`` hold the contracts and the native classes, ``beam_oracle`` and ``mcts_oracle`` the same
in plain Python; results are equal to the last bit, shapes, order and errors included.  ``device_trees`` keeps the
native trees' state in tensors on one device.
"""

from __future__ import annotations

from jowa.planner.beam_oracle import ReferenceBeamTree
from jowa.planner.beam_tree import Beam, BeamTreeProtocol, Expansion, Kept, NativeBeamTree
from jowa.planner.mcts_oracle import ReferenceMCTSTree
from jowa.planner.mcts_tree import MCTSSettings, MCTSTreeProtocol, NativeMCTSTree, Selection, considered_visits
from jowa.planner.tree_state import Arrays, Bool, Float, Int, Int32, describe_fault, native_available

__all__ = [
    "Arrays", "Beam", "BeamTreeProtocol", "Bool", "Expansion", "Float", "Int", "Int32", "Kept", "MCTSSettings",
    "MCTSTreeProtocol", "NativeBeamTree", "NativeMCTSTree", "ReferenceBeamTree", "ReferenceMCTSTree",
    "Selection", "considered_visits", "describe_fault", "make_beam_tree", "make_mcts_tree",
    "native_available",
]  # fmt: skip


def make_beam_tree(
    widths: Int, horizons: Int, num_actions: int, gamma: float = 0.99, respect_ends: bool = True,
    td_lambda: float = 1.0,
) -> BeamTreeProtocol:  # fmt: skip
    """A batch of beam searches, ``widths`` and ``horizons`` int64 (R,): native where it was built, else the oracle."""
    kind = NativeBeamTree if native_available() else ReferenceBeamTree
    return kind(widths, horizons, num_actions, gamma, respect_ends, td_lambda)


def make_mcts_tree(
    num_roots: int, capacity: int, num_actions: int, settings: MCTSSettings | None = None
) -> MCTSTreeProtocol:
    """A batch of Monte-Carlo searches: native where it was built, else the oracle."""
    kind = NativeMCTSTree if native_available() else ReferenceMCTSTree
    return kind(num_roots, capacity, num_actions, settings)
