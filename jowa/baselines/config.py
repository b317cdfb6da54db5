"""Settings of ``python -m jowa.baselines``; the docstring under a field is what ``--help`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from jowa.rivals import HISTORY, Choice, ConvConfig, Kind, SequenceConfig
from jowa.train.config import (
    CheckpointConfig,
    DataConfig,
    HealthConfig,
    OptimizerConfig,
    StageOneConfig,
    StageTwoConfig,
    TrainConfig,
)


@dataclass(frozen=True)
class RivalData:
    """The offline data set."""

    path: Path = Path("data/demo")
    """Folder of the episode store (python -m jowa.record, python -m jowa.import_dqn_replay)."""
    games: tuple[str, ...] = ()
    """Games to train on, CamelCase as in DQN-Replay; none: all that the store holds."""
    transitions: int = 0
    """Agent steps of each game to train on, exactly so many, drawn by whole episodes without replacement (the last one
    is cut): those that the joint agent draws with the same seed; 0: all that the data set holds."""


@dataclass(frozen=True)
class SequenceData(RivalData):
    """The offline data set, as segments of tokens."""

    segment_length: int = 2
    """Steps in a training segment; at most the model's context.  The action of each is predicted."""
    segment_stride: int = 1
    """A new segment starts every so many steps of an episode."""
    tokens: Path | None = None
    """Folder of the data set's tokens, made by the same tokenizer; default: those that the data set holds
    (python -m jowa.tokenize), else the run encodes them itself."""


@dataclass(frozen=True)
class CriticObjective:
    """The loss of ``scaled-ql``: C51 temporal difference and CQL."""

    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 1
    """Rewards that are summed before looking at the target network."""
    cql_weight: float = 1.0
    """Weight of the conservative term beside the TD loss."""
    target_every: int = 50
    """Steps between copies of the network to its target."""


@dataclass(frozen=True)
class RivalHealth:
    """What is watched while a run trains."""

    bad_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite after which the run stops; each of them is skipped."""
    wandb: str = ""
    """Weights & Biases project to log to beside TensorBoard (needs the wandb package); empty: none."""


@dataclass(frozen=True)
class RivalEvaluation:
    """Playing the real games at the end of training, and by default later."""

    episodes: int = 10
    """Episodes a game, for each row of the table; 0 skips evaluation."""
    context: int = 1
    """Steps of memory of mtbc and mgdt."""
    choice: Choice = "likely"
    """Of mtbc and mgdt.  ``likely``: the most likely legal action; ``sampled``: one drawn from the policy."""
    kappa: float = 10.0
    """How much the return that mgdt asks for leans to high ones: its chance is multiplied by exp(kappa R / 100)."""
    protocol: Literal["sticky", "published"] = "sticky"
    """``sticky``: the field's protocol (sticky actions 0.25, 27,000 agent steps); ``published``: the paper's."""
    max_steps: int = 3_000
    """Agent steps after which an episode is cut off, if the protocol does not do so before."""


@dataclass(frozen=True)
class BaselineConfig:
    """What all rivals' settings share."""

    rival: tyro.conf.Suppress[Kind] = "mtbc"
    """Which rival."""
    size: str = "M"
    """S, M or L (mtbc and mgdt also 40M, 70M, 150M): the networks' sizes; --model options override them."""
    out: Path = Path("runs/rival")
    """Folder for checkpoints, metrics, the curve and the rival; a run found there is resumed."""
    steps: int = 10_000
    """Optimizer steps."""
    batch_size: int = 16
    """Segments (mtbc, mgdt) or transitions (scaled-ql) a step."""
    learning_rate: float = 1e-3
    """Per step, whichever the optimizer."""
    seed: int = 0
    """Seed of weights, data order and evaluation."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights stay float32.  ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    log_every: int = 50
    """Steps between metrics."""
    restart: bool = False
    """Start anew even if ``out`` holds a run: what it wrote is deleted."""
    dry_run: bool = False
    """Only say what would train: parameters, and how often the steps pass through the data.  Writes nothing."""
    start_from: Path | None = None
    """Folder of a rival of this kind whose weights, sizes and tokenizer the run starts from.  Its games keep their task
    ids, and a new game trains under the id that the rival plays it under."""
    from_scratch: bool = False
    """Take the sizes, the tokenizer and the task ids of ``start_from`` but not its weights: the same run without
    pretraining, to compare with."""
    data: RivalData = field(default_factory=RivalData)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="muon"))
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: RivalHealth = field(default_factory=RivalHealth)
    evaluation: RivalEvaluation = field(default_factory=RivalEvaluation)

    @property
    def segment(self) -> tuple[int, int]:
        """Steps of a training segment, and how many steps of an episode lie between two starts."""
        raise NotImplementedError


@dataclass(frozen=True)
class SequenceBaseline(BaselineConfig):
    """What mtbc and mgdt share."""

    tokenizer_from: Path | None = None
    """Folder of an agent (or of another rival) whose tokenizer makes the frames' tokens; it stays as it is.  Needed
    unless the run starts from a rival."""
    model: SequenceConfig = field(default_factory=SequenceConfig)
    data: SequenceData = field(default_factory=SequenceData)

    @property
    def segment(self) -> tuple[int, int]:
        """Steps of a training segment, and how many steps of an episode lie between two starts."""
        return self.data.segment_length, self.data.segment_stride


@dataclass(frozen=True)
class MtbcConfig(SequenceBaseline):
    """Multi-task behaviour cloning: the joint agent's transformer predicts the data's action."""


@dataclass(frozen=True)
class MgdtConfig(SequenceBaseline):
    """Multi-game decision transformer: predicts the return to come, then the action that goes with it."""

    rival: tyro.conf.Suppress[Kind] = "mgdt"


@dataclass(frozen=True)
class ScaledQlConfig(BaselineConfig):
    """Scaled Q-learning: a convolutional network over stacked frames, with C51 and CQL."""

    rival: tyro.conf.Suppress[Kind] = "scaled-ql"
    batch_size: int = 32
    """Transitions a step."""
    model: ConvConfig = field(default_factory=ConvConfig)
    objective: CriticObjective = field(default_factory=CriticObjective)

    @property
    def segment(self) -> tuple[int, int]:
        """A stack of frames, and the n steps after its newest; one starts at every step of an episode."""
        return HISTORY + self.objective.n_step, 1


AnyConfig = MtbcConfig | MgdtConfig | ScaledQlConfig


def as_training(config: BaselineConfig, games: tuple[str, ...]) -> TrainConfig:
    """What :mod:`jowa.train`'s feed and loggers need to know, in its own words: stage 2 alone."""
    length, stride = config.segment
    tokens = config.data.tokens if isinstance(config.data, SequenceData) else None
    return TrainConfig(
        preset=config.rival,
        out=config.out,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
        data=DataConfig(
            path=config.data.path, games=games, record_steps=0, segment_length=length, segment_stride=stride,
            transitions=config.data.transitions, tokens=tokens,
        ),
        stage1=StageOneConfig(steps=0, batch_size=config.batch_size, tokenizer_batch=length),
        stage2=StageTwoConfig(steps=config.steps, batch_size=config.batch_size),
        health=HealthConfig(bad_steps=config.health.bad_steps, wandb=config.health.wandb),
    )  # fmt: skip
