"""What the session tells: frozen records without Qt.  Letters: N imagined nodes, A = 18 actions, E members, Z atoms.

Arrays in events belong to whoever receives them last; nobody changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.planner import PlannerConfig
from jowa.viewer.commands import Mode


class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Path:
    """One plan that was weighed: nodes from the root on."""

    nodes: tuple[int, ...]
    """Indices into the tree's arrays; empty for a greedy choice."""
    actions: tuple[int, ...]
    score: float
    """Imagined return (beam) or Q of the root's edge (MCTS)."""
    rank: int
    """Place among the kept plans, from 0; -1: pruned."""
    visits: int | None
    """Simulations through its first action; None: not a Monte Carlo tree."""


@dataclass(frozen=True)
class Tree:
    """The search as it was at one decision."""

    parent: NDArray[np.int64]
    """(N,): index of the parent, -1 for the root."""
    depth: NDArray[np.int64]
    """(N,): imagined steps below the root, from 1."""
    action: NDArray[np.int64]
    """(N,): what was done in the parent."""
    reward: NDArray[np.float32]
    ended: NDArray[np.bool_]
    value: NDArray[np.float32]
    """(N,): value of the imagined state."""
    score: NDArray[np.float32]
    """(N,): what the search ranks by."""
    visits: NDArray[np.int64] | None
    """(N,): MCTS only."""
    paths: tuple[Path, ...]
    """Kept plans by rank, then pruned ones; the first is the one chosen."""
    frames: NDArray[np.uint8]
    """(M, 84, 84): imagined frames, of the nodes on the best paths first."""
    frame_of: NDArray[np.int64]
    """(N,): row of ``frames``, -1: not decoded because there are so many."""

    def frame(self, node: int) -> NDArray[np.uint8] | None:
        """uint8 (84, 84), if it was decoded."""
        row = int(self.frame_of[node])
        return self.frames[row] if row >= 0 else None


@dataclass(frozen=True)
class Hindsight:
    """What was imagined ``steps`` ago of the moment that is shown now."""

    steps: int
    frame: NDArray[np.uint8] | None
    """uint8 (84, 84); None: that far was not searched along the actions that were taken."""
    right: NDArray[np.bool_] | None
    """(36,): which tokens came true."""
    came_true: float | None
    """Their share."""
    mean: float | None
    """The same over the last hundred moments that were imagined so long ago."""


@dataclass(frozen=True)
class Trace:
    """The remembered moments as columns, oldest first, for curves."""

    index: NDArray[np.int64]
    value: NDArray[np.float32]
    reward: NDArray[np.float32]
    changed: NDArray[np.bool_]
    """Whether planning chose another action than the critic alone."""
    came_true: NDArray[np.float32]
    """Share of the tokens imagined one step before that came true; NaN where they were not imagined."""
    episode: NDArray[np.int64]
    begins: NDArray[np.bool_]
    """Whether an episode (or a dream) begins here."""
    dreamt: NDArray[np.bool_]


@dataclass(frozen=True)
class Moment(Event):
    """One decision, with all that panels draw."""

    index: int
    """Number of the decision in this session."""
    episode: int
    step: int
    """Within the episode."""
    mode: Mode
    game: str
    who: str
    """Chooses or has chosen what is done: ``agent``, ``person`` or ``recording``."""
    screen: NDArray[np.uint8]
    """(height, width, 3): the game in colour, or what the dream or recording shows, in grey."""
    frame: NDArray[np.uint8]
    """(84, 84): what the agent sees."""
    reconstruction: NDArray[np.uint8]
    """(84, 84): its tokens, decoded."""
    legal: NDArray[np.bool_]
    """(A,)."""
    q: NDArray[np.float32]
    """(A,): illegal ones -inf."""
    spread: NDArray[np.float32]
    """(A,): standard deviation of Q over the ensemble."""
    advice: int
    """The action that the planner chose."""
    greedy: int
    """The action with the highest Q."""
    plan_score: float
    taken: int | None
    """The action really taken; None: not yet."""
    action: int
    """The one taken, or about to be: what the person holds, what was recorded, or else the planner's."""
    reward: float
    """That led here: what the action before earned."""
    score: float
    """Of the episode, up to and including this moment's reward."""
    ended: bool
    """Whether the episode is over after this moment."""
    seconds: float
    """That the decision took."""
    planner: PlannerConfig
    context: int
    """Frames that the decision looked at."""
    tree: Tree | None
    hindsight: tuple[Hindsight, ...]
    trace: Trace
    oldest: int
    newest: int
    recorded: NDArray[np.float32] | None = None
    """(length,): the rewards of the whole recording that is replayed."""

    @property
    def changed(self) -> bool:
        """Whether planning chose another action than the critic alone."""
        return self.advice != self.greedy

    @property
    def value(self) -> float:
        """The critic's value of this moment: the highest Q."""
        return float(self.q[self.greedy])


@dataclass(frozen=True)
class State(Event):
    """How the session stands."""

    mode: Mode = "play"
    running: bool = False
    busy: str | None = None
    """What is being waited for, in words."""
    game: str = "Pong"
    agent: str | None = None
    """Where the agent came from; None: there is none."""
    agent_games: tuple[str, ...] = ()
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    context: int = 4
    longest_context: int = 8
    """Steps that context and horizon may fill together."""
    speed: float | None = 15.0
    seed: int = 0
    sticky: float = 0.25
    person: bool = False
    """Whether the person plays."""
    rate: float = 0.0
    """Decisions in the last second."""
    recording: str | None = None
    """What is replayed."""


@dataclass(frozen=True)
class Distributions(Event):
    """The critic's value distributions at one moment."""

    index: int
    """Which moment."""
    atoms: NDArray[np.float32]
    """(Z,): values, in clipped reward."""
    probabilities: NDArray[np.float32]
    """(E, A, Z)."""


@dataclass(frozen=True)
class Failed(Event):
    """Something asked for could not be done; what ran before still runs."""

    title: str
    text: str


@dataclass(frozen=True)
class Notice(Event):
    """Something worth a line in the status bar."""

    text: str


def as_json(value: Any) -> Any:
    """``value`` of an event as JSON types; pictures are left to the PNG beside it."""
    if isinstance(value, np.ndarray):
        return [as_json(entry) for entry in value.tolist()] if value.dtype != np.uint8 else f"uint8 {value.shape}"
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [as_json(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_json(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
