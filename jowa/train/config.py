"""Settings of ``python -m jowa.train``; the docstring under a field is what ``--help`` prints.

The defaults of each field are those of the ``tiny`` preset, whose point is to learn real games on two CPU
cores within minutes.  :mod:`jowa.train.presets` holds the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jowa.config import PRESETS, ModelConfig, ObjectiveConfig, PlannerName, TokenizerConfig, TokenizerLossConfig

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
    transitions: int = 0
    """Agent steps of each game to train on, exactly so many, drawn by whole episodes without replacement (the last one
    is cut); 0: all that the data set holds."""
    tokens: Path | None = None
    """Folder of tokens for stage 2, which must be this run's tokenizer's; default: those that the data set holds
    (python -m jowa.tokenize), else the run encodes them itself."""


@dataclass(frozen=True)
class StageOneConfig:
    """Stage 1: tokenizer and world model train together."""

    steps: int = 200
    """Optimizer steps."""
    batch_size: int = 12
    """Segments a step over all processes, for the world model."""
    tokenizer_batch: int = 60
    """Frames a step over all processes, for the tokenizer; whole segments are drawn, so rounded down to those."""
    world_from: int = 0
    """First step at which the world model trains too; 0 as published, and always where no tokenizer trains."""
    tokenizer_learning_rate: float = 2e-3
    """Adam, per step."""
    learning_rate: float = 1e-3
    """For the world model, per step."""
    motion_weight: float = 800.0
    """Extra weight in the reconstruction error of each patch with motion, shared by its moving pixels (a patch at rest
    weighs 196); 0 as published."""
    revive_every: int = 50
    """Steps between moving unused codes onto poorly coded patches, in the first three quarters of the stage; 0 never,
    as published."""
    world_from_codebook: bool = True
    """At the start of the world model, set its frame embedding to a random projection of the codebook's principal
    components, so that similar codes start out alike; not where the run starts from an agent's weights."""


@dataclass(frozen=True)
class StageTwoConfig:
    """Stage 2: the tokenizer is frozen; critic and world model train jointly."""

    steps: int = 8_000
    """Optimizer steps."""
    batch_size: int = 12
    """Segments a step over all processes."""
    learning_rate: float = 1e-3
    """For backbone and heads, per step."""
    target_every: int = 50
    """Steps between updates of the target head."""
    target_rate: float = 1.0
    """How far an update moves the target head towards the Q head; 1 copies it, as published."""
    train_tokenizer: bool = False
    """Let the tokenizer go on training with stage 1's settings for it, and encode every batch anew: as the paper
    fine-tunes.  Off: it is frozen and the data set is encoded once, as the paper pretrains.  One of ``patches`` moves
    the codes that its data does not use to patches that lack one, before the first step, and is frozen then."""
    imagined: Literal["none", "half"] = "none"
    """``half``: in half of each batch the last steps of a segment are imagined by the model as beam search would have
    it play, and only the critic learns from them (the paper's ablation of fine-tuning)."""
    imagined_from: int = 20_000
    """First step of stage 2 with imagined segments."""
    imagined_width: int = 2
    """Beam width of imagined segments."""
    imagined_horizon: int = 2
    """Steps that are imagined in a segment."""


@dataclass(frozen=True)
class OptimizerConfig:
    """What both stages' optimizers share."""

    name: Literal["adamw", "muon"] = "adamw"
    """Of the model: ``adamw``, as published; ``muon``: hidden matrices by Muon, the rest by AdamW, at one learning
    rate.  The tokenizer has Adam."""
    muon_iterations: int = 3
    """Newton-Schulz iterations of a Muon step; five make the singular values more alike and cost more."""
    weight_decay: float = 0.01
    """AdamW, on Linear weights and the Q head; none on biases, norms, embeddings."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises from 0 at the start of a stage; 0 as published."""
    final_fraction: float = 0.1
    """Share of the learning rate left at the end of a stage (cosine decay); 1 keeps it constant, as published."""


@dataclass(frozen=True)
class ParallelConfig:
    """How a batch is computed: on how many processes, in which pieces.  Speed and memory, not results."""

    microbatches: int = 1
    """Microbatches into which each batch is cut, over all processes (at least one each): a process adds up the
    gradients of its own.  Runs with the same number compute the same on any number of processes."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes.  ``ddp``: each holds the whole model; ``fsdp``: each holds a part of every weight, of its
    gradient and of its optimizer's state (FSDP2), and the tokenizer, which is small, stays whole."""
    checkpoint_activations: bool = False
    """Compute each transformer block a second time in the backward pass instead of keeping what is inside it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the objective; with several processes of the transformer's blocks and the Q heads.  ``auto``: on
    a GPU."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept of a run, to go on from after it was stopped or killed."""

    every: int = 2000
    """Steps between checkpoints; at the end of each stage, before each look at the agent, and when the run is asked to
    stop there is one too."""
    keep: int = 2
    """Newest checkpoints that are kept, beside the best."""
    asynchronous: bool = True
    """Write a copy of the state while the training goes on; it takes as much memory as the state."""


@dataclass(frozen=True)
class HealthConfig:
    """What is watched while a run trains."""

    bad_steps: int = 10
    """Steps in a row with a loss or gradient that is not finite after which the run stops; each of them is skipped."""
    evaluate_every: int = 0
    """Steps of stage 2 between looks at the agent in the real games, without and with planning; 0: none."""
    evaluate_episodes: int = 2
    """Episodes a game at each look."""
    evaluate_steps: int = 2_000
    """Agent steps after which such an episode is cut off."""
    picture_every: int = 0
    """Steps between pictures of real, reconstructed and imagined frames among the curves; 0: none."""
    wandb: str = ""
    """Weights & Biases project to log to beside TensorBoard (needs the wandb package); empty: none."""


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
    td_lambda: float | None = None
    """Share of a plan's score that the imagined states have at each depth, the rest is what Q says of the actions; 1,
    as published: imagined states alone.  None: that of the agent which the run starts from, else 0.25."""
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
    """Size and settings to start from: tiny, 40M, 70M, 150M or 400M; other options override it."""
    out: Path = Path("runs/demo")
    """Folder for checkpoints, metrics, pictures and the agent; a run found there is resumed."""
    seed: int = 0
    """Seed of weights, data order, evaluation, and of recording where there is no data set yet."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights stay float32.  ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    log_every: int = 20
    """Steps between metrics."""
    restart: bool = False
    """Start anew even if ``out`` holds a run: what it wrote is deleted."""
    dry_run: bool = False
    """Only say what the run would take: parameters, arithmetic, memory by microbatches, days.  Writes nothing."""
    dry_run_gpu: Literal["H200", "H100", "A100"] = "H200"
    """The GPU for which ``dry_run`` reckons."""
    dry_run_gpus: int = 1
    """How many of them, as ``parallel.strategy`` would spread the run."""
    profile_steps: int = 0
    """Steps of each stage to profile, after a warm-up: where their time goes is printed, and traces for Chrome are
    written to ``out``/profile; 0: none."""
    tokenizer_from: Path | None = None
    """Agent (folder, demo, owner/name on the hub) whose tokenizer is used as it is; stage 1 then trains the world model
    alone, on tokens.  Its sizes must be those of ``tokenizer``."""
    start_from: Path | None = None
    """Agent (likewise) whose tokenizer and model the run starts from; their sizes must be those of ``tokenizer`` and
    ``model``.  Its games keep their task ids, and a new game trains under the id that the agent plays it under."""
    from_scratch: bool = False
    """Take the task ids of ``start_from`` but not its weights: the same run without pretraining, to compare with."""
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=lambda: PRESETS["tiny"].tokenizer)
    tokenizer_loss: TokenizerLossConfig = field(default_factory=lambda: TokenizerLossConfig(perceptual="none"))
    model: ModelConfig = field(default_factory=lambda: PRESETS["tiny"].model)
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(cql_weight=1.0, world_weight=0.2, observed_weight=0.5)
    )
    stage1: StageOneConfig = field(default_factory=StageOneConfig)
    stage2: StageTwoConfig = field(default_factory=StageTwoConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="muon"))
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    draft: DraftHeadConfig = field(default_factory=DraftHeadConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def trains_tokenizer(self, stage: int) -> bool:
        """Whether the tokenizer trains by gradient in ``stage`` (1 or 2)."""
        if self.tokenizer_from is not None or self.tokenizer.encoder == "patches":
            return False
        return stage == 1 or self.stage2.train_tokenizer

    @property
    def fits_codes(self) -> bool:
        """Whether the codes of a tokenizer of ``patches`` are found before the first step."""
        if self.tokenizer_from is not None or self.tokenizer.encoder != "patches":
            return False
        return self.start_from is None or self.from_scratch or self.stage2.train_tokenizer
