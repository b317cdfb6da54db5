"""The two stages of training (arXiv 2410.00564), one optimizer step after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jowa.agent import Agent
from jowa.devices import choose_precision
from jowa.errors import CheckpointError, NumericalError, UsageError
from jowa.model import WorldActionModel
from jowa.model.objective import Objective
from jowa.tokenizer import LPIPS, Tokenizer
from jowa.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.optim import set_learning_rate, tokenizer_optimizer, world_optimizer

REVIVE_BATCHES = 8
"""Tokenizer batches in which a code must not occur to count as unused."""

Report = Callable[[int, dict[str, float]], None]
"""Called after a step with its number and its metrics (empty between log intervals)."""


class Trainer:
    """Networks, optimizers and the step counter: everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig, place: Place) -> None:
        self.config, self.place = config, place
        torch.manual_seed(config.seed)
        perceptual = (
            LPIPS.load(Path(config.lpips_vgg), Path(config.lpips_linear)).to(place.device) if config.lpips_vgg else None
        )
        self.tokenizer = Tokenizer(config.tokenizer, perceptual).to(place.device)
        if config.tokenizer_from is not None:
            self._take_tokenizer(config.tokenizer_from)
        self.model = WorldActionModel(config.model).to(place.device)
        self.objective = Objective(self.model, config.objective)
        self.step = 0
        self.total = config.stage1.steps + config.stage2.steps
        dtype = choose_precision(config.precision, place.device)
        self._autocast = torch.autocast(place.device.type, dtype=dtype, enabled=dtype is not None)
        self._tokenizer_optimizer: torch.optim.Optimizer | None = None
        self._world_optimizer: torch.optim.Optimizer
        self._wrapped_tokenizer: nn.Module
        self._wrapped_objective: nn.Module
        self._enter_stage()

    @property
    def stage(self) -> int:
        """1 while the tokenizer trains, then 2."""
        return 1 if self.step < self.config.stage1.steps else 2

    def run(self, feed: Feed, report: Report) -> None:
        """Train from the current step to the end, with checkpoints."""
        if (self.stage == 2 or self.config.tokenizer_from is not None) and self.step < self.total:
            self._encode(feed)
        while self.step < self.total:
            # Dropout is a function of (seed, step, rank): a resumed run draws what an uninterrupted one drew.
            torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1024 + self.place.rank)
            losses = self._stage_one_step(feed) if self.stage == 1 else self._stage_two_step(feed)
            self.step += 1
            due = self.step % self.config.log_every == 0 or self.step == self.total
            report(self.step, self.place.mean(losses) if due else {})
            if self.step == self.config.stage1.steps:
                self._enter_stage()
                if self.step < self.total and self.config.tokenizer_from is None:
                    self._encode(feed)
            if self.step % self.config.checkpoint_every == 0 or self.step == self.total:
                self.save()

    def _take_tokenizer(self, folder: Path) -> None:
        tokenizer = Agent.load(folder, "cpu", "float32").tokenizer
        ours = dataclasses.asdict(self.config.tokenizer)
        for name, value in dataclasses.asdict(tokenizer.config).items():
            if ours[name] != value:
                raise UsageError(
                    f"the tokenizer of {folder} has {name} = {value}, this run {ours[name]}: set "
                    f"--tokenizer.{name.replace('_', '-')} (and --model.vocab-size) alike"
                )
        self.tokenizer.load_state_dict(tokenizer.state_dict())

    def _encode(self, feed: Feed) -> None:
        # In the precision in which the agent will see frames when it plays.
        said = feed.encode(self.tokenizer, choose_precision(self.config.precision, self.place.device))
        if self.place.is_main:
            print(said, flush=True)

    def _enter_stage(self) -> None:
        """Fresh optimizers for the stage that the step counter is in."""
        config = self.config
        critic = self.stage == 2
        frozen = critic or config.tokenizer_from is not None
        self.tokenizer.requires_grad_(not frozen).train(not frozen)
        # A wrapper would wait forever for the gradients of what a loss does not use.
        self.model.q_head.requires_grad_(critic)
        for unused in (self.model.action_task_embedding, self.model.frame_task_embedding):
            unused.requires_grad_(config.model.task_embedding)
        self._wrapped_objective = self.place.wrap(self.objective)
        self._wrapped_tokenizer = self.place.wrap(self.tokenizer)
        self._tokenizer_optimizer = (
            None if frozen else tokenizer_optimizer(self.tokenizer, config.stage1.tokenizer_learning_rate)
        )
        rate = config.stage2.learning_rate if critic else config.stage1.learning_rate
        self._world_optimizer = world_optimizer(self.model, rate, config.optimizer)
        if critic:
            self.model.update_target()
        self.model.train()

    def _stage_one_step(self, feed: Feed) -> dict[str, Tensor]:
        settings, step = self.config.stage1, self.step
        world_from = 0 if self.config.tokenizer_from is not None else settings.world_from
        if settings.world_from_codebook and step == world_from:
            self._embed_codes_alike()
        losses = self._tokenizer_step(feed, step) if self._tokenizer_optimizer is not None else {}
        if step >= world_from:
            with self._autocast:
                if self._tokenizer_optimizer is None:
                    batch = feed.tokens(step, stage=1)
                else:
                    batch = feed.pixels(step)
                    assert batch.frames is not None
                    batch = dataclasses.replace(batch, tokens=self.tokenizer.encode(batch.frames))
                world = self._wrapped_objective(batch, critic=False)
            set_learning_rate(
                self._world_optimizer, settings.learning_rate, step - world_from, settings.steps - world_from,
                self.config.optimizer,
            )  # fmt: skip
            self._apply("world", sum_of(world), self.model, self._world_optimizer)
            losses |= world
        return losses

    def _tokenizer_step(self, feed: Feed, step: int) -> dict[str, Tensor]:
        settings = self.config.stage1
        assert self._tokenizer_optimizer is not None
        frames, weights = feed.tokenizer_frames(step, settings.motion_weight)
        if settings.revive_every and step % settings.revive_every == 0 and step < settings.steps * 3 // 4:
            self._revive_codes(torch.cat([feed.tokenizer_frames(step + i, 0.0)[0] for i in range(REVIVE_BATCHES)]))
        with self._autocast:
            parts = self._wrapped_tokenizer(frames, weights)
        set_learning_rate(
            self._tokenizer_optimizer, settings.tokenizer_learning_rate, step, settings.steps, self.config.optimizer
        )
        self._apply("tokenizer", parts.total, self.tokenizer, self._tokenizer_optimizer)
        losses = {"reconstruction": parts.reconstruction, "commitment": parts.commitment}
        if self.config.lpips_vgg:
            losses["perceptual"] = parts.perceptual
        return losses

    def _stage_two_step(self, feed: Feed) -> dict[str, Tensor]:
        settings, step = self.config.stage2, self.step - self.config.stage1.steps
        with self._autocast:
            losses: dict[str, Tensor] = self._wrapped_objective(feed.tokens(step), critic=True)
        set_learning_rate(self._world_optimizer, settings.learning_rate, step, settings.steps, self.config.optimizer)
        self._apply("joint", sum_of(losses), self.model, self._world_optimizer)
        if (step + 1) % settings.target_every == 0:
            self.model.update_target(settings.target_rate)
        return losses

    def _apply(self, name: str, loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.config.optimizer.gradient_clip)
        if not torch.isfinite(norm):
            raise NumericalError(
                f"step {self.step}: the {name} loss is {loss.item():.4g} and its gradient is not finite; expected "
                "finite numbers: lower the learning rate or check the data; the last checkpoint is unharmed"
            )
        optimizer.step()

    def _revive_codes(self, frames: Tensor) -> None:
        """Revive from the frames of all processes, and alike in each: a wrapper averages gradients, not weights."""
        generator = torch.Generator().manual_seed(self.config.seed + self.step)
        self.tokenizer.revive_dead_codes(self.place.gather(frames), generator)
        self.place.broadcast(self.tokenizer.embedding.weight.data)

    @torch.no_grad()
    def _embed_codes_alike(self) -> None:
        codes = self.tokenizer.embedding.weight
        generator = torch.Generator().manual_seed(self.config.seed)
        projection = torch.randn(codes.shape[1], self.config.model.width, generator=generator).to(codes.device)
        embedded = (codes - codes.mean(0)) @ projection
        table = self.model.frame_embedding.weight
        table.copy_(embedded * (table.std() / embedded.std()))

    def save(self) -> None:
        """Write a checkpoint (the main process; the others wait)."""
        if self.place.is_main:
            save_checkpoint(self.config.out / "checkpoints", self._state())
        self.place.barrier()

    def _state(self) -> dict[str, Any]:
        tokenizer_optimizer_state = self._tokenizer_optimizer.state_dict() if self._tokenizer_optimizer else None
        return {
            "step": self.step,
            "sizes": self._sizes(),
            "tokenizer": self.tokenizer.state_dict(),
            "model": self.model.state_dict(),
            "tokenizer_optimizer": tokenizer_optimizer_state,
            "world_optimizer": self._world_optimizer.state_dict(),
        }

    def _sizes(self) -> dict[str, dict[str, Any]]:
        return {
            "tokenizer": dataclasses.asdict(self.config.tokenizer),
            "model": dataclasses.asdict(self.config.model),
        }

    def resume(self) -> bool:
        """Load the newest checkpoint of ``config.out`` if there is one; returns whether there was.

        Raises :class:`CheckpointError` when it is damaged or of other sizes.
        """
        found = checkpoints(self.config.out / "checkpoints")
        if not found:
            return False
        state = load_checkpoint(found[-1])
        for part, sizes in self._sizes().items():
            saved = state["sizes"].get(part, {})
            for name, value in sizes.items():
                if saved.get(name) != value:
                    raise CheckpointError(
                        f"{found[-1]} was trained with {part}.{name} = {saved.get(name)}, now it is {value}: "
                        "use the same sizes, another --out, or --restart"
                    )
        self.step = state["step"]
        self._enter_stage()
        try:
            self.tokenizer.load_state_dict(state["tokenizer"])
            self.model.load_state_dict(state["model"])
            self._world_optimizer.load_state_dict(state["world_optimizer"])
            if self._tokenizer_optimizer is not None:
                self._tokenizer_optimizer.load_state_dict(state["tokenizer_optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{found[-1]} does not fit these networks ({str(error).splitlines()[0]}): delete it to fall back to "
                "the one before, or start anew with --restart"
            ) from error
        return True


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """The total of named scalar losses."""
    return torch.stack(list(losses.values())).sum()
