"""What a planner is asked and what it answers.  Letters: R roots, K beam width, H horizon, A actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UsageError
from jowa.planner.imagination import Context

PlannerName = Literal["none", "beam"]


@dataclass(frozen=True)
class PlannerConfig:
    """How to choose an action."""

    name: PlannerName = "beam"
    """``none``: greedy in Q.  ``beam``: beam search in imagination."""
    width: int = 2
    """Beam width: nodes kept, and actions tried from each."""
    horizon: int = 2
    """Imagined steps; 0 is greedy in Q."""
    gamma: float = 0.99
    """Discount a step."""
    respect_ends: bool = True
    """After a predicted end the value is 0 and the node is not expanded; off: as published, for its cases."""

    def __post_init__(self) -> None:
        if self.name not in ("none", "beam"):
            raise UsageError(f"unknown planner {self.name!r}: choose one of: none, beam")
        if self.width < 1:
            raise UsageError(f"beam width is {self.width}, expected at least 1")
        if self.horizon < 0:
            raise UsageError(f"horizon is {self.horizon}, expected at least 0")
        if not 0.0 <= self.gamma <= 1.0:
            raise UsageError(f"gamma is {self.gamma}, expected a discount between 0 and 1")


@dataclass(frozen=True)
class Plan:
    """A decision for each of R roots, with the plans that were weighed."""

    actions: NDArray[np.int64]
    """(R,): the action to take, always legal."""
    scores: NDArray[np.float32]
    """(R,): the score of the best plan (its imagined return), or max Q without planning."""
    q: NDArray[np.float32]
    """(R, 18): Q of every action at the root, as the critic sees it; illegal ones -inf."""
    beam_scores: NDArray[np.float32]
    """(R, K): final beam, best first; -inf where there are fewer."""
    beam_actions: NDArray[np.int64]
    """(R, K, H): each plan's actions from the root on, -1 after its end."""
    nodes: dict[str, NDArray[np.generic]]
    """Every node that was imagined, as flat arrays of equal length (see ``jowa.planner.tree``)."""
    frames: list[NDArray[np.uint16]]
    """Per level (R, M, 36): the imagined frames' tokens; empty unless asked for."""


class Planner(Protocol):
    """Chooses actions for a batch of roots, each independently of the others."""

    config: PlannerConfig

    def plan(self, context: Context, keep_frames: bool = False) -> Plan:
        """Decide for every root; ``keep_frames`` fills :attr:`Plan.frames`."""
        ...
