"""Complete settings by name: ``tiny``, those published for 40M, 70M and 150M (arXiv 2410.00564), 400M like them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jowa.config import PRESETS, ObjectiveConfig, TokenizerLossConfig
from jowa.errors import unknown_name
from jowa.games import PRETRAINING_GAMES
from jowa.train.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    HealthConfig,
    OptimizerConfig,
    StageOneConfig,
    StageTwoConfig,
    TrainConfig,
)


def _published(preset: str) -> TrainConfig:
    """The paper's pretraining settings at one size."""
    return TrainConfig(
        preset=preset,
        out=Path(f"runs/{preset}"),
        log_every=100,
        data=DataConfig(
            Path("data/atari15"), PRETRAINING_GAMES, record_steps=0, record_max_steps=27_000,
            segment_length=8, segment_stride=4,
        ),
        tokenizer=PRESETS[preset].tokenizer,
        tokenizer_loss=TokenizerLossConfig(),
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
        checkpoint=CheckpointConfig(every=5_000),
        # Three looks and seven pictures, which docs/training.md reckons to cost less than 1%.
        health=HealthConfig(evaluate_every=500_000, evaluate_episodes=1, evaluate_steps=1_000, picture_every=250_000),
        evaluation=EvaluationConfig(
            episodes=16, planner="beam", width=4, horizon=2, td_lambda=1.0, context=4, protocol="published",
            max_steps=108_000,
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
