"""The two stages of training (arXiv 2410.00564), one optimizer step after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from jowa.agent import Agent
from jowa.devices import choose_precision
from jowa.errors import CheckpointError
from jowa.model import WorldActionModel, carry_over, code_embeddings
from jowa.model.objective import Objective, target_counts
from jowa.tokenizer import CodebookStatistics
from jowa.tokenizer.losses import usage_and_perplexity
from jowa.tokenizer.patches import fit_patches
from jowa.train.checkpoint import WAY_OUT
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.folder import CHECKPOINTS, settings_document
from jowa.train.imagined import Imaginer
from jowa.train.optim import set_learning_rate, tokenizer_optimizer, world_optimizer
from jowa.train.parallel import bring_up, plain_twin, prepare, whole, write_whole
from jowa.train.profile import Profiler
from jowa.train.saving import CheckpointStore
from jowa.train.start import make_agent, make_tokenizer, take_weights
from jowa.train.state import State, begun_optimizers, code_version, gather_state, restore_state
from jowa.train.step import Part, add_to, sum_of
from jowa.train.stop import Stopped, StopRequests, stop_at_once
from jowa.train.watch import BAD_BATCH, Readings, bad_part, bad_steps_error, observations, save_bad_batch
from jowa.types import Batch

if TYPE_CHECKING:  # it reads stores, which needs packages that a step does without
    from jowa.train.feed import Feed

TOKENIZER, WORLD, JOINT = "tokenizer", "world", "joint"
"""Names of the parts that train: in stage 1 the first two, in stage 2 the last."""

TOTAL = "total"
REVIVE_BATCHES = 8
"""Tokenizer batches in which a code must not occur to count as unused."""

Report = Callable[[int, dict[str, float]], None]
"""Called after a step with its number and its metrics (empty between log intervals)."""
Observe = Callable[[int, Agent], None]
"""Called with a step and an agent with its weights, after each step with :func:`observations`."""


class Trainer:
    """Networks, optimizers and the step counter: everything that a checkpoint holds."""

    def __init__(self, config: TrainConfig, place: Place) -> None:
        self.config, self.place = config, place
        torch.manual_seed(config.seed)
        self.tokenizer = make_tokenizer(config, place)
        self.model = WorldActionModel(config.model).to(place.device)
        take_weights(config, self.tokenizer, self.model)
        self._imaginer: Imaginer | None = None
        self.objective = Objective(self.model, config.objective)
        prepare(self.objective, config.parallel, place)
        self.step = 0
        self.total = config.stage1.steps + config.stage2.steps
        self.store = CheckpointStore(config.out / CHECKPOINTS, config.checkpoint, place)
        dtype = choose_precision(config.precision, place.device)
        self._autocast = torch.autocast(place.device.type, dtype=dtype, enabled=dtype is not None)
        self._readings = Readings()
        self._code_counts: Tensor | None = None
        self.world: Part
        """The world model; from stage 2 on with the critic."""
        self.tokenizer_part: Part | None
        """None while the tokenizer is frozen."""
        self._enter_stage()

    @property
    def stage(self) -> int:
        """1 while the tokenizer trains, then 2."""
        return 1 if self.step < self.config.stage1.steps else 2

    def run(self, feed: Feed, report: Report, observe: Observe | None = None) -> None:
        """Train from the current step to the end, with checkpoints; the main process observes.

        Raises :class:`Stopped` when SIGTERM or SIGINT asked for it, with the state saved.
        """
        requests = StopRequests(self.place)
        try:
            with requests.noted():
                self._run(feed, report, observe, requests)
        except (Exception, Stopped):
            self.store.wait()
            raise

    def _run(self, feed: Feed, report: Report, observe: Observe | None, requests: StopRequests) -> None:
        if self.step == 0 < self.total and self.config.fits_codes:
            self._fit_codes(feed)
        if self.step < self.total and not self.config.trains_tokenizer(self.stage):
            self._encode(feed)
        profiler = Profiler(self.config.profile_steps, self.config.out, self.place.device, self.place.is_main)
        while self.step < self.total:
            profiler.before_step(self.stage, self.step, self.objective)
            metrics = self._stage_one_step(feed) if self.stage == 1 else self._stage_two_step(feed)
            profiler.after_step(last=self.step + 1 in (self.config.stage1.steps, self.total))
            self.step += 1
            self._read_back(metrics, feed, report)
            due, last, switch = (
                observations(self.config, self.step), self.step == self.total, self.step == self.config.stage1.steps,
            )  # fmt: skip
            if switch:
                self._enter_stage()
            stop = requests.agreed(now=last)
            if last or stop or switch or "play" in due or self.step % self.config.checkpoint.every == 0:
                feed.check_unchanged()
                self.save(now=last or stop)
            if stop:
                for step, found in self._readings.take(wait=True):
                    report(step, found)
                raise Stopped(
                    f"stopped at step {self.step} of {self.total}, which is saved in {self.config.out / CHECKPOINTS}: "
                    "run the same command again to go on"
                )
            if switch and not last and self.config.trains_tokenizer(1) and not self.config.trains_tokenizer(2):
                self._encode(feed)
            if due:
                self._observe(observe)
        profiler.end()

    def _observe(self, observe: Observe | None) -> None:
        agent = self.agent()
        with stop_at_once():
            if self.place.is_main and observe is not None:
                observe(self.step, agent)
            self.place.barrier()

    def agent(self) -> Agent:
        """An agent with copies of the present weights, without a draft head; all processes must ask for it."""
        return make_agent(self.config, self.place, self.tokenizer.playing_state(), whole(self.model.state_dict()))

    def _read_back(self, metrics: dict[str, Tensor], feed: Feed, report: Report) -> None:
        """Report the step, and those metrics of it and of earlier ones that have arrived from the device."""
        last = self.step == self.total
        arrived: dict[int, dict[str, float]] = {}
        if self.step % self.config.log_every == 0 or last:
            metrics |= self._code_metrics()
            # In 64 bits: a step's number must survive the sum over processes.
            values = self.place.mean(torch.stack([value.detach().double() for value in metrics.values()]))
            self._readings.put(self.step, list(metrics), values)
            for part in self._parts:
                part.was_read()
            arrived = dict(self._readings.take(wait=last))
        if self.step == self.config.stage1.steps:
            arrived |= dict(self._readings.take(wait=True))
        for found in arrived.values():
            bad = bad_part(found, self.config.health.bad_steps)
            if bad is not None:
                self._stop(*bad, feed)
        for step, found in arrived.items():
            if self.store.failures:
                found["checkpoint_failures"] = float(self.store.failures)
            if step != self.step:
                report(step, found)
        report(self.step, arrived.get(self.step, {}))

    def _code_metrics(self) -> dict[str, Tensor]:
        """How the codes fared in the tokenizer's batches since the last reading, of all processes."""
        counts, self._code_counts = self._code_counts, None
        if counts is None:
            return {}
        counts = self.place.mean(counts)
        usage, perplexity = usage_and_perplexity(counts)
        return {"usage": usage, "perplexity": perplexity, "dead_codes": (counts == 0).sum()}

    def _stop(self, name: str, count: int, first: int, feed: Feed) -> None:
        """Keep the first of ``count`` bad batches in a row and raise :class:`NumericalError`, on all processes."""
        batch = self._tokenizer_batch(feed, first)[0] if name == TOKENIZER else self._world_batch(feed, first)
        path = self.config.out / f"{BAD_BATCH}-{name}-step-{first}-rank-{self.place.rank}.npz"
        save_bad_batch(path, batch)
        self.place.barrier()
        raise bad_steps_error(name, first, count, path)

    def _fit_codes(self, feed: Feed) -> None:
        """Cluster patches of the data set into codes, in the main process; the others take them over."""
        codes = self.tokenizer.embedding.weight.data
        before = codes.clone()
        keep = self.config.start_from is not None and not self.config.from_scratch
        with stop_at_once():
            if self.place.is_main:
                codes.copy_(fit_patches(codes, feed.distinct_patches(), self.config.seed, keep))
            self.place.barrier()
        self.place.broadcast(codes)
        if keep:
            self._carry_over(before, codes)
        elif not self.config.stage1.steps and self.config.stage1.world_from_codebook:
            self._embed_codes_alike()

    def _encode(self, feed: Feed) -> None:
        """Have the tokens of the data set, of a tokenizer that no longer trains."""
        # In the precision in which the agent will see frames when it plays.
        with stop_at_once():
            said = feed.encode(self.tokenizer, choose_precision(self.config.precision, self.place.device))
        if self.place.is_main:
            print(said, flush=True)

    def _enter_stage(self) -> None:
        """Fresh optimizers for the stage that the step counter is in."""
        config = self.config
        critic = self.stage == 2
        frozen = not config.trains_tokenizer(self.stage)
        self.tokenizer.requires_grad_(not frozen).train(not frozen)
        # A wrapper would wait forever for the gradients of what a loss does not use.
        self.model.q_head.requires_grad_(critic)
        for unused in (self.model.action_task_embedding, self.model.frame_task_embedding):
            unused.requires_grad_(config.model.task_embedding)
        rate = config.stage2.learning_rate if critic else config.stage1.learning_rate
        optimizer: torch.optim.Optimizer = world_optimizer(self.model, rate, config.optimizer)
        self.world = self._part(JOINT if critic else WORLD, self.model, self.objective, optimizer)
        self.tokenizer_part = None
        if not frozen:
            optimizer = tokenizer_optimizer(self.tokenizer, config.stage1.tokenizer_learning_rate)
            self.tokenizer_part = self._part(TOKENIZER, self.tokenizer, self.tokenizer, optimizer)
        if critic:
            self.model.update_target()
        self.model.train()

    def _part(self, name: str, module: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> Part:
        return Part(name, module, self.place.wrap(loss), optimizer, self.config.optimizer.gradient_clip, self.place)

    def _stage_one_step(self, feed: Feed) -> dict[str, Tensor]:
        settings, step = self.config.stage1, self.step
        world_from = settings.world_from if self.config.trains_tokenizer(1) else 0
        fresh = self.config.start_from is None or self.config.from_scratch
        if settings.world_from_codebook and fresh and step == world_from:
            self._embed_codes_alike()
        metrics = self._tokenizer_step(feed, settings.steps)
        if step >= world_from:
            set_learning_rate(
                self.world.optimizer, settings.learning_rate, step - world_from, settings.steps - world_from,
                self.config.optimizer,
            )  # fmt: skip
            metrics |= self._world_step(feed, critic=False)
        return metrics

    def _stage_two_step(self, feed: Feed) -> dict[str, Tensor]:
        settings, step = self.config.stage2, self.step - self.config.stage1.steps
        set_learning_rate(self.world.optimizer, settings.learning_rate, step, settings.steps, self.config.optimizer)
        metrics = self._tokenizer_step(feed, self.total)
        metrics |= self._world_step(feed, critic=True)
        if (step + 1) % settings.target_every == 0:
            self.model.update_target(settings.target_rate)
        return metrics

    def _tokenizer_batch(self, feed: Feed, step: int) -> tuple[Tensor, Tensor | None]:
        return feed.tokenizer_frames(step, self.config.stage1.motion_weight)

    def _world_batch(self, feed: Feed, step: int) -> Batch:
        two, in_two = self.config.stage2, step - self.config.stage1.steps
        if in_two >= 0:
            batch = feed.pixels(in_two, stage=2) if self.config.trains_tokenizer(2) else feed.tokens(in_two)
            imagining = two.imagined == "half" and in_two >= two.imagined_from
            return self._half_imagined(batch) if imagining else batch
        return feed.pixels(step) if self.config.trains_tokenizer(1) else feed.tokens(step, stage=1)

    def _half_imagined(self, batch: Batch) -> Batch:
        two = self.config.stage2
        if self._imaginer is None:
            self._imaginer = Imaginer(
                plain_twin(self.model), two.imagined_width, two.imagined_horizon, self.config.objective.gamma
            )
        bring_up(self._imaginer.model, self.model)
        return self._imaginer.mix(self._tokenised(batch), self._cut(len(batch.actions)))

    def _tokenised(self, batch: Batch) -> Batch:
        if batch.tokens is not None:
            return batch
        assert batch.frames is not None
        with self._autocast, record_function("tokenizer"):
            return dataclasses.replace(batch, tokens=self.tokenizer.encode(batch.frames, settle=False))

    def _tokenizer_step(self, feed: Feed, steps: int) -> dict[str, Tensor]:
        """Train the tokenizer on a batch, unless it is frozen; ``steps``: of the run, of which it trains in."""
        part, settings, step = self.tokenizer_part, self.config.stage1, self.step
        if part is None:
            return {}
        with record_function("data"):
            frames, weights = self._tokenizer_batch(feed, step)
        if settings.revive_every and step % settings.revive_every == 0 and step < steps * 3 // 4:
            self._revive_codes(
                torch.cat([feed.tokenizer_frames(step + i, 0.0, ahead=False)[0] for i in range(REVIVE_BATCHES)])
            )
        set_learning_rate(part.optimizer, settings.tokenizer_learning_rate, step, steps, self.config.optimizer)
        total: dict[str, Tensor] = {}
        statistics: list[CodebookStatistics | None] = []
        for index, rows in enumerate(self._cut(len(frames))):
            with self._autocast, record_function("tokenizer"):
                losses = part.wrapped(frames[rows], None if weights is None else weights[rows])
            # Microbatches are of one size: the mean of their means is the batch's.
            part.backward(losses.total / self.pieces, first=index == 0, last=index == self.pieces - 1)
            statistics.append(losses.statistics)
            self._code_counts = losses.counts if self._code_counts is None else self._code_counts + losses.counts
            add_to(
                total, {name: value / self.pieces for name, value in (losses.named() | {TOTAL: losses.total}).items()}
            )
        metrics = part.apply(total.pop(TOTAL), step)
        self.tokenizer.update_codebook(statistics, part.found)
        return total | metrics

    def _world_step(self, feed: Feed, critic: bool) -> dict[str, Tensor]:
        """Train the world model on a batch; with ``critic`` (stage 2) the critic too."""
        with record_function("data"):
            batch = self._world_batch(feed, self.step)
        counts = self.place.mean(target_counts(batch, critic))
        total: dict[str, Tensor] = {}
        for index, rows in enumerate(self._cut(len(batch.actions))):
            self._seed(index)
            piece = self._tokenised(batch.rows(rows))
            with self._autocast:
                losses = self.world.wrapped(piece, critic=critic, counts=counts)
            self.world.backward(sum_of(losses), first=index == 0, last=index == self.pieces - 1)
            add_to(total, losses)
        return total | self.world.apply(sum_of(total), self.step)

    @property
    def pieces(self) -> int:
        """Microbatches of this process in every batch."""
        return max(self.config.parallel.microbatches // self.place.world, 1)

    def _cut(self, rows: int) -> list[slice]:
        size = rows // self.pieces
        return [slice(index * size, (index + 1) * size) for index in range(self.pieces)]

    def _seed(self, index: int) -> None:
        """Dropout follows from (seed, step, microbatch): a resumed run draws what an uninterrupted one drew."""
        number = self.place.rank * self.pieces + index
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1024 + number)

    def _revive_codes(self, frames: Tensor) -> None:
        """Revive from the frames of all processes, and alike in each: a wrapper averages gradients, not weights."""
        generator = torch.Generator().manual_seed(self.config.seed + self.step)
        self.tokenizer.revive_dead_codes(self.place.gather(frames), generator)
        self.place.broadcast(self.tokenizer.embedding.weight.data)

    @torch.no_grad()
    def _embed_codes_alike(self) -> None:
        table, generator = self.model.frame_embedding.weight, torch.Generator().manual_seed(self.config.seed)
        write_whole(table, code_embeddings(self.tokenizer.embedding.weight, whole(table), generator))

    @torch.no_grad()
    def _carry_over(self, before: Tensor, codes: Tensor) -> None:
        logits = self.model.frame_head[-1]
        assert isinstance(logits, nn.Linear)
        for table in (self.model.frame_embedding.weight, logits.weight):
            write_whole(table, carry_over(whole(table), before, codes))
        write_whole(logits.bias, carry_over(whole(logits.bias)[:, None], before, codes)[:, 0])

    def save(self, now: bool = False) -> None:
        """Have a checkpoint written, in the background unless the settings say otherwise; all processes must ask.

        ``now``: return when it is on the disk, and raise :class:`CheckpointError` when it cannot be written.
        """
        facts = {
            "step": self.step,
            "optimizers": begun_optimizers(self._parts),
            "sizes": self._sizes(),
            "settings": settings_document(self.config),
            "processes": self.place.world,
            "code": code_version(),
        }
        (self.store.save_now if now else self.store.save)(self.step, self._state(), facts)

    def _state(self) -> State:
        return gather_state(self.tokenizer, self.model, self._parts)

    @property
    def _parts(self) -> list[Part]:
        return [part for part in (self.tokenizer_part, self.world) if part is not None]

    def _sizes(self) -> dict[str, dict[str, Any]]:
        return {
            "tokenizer": dataclasses.asdict(self.config.tokenizer),
            "model": dataclasses.asdict(self.config.model),
        }

    def resume(self) -> bool:
        """Load the newest undamaged checkpoint of ``config.out`` if there is one; returns whether there was.

        All processes must ask; they may be more or fewer than those that wrote it.
        Raises :class:`CheckpointError` when every one is damaged, or when it is of other sizes.
        """
        found = self.store.newest()
        if found is None:
            return False
        path, manifest = found
        for part, sizes in self._sizes().items():
            saved = manifest["sizes"].get(part, {})
            for name, value in sizes.items():
                if saved.get(name) != value:
                    raise CheckpointError(
                        f"{path} was trained with {part}.{name} = {saved.get(name)}, now it is {value}: "
                        f"use the same sizes, or {WAY_OUT}"
                    )
        self.step = manifest["step"]
        self._enter_stage()
        state = gather_state(self.tokenizer, self.model, self._parts, begun=manifest["optimizers"])
        self.store.load(path, state)
        restore_state(state, self.tokenizer, self.model, self._parts)
        for restored in self._parts:
            restored.resumed(self.step)
        return True
