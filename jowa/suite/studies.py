"""The tables of the small study: its games, sizes, settings and minutes.  Edit here, nothing else needs to change.

What is edited is done again, and what depends on it: a job goes by its settings (:mod:`jowa.suite.ledger`).

Seconds and minutes are of one Zen 4 core in November 2026, those of a training step without AVX-512 (fine-tuning and
recording of the held-out games: reckoned); they are for estimates alone, and give way to measured times once there are
any.
"""

from __future__ import annotations

from dataclasses import dataclass

from jowa.suite.results import Planned, Quality

RECORD_STEPS_MOST = 3_000
"""Agent steps after which an episode is cut off, in recording and, unless the command says otherwise, in play."""


@dataclass(frozen=True)
class GameData:
    """What is recorded of a training game."""

    game: str
    steps: int
    """Agent steps."""
    policies: tuple[str, ...]
    """One an episode in turn: docs/players.md."""
    minutes: float


SCRIPT = ("expert", "expert:0.1", "expert:0.3", "expert:0.6", "random")
FOLLOWER = ("follower", "follower:0.1", "follower:0.3", "follower:0.6", "random")
LOOK = ("lookahead", "lookahead:0.2", "lookahead:0.5", "random")
ROUGH = ("expert", "expert:0.2", "expert:0.5", "expert:0.8", "random")
"""For games in which little noise hardly lowers the score."""

TRAINING = (
    GameData("Atlantis", 40_000, ROUGH, 0.5),
    GameData("Boxing", 40_000, ROUGH, 0.5),
    GameData("Breakout", 40_000, FOLLOWER, 0.5),
    GameData("Freeway", 40_000, SCRIPT, 0.5),
    GameData("MsPacman", 40_000, LOOK, 5.0),
    GameData("Pong", 40_000, FOLLOWER, 0.5),
)
"""Games of the pretraining."""

HELD_OUT = ("Assault", "DemonAttack")
"""Games that pretraining never sees, each recorded in three qualities."""
TRANSFER_POLICIES: dict[Quality, tuple[str, ...]] = {
    "expert": ("lookahead",),
    "mixed": LOOK,
    "weak": ("lookahead:0.5", "random"),
}
TRANSFER_RECORDED, TRANSFER_TRANSITIONS = 6_000, 5_000
"""Agent steps recorded, at least, and those of them that are trained on."""
TRANSFER_RECORD_MINUTES = 0.6


@dataclass(frozen=True)
class Size:
    """One size of agent, beside the settings of ``--preset tiny``."""

    options: tuple[str, ...]
    """Of python -m jowa.train."""
    step_seconds: float
    """A step of stage 2."""


SIZES = {
    "S": Size(("--model.width", "96", "--model.q-width", "192"), 0.070),
    "M": Size((), 0.104),
    "L": Size(
        ("--model.layers", "4", "--model.heads", "6", "--model.width", "192", "--model.q-width", "384"), 0.336
    ),
}  # fmt: skip
"""M is the preset itself; rivals have sizes of the same names (``python -m jowa.baselines``)."""
BASE = "M"
"""The size of ablations, rivals, planning and transfer, if it is among those asked for; else the first of those."""

STAGE1_STEPS = 200
"""In which the world model gets ahead of the critic."""
STAGE1_SECONDS = 0.05
STAGE2_STEPS_PER_GAME = 3_000
"""Steps of stage 2, or of a rival's training, for each of the training games: in Pong 2,000 by Muon teach more than
4,000 by AdamW (docs/training.md)."""
IMAGINED_SHARE = 1 / 7
"""Share of the steps after which imagined segments begin, where they are asked for."""

ABLATIONS: dict[str, tuple[str, ...]] = {
    "detach-q": ("--objective.detach-q",),
    "mse": ("--objective.critic", "mse", "--model.num-atoms", "1", "--objective.observed-weight", "0"),
    "no-cql": ("--objective.conservative", "none"),
    "combo": (
        "--objective.conservative", "combo", "--stage2.imagined", "half", "--stage2.imagined-from", "{imagined_from}",
        "--stage2.imagined-horizon", "1",
    ),
    "rem": ("--objective.ensemble", "rem"),
    "no-task-embedding": ("--model.no-task-embedding",),
}  # fmt: skip
"""By name: options of python -m jowa.train (docs/ablations.md)."""

PLANNING_VARIANT = "context-4"
PLANNING_OPTIONS = (
    "--model.context-steps", "4", "--data.segment-length", "4", "--stage1.batch-size", "12",
    "--stage2.batch-size", "12",
)  # fmt: skip
"""The agent whose planner is varied: the usual one imagines one step at most, this one three, and reads twice as many
frames a step."""
STEP_FACTORS = {"combo": 2.0, PLANNING_VARIANT: 1.65}
"""By variant: how much longer its steps take than the plain agent's of that size."""
PLANNING_GAMES = ("Freeway", "MsPacman", "Pong")
"""Those of the training games in which planners are compared; all where none of them is among the games asked for."""
OWN_PLAN = Planned("beam", width=2, horizon=1, td_lambda=0.25)
"""How ``tiny`` plans by default, beside playing greedily."""
PAPERS_PLAN = Planned("beam", width=2, horizon=1)
"""The same by the paper's score."""
PLANS = (
    Planned(),
    Planned("beam", width=2, horizon=1),
    Planned("beam", width=2, horizon=2),
    Planned("beam", width=2, horizon=3),
    Planned("beam", width=4, horizon=1),
    Planned("beam", width=4, horizon=2),
    Planned("beam", width=2, horizon=1, td_lambda=0.25),
    Planned("beam", width=2, horizon=2, td_lambda=0.25),
    Planned("beam", width=2, horizon=3, td_lambda=0.25),
    Planned("beam", width=4, horizon=2, td_lambda=0.25),
    Planned("beam", width=2, horizon=2, td_lambda=0.5),
    Planned("beam", width=2, horizon=2, td_lambda=0.25, ends=False),
    Planned("beam", width=2, horizon=2, td_lambda=0.25, uncertainty=1.0),
    Planned("mcts", horizon=3, simulations=4),
    Planned("mcts", horizon=3, simulations=16),
    Planned("mcts", horizon=3, simulations=32),
)
"""The planners compared, all on the same agents."""

RIVALS = ("mtbc", "mgdt", "scaled-ql")
RIVAL_STEP_SECONDS = {"mtbc": 0.082, "mgdt": 0.088, "scaled-ql": 0.124}

FINETUNE_STEPS, RIVAL_FINETUNE_STEPS = 1_000, 1_000
FINETUNE_STEP_SECONDS = 0.2
FINETUNE_OPTIONS = (
    "--batch-size", "12", "--tokenizer-batch", "24", "--learning-rate", "1e-3", "--tokenizer-learning-rate", "1e-3",
    "--target-every", "50", "--objective.cql-weight", "1", "--optimizer.name", "muon",
)  # fmt: skip
"""Of python -m jowa.finetune: the paper's settings starve so short a run."""
SCRATCH_OPTIONS = ("--from-scratch",)
FINETUNE_VARIANTS: dict[str, tuple[tuple[str, ...], tuple[Quality, ...]]] = {
    "imagined": (("--imagined", "half", "--imagined-from", "{imagined_from}", "--imagined-horizon", "1"), ("mixed",)),
}
"""Ablations of fine-tuning: by name, options and the qualities of data on which they are tried."""

DECISION_SECONDS, IMAGINED_SECONDS, RANDOM_SECONDS = 1.4e-3, 3e-4, 3e-4
"""A greedy decision; what each imagined step adds to it; a random decision."""
EPISODE_STEPS = 1_500
"""Of an episode, on average: for estimates alone."""
EVALUATION_SEED = 1_000
"""The environments of the agent of seed k start from this + k, never from a seed of the recording."""
START_MINUTES = 0.12
"""What a job takes before and after its work."""
