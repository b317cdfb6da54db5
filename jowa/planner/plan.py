"""What a planner is asked and what it answers.  Letters: R roots, K candidates, H horizon, A actions, N nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from jowa.config import TOKENS_PER_FRAME, DraftName, PlannerName
from jowa.errors import NumericalError, UsageError
from jowa.planner.imagination import Context

MOST_SIMULATIONS, TIMED_SIMULATIONS = 10_000, 500
"""What a tree has room for: a simulation may own a page of keys and values, megabytes in a large model."""


@dataclass(frozen=True)
class PlannerConfig:
    """How to choose an action."""

    name: PlannerName = "beam"
    """``none``: greedy in Q.  ``beam``: beam search in imagination.  ``mcts``: Monte Carlo tree search (PUCT) in it."""
    width: int = 2
    """Beam width: nodes kept, and actions tried from each."""
    horizon: int = 2
    """Imagined steps; 0 is greedy in Q.  MCTS: steps that the context leaves room for; where it is shorter, the tree
    may grow deeper."""
    gamma: float = 0.99
    """Discount a step."""
    respect_ends: bool = True
    """After a predicted end the value is 0 and the node is not expanded; off: as published, for its cases."""
    td_lambda: float = 1.0
    """Beam search: 1 scores a plan by its imagined rewards and the value of the state it ends in, as published, so that
    what the critic says of the actions themselves only proposes them.  Below 1 plans are scored by the lambda-return
    (Sutton & Barto, section 12.1) over Q at every depth, the root's included; 0 is greedy in Q."""
    uncertainty: float = 0.0
    """Actions and states are valued by the ensemble's mean minus so many of its standard deviations; of no effect
    where the critic has one member."""
    milliseconds: float | None = None
    """Time for a decision, after which the best action so far is taken; None: no limit.  It is the time of the whole
    batch: of many environments each gets a share, and what they decide depends on how fast the machine is."""
    draft: DraftName | None = None
    """How frames are guessed before they are imagined, which changes the time only.  None: by the agent's draft head
    if it has one, else ``last-change``."""
    simulations: int | None = None
    """MCTS: simulations a decision, at most 10,000; None: as many as beam search would imagine, K^2 (H - 1) + K, or
    with ``milliseconds`` as many as there is time for, at most 500."""
    leaves: int = 4
    """MCTS: leaves of a root that are imagined at once, kept apart by virtual loss."""
    temperature: float = 1.0
    """MCTS: priors are softmax(Q / temperature)."""
    root_noise: float = 0.0
    """MCTS: share of Dirichlet noise in the root's priors."""
    dirichlet: float = 0.3
    """MCTS: concentration of that noise."""
    gumbel: bool = False
    """MCTS: choose at the root by Gumbel noise and sequential halving (Danihelka et al. 2022) instead of PUCT."""
    considered: int = 16
    """MCTS with ``gumbel``: actions considered at most."""
    reuse: bool = True
    """MCTS: keep the subtree of what then happened, where the context grows and the imagined frame came true; not
    with ``root_noise``, which changes the priors of each root."""
    seed: int = 0
    """MCTS: of the noise."""

    def __post_init__(self) -> None:
        if self.name not in get_args(PlannerName):
            raise UsageError(f"unknown planner {self.name!r}: choose one of: {', '.join(get_args(PlannerName))}")
        if self.draft is not None and self.draft not in get_args(DraftName):
            raise UsageError(f"unknown draft {self.draft!r}: choose one of: {', '.join(get_args(DraftName))}")
        least = {"width": 1, "horizon": 0, "leaves": 1, "considered": 1, "uncertainty": 0.0, "milliseconds": 0.0}
        for name, minimum in {**least, "simulations": 0}.items():
            value = getattr(self, name)
            if value is not None and not value >= minimum:
                raise UsageError(f"{'beam ' * (name == 'width')}{name} is {value}, expected at least {minimum}")
        for name in ("gamma", "root_noise", "td_lambda"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a number between 0 and 1")
        for name in ("temperature", "dirichlet"):
            if not getattr(self, name) > 0.0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected a number above 0")
        for name in ("temperature", "dirichlet", "uncertainty", "milliseconds"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise UsageError(f"{name} is {getattr(self, name)}, expected a finite number")
        if self.simulations is not None and self.simulations > MOST_SIMULATIONS:
            raise UsageError(f"simulations is {self.simulations}, expected at most {MOST_SIMULATIONS}")

    @property
    def depth(self) -> int:
        """Steps that the model's context must leave room for."""
        return 0 if self.name == "none" else self.horizon

    @property
    def budget(self) -> int:
        """Simulations of MCTS a decision."""
        if self.simulations is not None:
            return self.simulations
        if self.milliseconds is not None and self.horizon:
            return TIMED_SIMULATIONS
        return 0 if self.horizon == 0 else self.width**2 * (self.horizon - 1) + self.width


@dataclass(frozen=True)
class Plan:
    """A decision for each of R roots, with the plans that were weighed."""

    actions: NDArray[np.int64]
    """(R,): the action to take, always legal; -1 for a root that failed."""
    scores: NDArray[np.float32]
    """(R,): the score of the best plan (its imagined return), or max Q without planning."""
    q: NDArray[np.float32]
    """(R, 18): Q of every action at the root, as the critic sees it; illegal ones -inf."""
    spread: NDArray[np.float32]
    """(R, 18): standard deviation of that Q over the ensemble."""
    candidate_scores: NDArray[np.float32]
    """(R, K), best first; -inf where there are fewer.  Beam search: the final beam.  MCTS: the root's actions by
    visits, each with its Q."""
    candidate_actions: NDArray[np.int64]
    """(R, K, H): each plan's actions from the root on, -1 after its end."""
    nodes: dict[str, NDArray[Any]]
    """Every node that was imagined, as flat arrays of length N (see ``jowa.planner.tree``)."""
    frames: NDArray[np.uint16] | None
    """(N, 36): the imagined frames' tokens; None unless asked for."""
    failed: dict[int, str] = field(default_factory=dict)
    """Roots that could not be decided, and why; the others were."""


class Planner(Protocol):
    """Chooses actions for a batch of roots, each independently of the others."""

    config: PlannerConfig

    def plan(
        self,
        context: Context,
        keep_frames: bool = False,
        configs: Sequence[PlannerConfig] | None = None,
        slots: Sequence[int] | None = None,
    ) -> Plan:
        """Decide for every root; ``keep_frames`` fills :attr:`Plan.frames`.

        ``configs``: the settings of each root instead of the planner's own, in which only :data:`SHARED` must be the
        same.  ``slots``: who each root is, so that what is known of it may be used again; None: strangers.
        Of no roots the plan is empty.

        Raises :class:`PlanningError` that names a root for which the model answered NaN, and holds the plan of the
        others; ValueError when a context and its horizon exceed the model's context.
        """
        ...


SHARED = ("name", "gamma", "td_lambda", "respect_ends", "milliseconds", "temperature", "gumbel")
"""Settings that are the same for all roots of a batch."""


class PlanningError(NumericalError):
    """The model answered NaN for some roots; :attr:`plan` holds the decisions for the others."""

    def __init__(self, plan: Plan) -> None:
        root, what = next(iter(plan.failed.items()))
        more = f" (and {len(plan.failed) - 1} more)" if len(plan.failed) > 1 else ""
        super().__init__(
            f"root {root}{more} could not be decided: {what}; the model's weights are damaged or training diverged: "
            "use another checkpoint, or --precision float32"
        )
        self.plan = plan


def empty_plan(nodes: dict[str, NDArray[Any]], num_actions: int, keep_frames: bool) -> Plan:
    """The answer to no roots; ``nodes``: the arrays of a tree without any."""
    actions, scores = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    values = np.zeros((0, num_actions), dtype=np.float32)
    frames = np.zeros((0, TOKENS_PER_FRAME), dtype=np.uint16) if keep_frames else None
    return Plan(
        actions, scores, values, values.copy(), np.zeros((0, 1), dtype=np.float32),
        np.zeros((0, 1, 0), dtype=np.int64), nodes, frames,
    )  # fmt: skip


def shared_settings(config: PlannerConfig) -> tuple[object, ...]:
    """What all roots of a batch must have in common, in the order of :data:`SHARED`."""
    return tuple(getattr(config, name) for name in SHARED)


def check_configs(configs: Sequence[PlannerConfig], own: PlannerConfig, context: Context, longest: int) -> None:
    """Raise ValueError unless every root has settings that can be planned with ``own``'s in one batch."""
    roots = len(context.lengths)
    if len(configs) != roots:
        raise ValueError(f"expected settings for each of {roots} roots, got {len(configs)}")
    for root, config in enumerate(configs):
        if shared_settings(config) != shared_settings(own):
            raise ValueError(f"settings of root {root} must have the planner's own {', '.join(SHARED)}")
    for root, (steps, config) in enumerate(zip(context.lengths.tolist(), configs, strict=True)):
        if steps + config.depth > longest:
            raise ValueError(
                f"a context of {steps} steps and a horizon of {config.depth} (root {root}) exceed the model's "
                f"{longest} steps: shorten the context"
            )
