"""One run from data to scores: record if needed, train, save the agent, play, print the table."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from jowa.agent import Agent, Planning
from jowa.data.record import RecordConfig, record
from jowa.data.store import EpisodeStore
from jowa.devices import choose_precision
from jowa.errors import CheckpointError, DataError
from jowa.files import atomic_write_text
from jowa.games import get_game
from jowa.pictures import rollout_picture, save_picture
from jowa.planner import PlannerConfig
from jowa.progress import steps_progress
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.loop import Trainer

PICTURE_STEPS = 5


def prepare_data(config: TrainConfig) -> None:
    """Record the data set if it is absent; a complete one is reused, a half-recorded one is resumed."""
    data = config.data
    if data.record_steps == 0:
        if not data.path.exists():
            raise DataError(f"{data.path} does not exist: record it with python -m jowa.record, or set --data.path")
        return
    if data.path.exists() and _holds_enough(data.path, config):
        print(f"reusing the data set in {data.path}", flush=True)
        return
    print(f"recording {data.record_steps:,} agent steps of each of {', '.join(data.games)} into {data.path}", flush=True)
    print(record(RecordConfig(data.path, data.games, steps=data.record_steps, seed=config.seed)).describe(), flush=True)


def _holds_enough(path: Path, config: TrainConfig) -> bool:
    store = EpisodeStore.open(path)
    return all(game in store.games and store.num_steps(game) >= config.data.record_steps for game in config.data.games)


def train(config: TrainConfig, place: Place) -> Agent:
    """Train (or resume) and return the agent; the main process writes it to ``config.out / "agent"``."""
    if config.restart and place.is_main and config.out.exists():
        shutil.rmtree(config.out / "checkpoints", ignore_errors=True)
        (config.out / "results.json").unlink(missing_ok=True)
    place.barrier()
    trainer = Trainer(config, place)
    resumed = trainer.resume()
    if place.is_main:
        _announce(config, trainer, resumed)
        atomic_write_text(config.out / "config.json", json.dumps(dataclasses.asdict(config), indent=2, default=str) + "\n")
    if trainer.step < trainer.total:
        _run(config, place, trainer)
    tasks = {game: get_game(game).task_id for game in config.data.games}
    planning = Planning(
        PlannerConfig("beam", config.evaluation.width, config.evaluation.horizon, config.objective.gamma),
        config.evaluation.context,
    )
    agent = Agent(trainer.tokenizer, trainer.model, tasks, choose_precision(config.precision, place.device), planning)
    if place.is_main:
        agent.save(config.out / "agent")
    return agent


def _announce(config: TrainConfig, trainer: Trainer, resumed: bool) -> None:
    counts = [sum(p.numel() for p in module.parameters()) / 1e6 for module in (trainer.tokenizer, trainer.model)]
    print(
        f"{config.preset}: tokenizer {counts[0]:.2f}M, world-action model {counts[1]:.2f}M parameters, "
        f"on {trainer.place.device} x {trainer.place.world}"
    )
    if resumed:
        state = "finished" if trainer.step == trainer.total else f"at step {trainer.step} of {trainer.total}"
        print(f"reusing the run in {config.out}: {state}", flush=True)


def _run(config: TrainConfig, place: Place, trainer: Trainer) -> None:
    feed = Feed(config, place)
    if not place.is_main:
        trainer.run(feed, lambda step, metrics: None)
        return
    started, first = time.monotonic(), trainer.step
    with (
        SummaryWriter(str(config.out / "tensorboard"), purge_step=trainer.step) as board,
        steps_progress("training", trainer.total, "steps", trainer.step) as advance,
    ):

        def report(step: int, metrics: dict[str, float]) -> None:
            stage = 1 if step <= config.stage1.steps else 2
            note = f"stage {stage}  " + "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            advance(step, note) if metrics else advance(step)
            for name, value in metrics.items():
                board.add_scalar(f"stage{stage}/{name}", value, step)
            if metrics:
                board.add_scalar("speed/steps_per_second", (step - first) / (time.monotonic() - started), step)

        trainer.run(feed, report)


def write_picture(config: TrainConfig, agent: Agent) -> Path:
    """Real and imagined frames of one recorded episode a game, side by side."""
    store = EpisodeStore.open(config.data.path)
    chosen = []
    for game in config.data.games:
        infos = store.episodes(game)
        best = int(np.argmax([info.score for info in infos]))
        episode = store.read_episode(game, best)
        start = min(len(episode) // 3, len(episode) - PICTURE_STEPS - 1)
        if start + 1 < config.evaluation.context:
            continue
        chosen.append((episode, start))
    path = config.out / "imagined.png"
    steps = min(PICTURE_STEPS, agent.model.config.context_steps - config.evaluation.context)
    save_picture(path, rollout_picture(agent, chosen, config.evaluation.context, steps))
    return path


def read_results(path: Path) -> dict[str, Any]:
    """The results of an earlier evaluation; :class:`CheckpointError` when the file is damaged."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): delete it and run again") from error
    return document
