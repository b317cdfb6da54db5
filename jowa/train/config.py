"""Settings of ``python -m jowa.train``; the docstring under a field is what ``--help`` prints.

The defaults of each field are those of the ``tiny`` preset, whose point is to learn real games on two CPU
cores within minutes.  :data:`TRAIN_PRESETS` holds the published settings for 40M, 70M and 150M
(arXiv 2410.00564).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jowa.config import PRESETS, ModelConfig, TokenizerConfig
from jowa.errors import UsageError, unknown_name
from jowa.games import PRETRAINING_GAMES, get_game
from jowa.model.objective import ObjectiveConfig
from jowa.planner.plan import PlannerName

DEMO_GAMES = ("Freeway", "Pong")


@dataclass(frozen=True)
class DataConfig:
    """The offline data set."""

    path: Path = Path("data/demo")
    """Folder of the episode store; recorded first if it does not exist, resumed if it holds less than was asked for,
    else used as it is."""
    games: tuple[str, ...] = DEMO_GAMES
    """Games to train on, CamelCase as in DQN-Replay."""
    record_steps: int = 40_000
    """Agent steps to record for each game when the store is absent; 0: train on what is there, and an absent store is
    an error."""
    record_max_steps: int = 3_000
    """Agent steps after which a recorded episode is cut off."""
    segment_length: int = 2
    """Steps in a training segment; at most the model's context.  Imagination beyond it was never trained."""
    segment_stride: int = 1
    """A new segment starts every so many steps of an episode."""
    tokens: Path | None = None
    """Folder of tokens for stage 2, which must be this run's tokenizer's; default: those that the data set holds
    (python -m jowa.tokenize), else the run encodes them itself."""


@dataclass(frozen=True)
class StageOneConfig:
    """Stage 1: tokenizer and world model train together."""

    steps: int = 2400
    """Optimizer steps."""
    batch_size: int = 12
    """Segments a step over all processes, for the world model."""
    tokenizer_batch: int = 60
    """Frames a step over all processes, for the tokenizer; whole segments are drawn, so rounded down to those."""
    world_from: int = 2200
    """First step at which the world model trains too; 0 as published."""
    tokenizer_learning_rate: float = 2e-3
    """Adam, per step."""
    learning_rate: float = 1e-3
    """AdamW for the world model, per step."""
    motion_weight: float = 800.0
    """Extra weight in the reconstruction error of each patch with motion, shared by its moving pixels (a patch at rest
    weighs 196); 0 as published."""
    revive_every: int = 50
    """Steps between moving unused codes onto poorly coded patches, in the first three quarters of the stage; 0 never,
    as published."""
    world_from_codebook: bool = True
    """At the start of the world model, set its frame embedding to a random projection of the codebook, so
    that similar codes start out alike."""


@dataclass(frozen=True)
class StageTwoConfig:
    """Stage 2: the tokenizer is frozen; critic and world model train jointly."""

    steps: int = 14_000
    """Optimizer steps."""
    batch_size: int = 12
    """Segments a step over all processes."""
    learning_rate: float = 1e-3
    """AdamW, per step, for backbone and heads."""
    target_every: int = 50
    """Steps between updates of the target head."""
    target_rate: float = 1.0
    """How far an update moves the target head towards the Q head; 1 copies it, as published."""


@dataclass(frozen=True)
class OptimizerConfig:
    """What both stages' optimizers share."""

    weight_decay: float = 0.01
    """AdamW, on Linear weights and the Q head; none on biases, norms, embeddings."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0 at the start of a stage; 0 as published."""
    final_fraction: float = 0.1
    """Share of the learning rate left at the end of a stage (cosine decay); 1 keeps it constant, as published."""


@dataclass(frozen=True)
class DraftHeadConfig:
    """The draft head, trained beside the finished model: it guesses imagined frames, which makes planning faster."""

    moments: int = 1_500
    """Recorded moments a game that the model imagines from, to have something to learn from."""
    steps: int = 1_500
    """Training steps; 0: no draft head."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Playing the real games at the end of training."""

    episodes: int = 10
    """Episodes a game, for each row of the table; 0 skips evaluation."""
    planner: PlannerName = "none"
    """How the saved agent plays unless told otherwise; the table always has both.  The few minutes of ``tiny`` teach
    its critic to choose, not yet to value imagined frames."""
    width: int = 2
    """Beam width."""
    horizon: int = 1
    """Imagined steps."""
    context: int = 1
    """Steps of memory that the agent plans from."""
    protocol: Literal["sticky", "published"] = "sticky"
    """``sticky``: the field's protocol (sticky actions 0.25, 27,000 agent steps); ``published``: the paper's."""
    max_steps: int = 3_000
    """Agent steps after which an episode is cut off, if the protocol does not do so before."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a joint world-action model offline, then play with it."""

    preset: str = "tiny"
    """Size and settings to start from: tiny, 40M, 70M or 150M; other options override it."""
    out: Path = Path("runs/demo")
    """Folder for checkpoints, metrics, pictures and the agent; a run found there is resumed."""
    seed: int = 0
    """Seed of weights, data order, evaluation, and of recording where there is no data set yet."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights stay float32.  ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    checkpoint_every: int = 2000
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between metrics."""
    restart: bool = False
    """Start anew even if ``out`` holds a run: what it wrote is deleted."""
    tokenizer_from: Path | None = None
    """Agent folder whose tokenizer is used as it is; stage 1 then trains the world model alone, on tokens.  Its sizes
    must be those of ``tokenizer``."""
    lpips_vgg: str = ""
    """torchvision's VGG16 state dict, for the tokenizer's perceptual term; empty leaves the term out."""
    lpips_linear: str = ""
    """The lpips package's ``vgg.pth``, to go with ``lpips_vgg``."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=lambda: PRESETS["tiny"].tokenizer)
    model: ModelConfig = field(default_factory=lambda: PRESETS["tiny"].model)
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(cql_weight=1.0, world_weight=0.2))
    stage1: StageOneConfig = field(default_factory=StageOneConfig)
    stage2: StageTwoConfig = field(default_factory=StageTwoConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    draft: DraftHeadConfig = field(default_factory=DraftHeadConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def check(self) -> None:
        """Raise :class:`UsageError` for settings that cannot work together, before anything is written."""
        for game in self.data.games:
            get_game(game)
        if not self.data.games or len(set(self.data.games)) != len(self.data.games):
            raise UsageError(f"games are {' '.join(self.data.games) or 'none'}: name at least one, each once")
        _check_ranges(self)
        if not 2 <= self.data.segment_length <= self.model.context_steps:
            raise UsageError(
                f"segment length {self.data.segment_length} is outside 2..{self.model.context_steps}, "
                "the model's context: set --data.segment-length or --model.context-steps"
            )
        if self.model.width % self.model.heads:
            raise UsageError(f"model.width {self.model.width} is not a multiple of model.heads {self.model.heads}")
        if self.model.vocab_size != self.tokenizer.vocab_size:
            raise UsageError(
                f"model.vocab_size {self.model.vocab_size} and tokenizer.vocab_size {self.tokenizer.vocab_size} "
                "differ: a model reads the tokens of its own tokenizer"
            )
        if self.stage1.steps and self.stage1.world_from >= self.stage1.steps:
            raise UsageError(
                f"stage1.world_from is {self.stage1.world_from}, but stage 1 ends after {self.stage1.steps} steps: the "
                "world model would never train in it; lower --stage1.world-from"
            )
        if self.model.v_min >= self.model.v_max:
            raise UsageError(f"model.v_min {self.model.v_min} is not below model.v_max {self.model.v_max}: set one")
        if self.model.q_init is not None and not self.model.v_min < self.model.q_init < self.model.v_max:
            raise UsageError(
                f"model.q_init is {self.model.q_init}, expected between model.v_min {self.model.v_min} and "
                f"model.v_max {self.model.v_max}: set --model.q-init"
            )
        if self.evaluation.context + self.evaluation.horizon > self.model.context_steps:
            raise UsageError(
                f"evaluation context {self.evaluation.context} and horizon {self.evaluation.horizon} exceed the "
                f"model's {self.model.context_steps} steps: shorten one"
            )
        if bool(self.lpips_vgg) != bool(self.lpips_linear):
            raise UsageError("the perceptual term needs both --lpips-vgg and --lpips-linear, or neither")


def check_split(config: TrainConfig, processes: int) -> None:
    """Raise :class:`UsageError` for batches that do not divide among ``processes``."""
    length = config.data.segment_length
    batches = {
        "stage1.tokenizer_batch": config.stage1.tokenizer_batch // length,
        "stage1.batch_size": config.stage1.batch_size,
        "stage2.batch_size": config.stage2.batch_size,
    }
    for name, segments in batches.items():
        if segments < 1 or segments % processes:
            unit = f" frames make {segments} segments, which" if name == "stage1.tokenizer_batch" else ""
            value = config.stage1.tokenizer_batch if unit else segments
            raise UsageError(
                f"{name} {value}{unit} cannot be split evenly among {processes} process(es): "
                f"set --{name.replace('_', '-')} to a multiple of {processes * (length if unit else 1)}"
            )


LEAST = {
    "seed": 0, "checkpoint_every": 1, "log_every": 1, "data.record_steps": 0, "data.segment_stride": 1,
    "stage1.steps": 0, "stage1.batch_size": 1, "stage1.tokenizer_batch": 1, "stage1.world_from": 0,
    "stage1.tokenizer_learning_rate": 0, "stage1.learning_rate": 0, "stage1.motion_weight": 0,
    "stage1.revive_every": 0, "data.record_max_steps": 1, "stage2.steps": 0, "stage2.batch_size": 1,
    "stage2.learning_rate": 0, "stage2.target_every": 1, "stage2.target_rate": 0,
    "optimizer.weight_decay": 0, "optimizer.gradient_clip": 1e-6,
    "optimizer.warmup_steps": 0, "optimizer.final_fraction": 0, "model.layers": 1, "model.heads": 1,
    "model.width": 1, "model.vocab_size": 2, "evaluation.episodes": 0, "evaluation.width": 1,
    "draft.moments": 1, "draft.steps": 0,
    "evaluation.horizon": 0, "evaluation.context": 1, "evaluation.max_steps": 1, "model.num_tasks": 60,
    "model.num_actions": 18, "model.num_atoms": 2, "model.context_steps": 2, "model.q_width": 1, "model.q_ensemble": 1,
    "model.dropout": 0, "model.q_dropout": 0, "objective.gamma": 0, "objective.cql_weight": 0,
    "objective.world_weight": 0, "objective.action_noise": 0,
}  # fmt: skip
"""The least value of each setting that has one."""

MOST = {
    "stage2.target_rate": 1, "optimizer.final_fraction": 1, "model.dropout": 1, "model.q_dropout": 1,
    "model.vocab_size": 65_536, "objective.gamma": 1, "objective.action_noise": 1,
}  # fmt: skip
"""The largest value of each setting that has one; tokens are stored as uint16."""


def _check_ranges(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for a number that is too small or large, or a segment stride that skips steps."""
    for name in LEAST | MOST:
        value: object = config
        for part in name.split("."):
            value = getattr(value, part)
        least, most = LEAST.get(name, -math.inf), MOST.get(name, math.inf)
        if not (isinstance(value, (int, float)) and least <= value <= most):
            bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise UsageError(f"{name} is {value}, expected {bounds}: set --{name.replace('_', '-')}")
    if config.data.segment_stride >= config.data.segment_length:
        raise UsageError(
            f"a segment of {config.data.segment_length} steps every {config.data.segment_stride} leaves out what leads "
            "from one to the next: set --data.segment-stride below --data.segment-length"
        )
    if config.stage1.steps + config.stage2.steps < 1:
        raise UsageError("no steps to train: set --stage1.steps or --stage2.steps")


def _published(preset: str) -> TrainConfig:
    """The paper's pretraining settings at one size."""
    return TrainConfig(
        preset=preset,
        out=Path(f"runs/{preset}"),
        checkpoint_every=5_000,
        log_every=100,
        data=DataConfig(
            Path("data/atari15"), PRETRAINING_GAMES, record_steps=0, record_max_steps=27_000,
            segment_length=8, segment_stride=4,
        ),
        tokenizer=PRESETS[preset].tokenizer,
        model=PRESETS[preset].model,
        objective=ObjectiveConfig(),
        stage1=StageOneConfig(
            steps=250_000, batch_size=512, tokenizer_batch=2048, world_from=0, tokenizer_learning_rate=1e-4,
            learning_rate=1e-4, motion_weight=0.0, revive_every=0, world_from_codebook=False,
        ),
        stage2=StageTwoConfig(
            steps=1_500_000, batch_size=512, learning_rate=5e-5, target_every=1000, target_rate=1.0
        ),
        optimizer=OptimizerConfig(warmup_steps=0, final_fraction=1.0),
        evaluation=EvaluationConfig(
            episodes=16, planner="beam", width=4, horizon=2, context=4, protocol="published", max_steps=108_000
        ),
    )  # fmt: skip


TRAIN_PRESETS: dict[str, TrainConfig] = {"tiny": TrainConfig()} | {
    name: _published(name) for name in PRESETS if name != "tiny"
}


def get_train_preset(name: str) -> TrainConfig:
    """The settings of preset ``name``; :class:`UsageError` if there is none."""
    if name not in TRAIN_PRESETS:
        raise unknown_name("preset", name, TRAIN_PRESETS)
    return replace(TRAIN_PRESETS[name], preset=name)
