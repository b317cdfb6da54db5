"""Training as one would write it first: the rival of the benchmark, and the oracle of its loss curves.

Plain PyTorch: attention by its definition, q, k and v apart, the critic's losses by theirs, AdamW parameter by
parameter, float32 or autocast, and every metric read back at every step.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest import mock

import torch
from torch import Tensor, nn

import jowa.losses.critic
from jowa.kernels.attention import causal_attention_reference
from jowa.kernels.c51_loss import c51_loss_reference
from jowa.kernels.quantize import quantize_reference
from jowa.model.objective import Objective, target_counts
from jowa.model.transformer import Attend, SelfAttention
from jowa.tokenizer import Tokenizer
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.loop import Trainer
from jowa.types import Batch


class PlainStep:
    """Optimizer steps on the same networks as :class:`jowa.train.loop.Trainer`'s, without any of its means."""

    def __init__(
        self, objective: Objective, tokenizer: Tokenizer | None, dtype: torch.dtype | None,
        rates: tuple[float, float], decay: float = 0.01, clip: float = 1.0,
    ) -> None:  # fmt: skip
        """``tokenizer``: None if it does not train; ``rates``: learning rates of the model and of the tokenizer."""
        self.objective, self.tokenizer, self.dtype, self.clip = objective, tokenizer, dtype, clip
        linear = {id(module.weight) for module in objective.modules() if isinstance(module, nn.Linear)}
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in objective.model.named_parameters():
            if parameter.requires_grad:
                groups[id(parameter) in linear or name.startswith("q_head.")].append(parameter)
        decays = [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]
        self.world = torch.optim.AdamW(decays, lr=rates[0], foreach=False, fused=False)
        self.codes = tokenizer and torch.optim.Adam(tokenizer.parameters(), lr=rates[1], foreach=False, fused=False)

    def __call__(self, batch: Batch, frames: Tensor | None, critic: bool, pieces: int = 1) -> dict[str, float]:
        """One step; ``frames`` uint8 (N, 84, 84) train the tokenizer too, in as many ``pieces``."""
        metrics: dict[str, float] = {}
        with oracles(), torch.autocast(batch.actions.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            if frames is not None and self.tokenizer is not None and self.codes is not None:
                self.codes.zero_grad()
                for piece in frames.chunk(pieces):
                    losses = self.tokenizer(piece)
                    (losses.total / pieces).backward()
                    metrics["reconstruction"] = losses.reconstruction.item()
                self._apply(self.codes, self.tokenizer)
            self.world.zero_grad()
            counts, size = target_counts(batch, critic), len(batch.actions) // pieces
            for index in range(pieces):
                piece = batch.rows(slice(index * size, (index + 1) * size))
                if piece.tokens is None and self.tokenizer is not None and piece.frames is not None:
                    piece = Batch(**{**vars(piece), "tokens": self.tokenizer.encode(piece.frames)})
                found = self.objective(piece, critic=critic, counts=counts)
                torch.stack(list(found.values())).sum().backward()
                for name, value in found.items():
                    metrics[name] = metrics.get(name, 0.0) + value.item()
            self._apply(self.world, self.objective.model)
        return metrics

    def _apply(self, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.clip, foreach=False)
        if torch.isfinite(norm).item():
            optimizer.step()


Curve = list[dict[str, float]]


def comparable(config: TrainConfig, stage: int, steps: int) -> TrainConfig:
    """``config`` with ``stage`` alone, without what the plain step lacks: dropout, schedules, weights on motion."""
    return dataclasses.replace(
        config, log_every=1, precision="float32",
        model=dataclasses.replace(config.model, dropout=0.0, q_dropout=0.0),
        optimizer=dataclasses.replace(config.optimizer, name="adamw", warmup_steps=0, final_fraction=1.0),
        stage1=dataclasses.replace(
            config.stage1, steps=steps if stage == 1 else 0, world_from=0, motion_weight=0.0, revive_every=0,
            world_from_codebook=False, learning_rate=1e-4, tokenizer_learning_rate=1e-4,
        ),
        stage2=dataclasses.replace(config.stage2, steps=steps if stage == 2 else 0, target_every=10_000),
        checkpoint=dataclasses.replace(config.checkpoint, every=10_000),
    )  # fmt: skip


def both_curves(config: TrainConfig, stage: int, place: Place) -> tuple[Curve, Curve]:
    """What each step of a :func:`comparable` run reports: the trainer's, and the plain one's from the same weights."""
    from jowa.train.feed import Feed  # here: a step alone reads no store

    trainer, curve = Trainer(config, place), Curve()
    tokenizer, objective = copy.deepcopy(trainer.tokenizer), copy.deepcopy(trainer.objective)
    with closing(Feed(config, place)) as feed:
        trainer.run(feed, lambda step, metrics: curve.append(metrics))
    if config.fits_codes:  # found before the first step, and the same from then on
        tokenizer.load_state_dict(trainer.tokenizer.state_dict())
    critic, trains, plain_curve = stage == 2, config.trains_tokenizer(stage), Curve()
    rates = (config.stage2 if critic else config.stage1).learning_rate, config.stage1.tokenizer_learning_rate
    plain = PlainStep(objective, tokenizer if trains else None, None, rates, config.optimizer.weight_decay)
    with closing(Feed(config, place)) as feed:
        if not trains:
            feed.encode(tokenizer, None)
        for step in range(config.stage1.steps + config.stage2.steps):
            batch = feed.pixels(step, stage) if trains else feed.tokens(step, stage)
            frames = feed.tokenizer_frames(step, 0.0)[0] if trains else None
            plain_curve.append(plain(batch, frames, critic=critic))
    return curve, plain_curve


def plain_attention(self: SelfAttention, x: Tensor, attend: Attend | None) -> Tensor:
    """In place of ``SelfAttention.forward``: three projections, and the definition; dropout must be 0."""
    assert attend is None and (self.dropout == 0 or not self.training)
    batch, tokens, width = x.shape
    q, k, v = (p(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
    return self.proj(causal_attention_reference(q, k, v).transpose(1, 2).reshape(batch, tokens, width))


@contextmanager
def oracles() -> Iterator[None]:
    """Within, the model computes by definition."""
    with (
        mock.patch.object(SelfAttention, "forward", plain_attention),
        mock.patch.object(jowa.losses.critic, "c51_loss", c51_loss_reference),
        mock.patch("jowa.tokenizer.tokenizer.quantize", lambda z, codes, settle=True: quantize_reference(z, codes)),
    ):
        yield
