"""Training a rival, one optimizer step after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jowa.baselines.config import AnyConfig, ScaledQlConfig
from jowa.baselines.feed import RivalFeed
from jowa.baselines.objective import AGREEMENT, CloningObjective, ConservativeObjective
from jowa.baselines.start import begin_rival
from jowa.devices import choose_precision
from jowa.errors import CheckpointError
from jowa.rivals import ConvCritic
from jowa.train.checkpoint import WAY_OUT
from jowa.train.distributed import Place
from jowa.train.folder import CHECKPOINTS, settings_document
from jowa.train.optim import set_learning_rate, world_optimizer
from jowa.train.saving import CheckpointStore
from jowa.train.state import State, begun_optimizers, code_version, gather_state, restore_state
from jowa.train.step import Part, sum_of
from jowa.train.stop import Stopped, StopRequests
from jowa.train.watch import BAD_BATCH, Readings, bad_part, bad_steps_error, save_bad_batch

Report = Callable[[int, dict[str, float]], None]
"""Called after a step with its number and its metrics (empty between log intervals)."""


class RivalTrainer:
    """Networks, optimizer and the step counter: everything that a checkpoint holds."""

    def __init__(self, config: AnyConfig, games: tuple[str, ...], place: Place) -> None:
        self.config, self.place, self.step = config, place, 0
        dtype = choose_precision(config.precision, place.device)
        self.rival = begin_rival(config, games, place.device, dtype)
        model = self.rival.model
        self.objective: nn.Module
        if isinstance(model, ConvCritic):
            assert isinstance(config, ScaledQlConfig)
            self.objective = ConservativeObjective(model, config.objective)
        else:
            self.objective = CloningObjective(model)
        optimizer = world_optimizer(model, config.learning_rate, config.optimizer)
        self.part = Part(config.rival, model, self.objective, optimizer, config.optimizer.gradient_clip, place)
        self.store = CheckpointStore(config.out / CHECKPOINTS, config.checkpoint, place)
        self._autocast = torch.autocast(place.device.type, dtype=dtype, enabled=dtype is not None)
        self._readings = Readings()

    def run(self, feed: RivalFeed, report: Report, saved: Callable[[], object] = lambda: None) -> None:
        """Train from the current step to the end, with checkpoints; ``saved`` is called before each.

        Raises :class:`Stopped` when SIGTERM or SIGINT asked for it, with the state saved.
        """
        requests = StopRequests(self.place)
        self.rival.model.train()
        try:
            with requests.noted():
                self._run(feed, report, saved, requests)
        except (Exception, Stopped):
            self.store.wait()
            raise
        self.rival.model.eval()

    def _run(self, feed: RivalFeed, report: Report, saved: Callable[[], object], requests: StopRequests) -> None:
        config = self.config
        while self.step < config.steps:
            metrics = self._train_step(feed)
            self.step += 1
            last = self.step == config.steps
            self._read_back(metrics, feed, report)
            stop = requests.agreed(now=last)
            if last or stop or self.step % config.checkpoint.every == 0:
                for step, found in self._readings.take(wait=True):
                    report(step, found)
                feed.check_unchanged()
                saved()
                self.save(now=last or stop)
            if stop and not last:
                raise Stopped(
                    f"stopped at step {self.step} of {config.steps}, which is saved in {config.out / CHECKPOINTS}: run "
                    "the same command again to go on"
                )

    def _train_step(self, feed: RivalFeed) -> dict[str, Tensor]:
        config, step = self.config, self.step
        # Dropout follows from (seed, step): a resumed run draws what an uninterrupted one drew.
        torch.manual_seed(config.seed * 1_000_003 + step)
        set_learning_rate(self.part.optimizer, config.learning_rate, step, config.steps, config.optimizer)
        if isinstance(config, ScaledQlConfig):
            arguments: tuple[Any, ...] = (feed.transitions(step),)
        else:
            arguments = (feed.tokens(step), feed.returns(step) if config.rival == "mgdt" else None)
        with self._autocast:
            losses, agreement = self.part.wrapped(*arguments)
        total = sum_of(losses)
        self.part.backward(total, first=True, last=True)
        metrics = self.part.apply(total, step)
        if isinstance(config, ScaledQlConfig) and (step + 1) % config.objective.target_every == 0:
            assert isinstance(self.rival.model, ConvCritic)
            self.rival.model.update_target()
        return {name: loss.detach() for name, loss in losses.items()} | {AGREEMENT: agreement} | metrics

    def _read_back(self, metrics: dict[str, Tensor], feed: RivalFeed, report: Report) -> None:
        """Report the step, and those metrics of it and of earlier ones that have arrived from the device."""
        last = self.step == self.config.steps
        arrived: dict[int, dict[str, float]] = {}
        if self.step % self.config.log_every == 0 or last:
            values = torch.stack([value.detach().double() for value in metrics.values()])
            self._readings.put(self.step, list(metrics), values)
            self.part.was_read()
            arrived = dict(self._readings.take(wait=last))
        for step, found in arrived.items():
            bad = bad_part(found, self.config.health.bad_steps)
            if bad is not None:
                self._stop(*bad, feed)
            if step != self.step:
                report(step, found)
        report(self.step, arrived.get(self.step, {}))

    def _stop(self, name: str, count: int, first: int, feed: RivalFeed) -> None:
        """Keep the first of ``count`` bad batches in a row and raise :class:`NumericalError`."""
        batch = feed.pixels(first, stage=2) if isinstance(self.config, ScaledQlConfig) else feed.tokens(first)
        path = self.config.out / f"{BAD_BATCH}-{name}-step-{first}-rank-0.npz"
        save_bad_batch(path, batch)
        raise bad_steps_error(name, first, count, path)

    def save(self, now: bool = False) -> None:
        """Have a checkpoint written, in the background unless the settings say otherwise.

        ``now``: return when it is on the disk, and raise :class:`CheckpointError` when it cannot be written.
        """
        facts = {
            "step": self.step,
            "optimizers": begun_optimizers([self.part]),
            "sizes": dataclasses.asdict(self.config.model),
            "settings": settings_document(self.config),
            "code": code_version(),
        }
        (self.store.save_now if now else self.store.save)(self.step, self._state(), facts)

    def _state(self, begun: list[str] | None = None) -> State:
        # The tokenizer is frozen, and read again from where it came from.
        return gather_state(None, self.rival.model, [self.part], begun)

    def resume(self) -> bool:
        """Load the newest undamaged checkpoint of ``config.out`` if there is one; returns whether there was.

        Raises :class:`CheckpointError` when every one is damaged, or when it is of other sizes.
        """
        found = self.store.newest()
        if found is None:
            return False
        path, manifest = found
        for name, value in dataclasses.asdict(self.config.model).items():
            if manifest["sizes"].get(name) != value:
                raise CheckpointError(
                    f"{path} was trained with model.{name} = {manifest['sizes'].get(name)}, now it is {value}: use the "
                    f"same sizes, or {WAY_OUT}"
                )
        self.step = manifest["step"]
        state = self._state(manifest["optimizers"])
        self.store.load(path, state)
        restore_state(state, None, self.rival.model, [self.part])
        self.part.resumed(self.step)
        return True
