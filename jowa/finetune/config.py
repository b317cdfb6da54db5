"""Settings of ``python -m jowa.finetune``, and the training run that they stand for.

The defaults are the paper's (arXiv 2410.00564, table of hyperparameters, fine-tuning).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import tyro

from jowa.agent_folder import read_sizes
from jowa.config import WEIGHT_FREE, ModelConfig, ObjectiveConfig, TokenizerConfig, TokenizerLossConfig
from jowa.games import get_game
from jowa.hub import find_agent
from jowa.train.config import (
    CheckpointConfig,
    DataConfig,
    DraftHeadConfig,
    EvaluationConfig,
    HealthConfig,
    OptimizerConfig,
    ParallelConfig,
    StageOneConfig,
    StageTwoConfig,
    TrainConfig,
)

LOCAL_MOTION_WEIGHT = StageOneConfig().motion_weight
"""What a ``local`` tokenizer was trained with; without it, it forgets small moving objects."""


@dataclass(frozen=True)
class TokenizerLossOptions:
    """The tokenizer's loss; what is left out is as in training: published for a ``published`` tokenizer, free of
    pretrained weights for a ``local`` one."""

    perceptual: Literal["auto", "lpips", "none"] | None = None
    """The perceptual term: ``auto`` if VGG16's weights are on disk, ``lpips`` insists on it, ``none`` leaves it out;
    default: ``auto``, for a ``local`` tokenizer ``none``."""
    perceptual_weight: float | None = None
    """Weight of the perceptual term; default: 1."""
    square_weight: float | None = None
    """Weight of the mean squared error of pixels in [-1, 1]; default: 0, for a ``local`` tokenizer 2."""
    codebook: Literal["gradient", "ema"] | None = None
    """How codes follow the latents; ``ema`` (moving averages) only with ``from_scratch``; default: ``gradient``."""
    ema_decay: float | None = None
    """Share of a code's moving average that a step keeps (``ema`` only); default: 0.99."""

    def of(self, tokenizer: TokenizerConfig) -> TokenizerLossConfig:
        """The loss for a tokenizer of this kind."""
        usual = WEIGHT_FREE if tokenizer.encoder == "local" else TokenizerLossConfig()
        return replace(usual, **{name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune an agent on few transitions of one game, then play it."""

    agent: tyro.conf.Positional[Path]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent. It is what to start from, and stays as it is."""
    game: str
    """Game to train on, CamelCase as in DQN-Replay."""
    data: Path
    """Folder of an episode store that holds the game (python -m jowa.record, python -m jowa.import_dqn_replay)."""
    transitions: int = 5_000
    """Agent steps to train on, exactly so many, drawn by whole episodes without replacement (the last one is cut); 0:
    all that the store holds."""
    steps: int = 50_000
    """Optimizer steps."""
    out: Path | None = None
    """Folder for checkpoints, metrics and the new agent; a run found there is resumed.  Default: runs/finetune-GAME."""
    seed: int = 0
    """Seed of the transitions drawn, of their order, and of evaluation."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights stay float32.  ``auto``: bfloat16 on a GPU, float32 on a CPU."""
    from_scratch: bool = False
    """Start from random weights of the same sizes instead of the agent's: what pretraining is worth."""
    batch_size: int = 32
    """Segments a step."""
    segment_length: int | None = None
    """Steps in a training segment, one starting at every step of an episode; default: the model's context (8 as
    published)."""
    learning_rate: float = 5e-5
    """For backbone, world model and critic, per step."""
    target_every: int = 1_000
    """Steps between copies of the Q head to the target head."""
    tokenizer: Literal["train", "frozen"] = "train"
    """``train``: the tokenizer goes on training beside the model, as published, and every batch is encoded anew.
    ``frozen``: the data are encoded once."""
    tokenizer_learning_rate: float = 1e-4
    """Adam for the tokenizer, per step."""
    tokenizer_batch: int = 128
    """Frames a step for the tokenizer; whole segments are drawn, so rounded down to those."""
    motion_weight: float | None = None
    """Extra weight of patches with motion in the tokenizer's loss; default: 0, as published, for a ``published``
    tokenizer, and for a ``local`` one what it was trained with."""
    revive_every: int = 0
    """Steps between moving unused codes onto poorly coded patches; 0 never, as published."""
    imagined: Literal["none", "half"] = "none"
    """``half``: in half of each batch the last steps of a segment are imagined by the model as beam search would have
    it play, and only the critic learns from them."""
    imagined_from: int = 20_000
    """First step with imagined segments."""
    imagined_width: int = 2
    """Beam width of imagined segments."""
    imagined_horizon: int = 2
    """Steps that are imagined in a segment."""
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
    """Steps to profile, after a warm-up: where their time goes is printed, and traces for Chrome are written to
    ``out``/profile; 0: none."""
    tokenizer_loss: TokenizerLossOptions = field(default_factory=TokenizerLossOptions)
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(world_weight=0.5))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(warmup_steps=0, final_fraction=1.0))
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every=1_000))
    health: HealthConfig = field(default_factory=HealthConfig)
    draft: DraftHeadConfig = field(default_factory=DraftHeadConfig)
    evaluation: EvaluationConfig = field(default_factory=lambda: EvaluationConfig(max_steps=27_000))

    def training(self) -> TrainConfig:
        """The run of :mod:`jowa.train` that this is: stage 2 alone, from the agent's weights.

        Raises :class:`UsageError` for settings that cannot work with this agent, :class:`CheckpointError` when there is
        no agent.
        """
        from jowa.train.checks import check_config

        get_game(self.game)
        folder = find_agent(self.agent)
        config = replace(self, agent=folder)._training(*read_sizes(folder)[:2])
        check_config(config)
        return config

    def _training(self, tokenizer: TokenizerConfig, model: ModelConfig) -> TrainConfig:
        motion_weight = LOCAL_MOTION_WEIGHT if tokenizer.encoder == "local" else 0.0
        return TrainConfig(
            preset="finetune",
            out=Path(f"runs/finetune-{self.game}") if self.out is None else self.out,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            checkpoint=self.checkpoint,
            log_every=self.log_every,
            restart=self.restart,
            dry_run=self.dry_run,
            dry_run_gpu=self.dry_run_gpu,
            dry_run_gpus=self.dry_run_gpus,
            profile_steps=self.profile_steps,
            start_from=self.agent,
            from_scratch=self.from_scratch,
            data=DataConfig(
                path=self.data,
                games=(self.game,),
                record_steps=0,
                segment_length=model.context_steps if self.segment_length is None else self.segment_length,
                segment_stride=1,
                transitions=self.transitions,
            ),
            tokenizer=tokenizer,
            tokenizer_loss=self.tokenizer_loss.of(tokenizer),
            model=model,
            objective=self.objective,
            stage1=StageOneConfig(
                steps=0,
                tokenizer_batch=self.tokenizer_batch,
                tokenizer_learning_rate=self.tokenizer_learning_rate,
                motion_weight=motion_weight if self.motion_weight is None else self.motion_weight,
                revive_every=self.revive_every,
                batch_size=self.batch_size,
            ),
            stage2=StageTwoConfig(
                steps=self.steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                target_every=self.target_every,
                train_tokenizer=self.tokenizer == "train",
                imagined=self.imagined,
                imagined_from=self.imagined_from,
                imagined_width=self.imagined_width,
                imagined_horizon=self.imagined_horizon,
            ),
            optimizer=self.optimizer,
            parallel=self.parallel,
            health=self.health,
            draft=self.draft,
            evaluation=self.evaluation,
        )


OWN_NAMES = {
    "stage1.steps or --stage2.steps": "steps",
    "stage2.train_tokenizer and --start_from": "from-scratch",
    "stage2.train_tokenizer or --stage1.steps": "tokenizer train",
    "stage2.train_tokenizer": "tokenizer train",
    "data.path": "data",
    "data.games": "game",
    "start_from": "agent",
}
"""Settings of :mod:`jowa.train` that are called otherwise here than by their last part."""

SETTINGS = OWN_NAMES | {
    f"{group}.{setting.name}": setting.name
    for group, kind in (("data", DataConfig), ("stage1", StageOneConfig), ("stage2", StageTwoConfig))
    for setting in fields(kind)
    if f"{group}.{setting.name}" not in OWN_NAMES
}
NAME = re.compile(
    r"(?<![\w/.])(?<!\w-)(?:"
    + "|".join(re.escape(name).replace("_", "[_-]") for name in sorted(SETTINGS, key=len, reverse=True))
    + r")(?![\w/-])"
)
"""A setting of :mod:`jowa.train` as errors name it, with underscores or as an option; nothing inside a path."""


def in_own_names(message: str) -> str:
    """What :mod:`jowa.train` says about its settings, with the options of this command."""
    message = message.replace("set --model.num-atoms 1", "leave --objective.critic as the agent was trained")

    def own(found: re.Match[str]) -> str:
        name = SETTINGS[found[0].replace("-", "_").replace("__", "--")]
        return name.replace("_", "-") if message[: found.start()].endswith("--") else name

    return NAME.sub(own, message)
