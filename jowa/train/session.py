"""One run from data to scores: record if needed, train, save the agent, play, print the table."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from jowa.agent import Agent
from jowa.data.record import RecordConfig, record
from jowa.data.remote import remote_address
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.draft import Moments, Pairs, imagine_pairs, train_head
from jowa.errors import CheckpointError, DataError, UsageError
from jowa.files import atomic_write_text
from jowa.pictures import rollout_picture, save_picture
from jowa.progress import steps_progress
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.train.folder import AGENT, METRICS, PICTURE, RESULTS, read_results, write_settings
from jowa.train.loggers import Loggers
from jowa.train.loop import Trainer
from jowa.train.monitor import look
from jowa.train.pace import Pace, progress_note
from jowa.train.scoring import demo_table, score
from jowa.train.watch import observations

PICTURE_STEPS = 5


def prepare_data(config: TrainConfig) -> None:
    """Record the data set if it is absent; a complete one is reused, a half-recorded one is resumed."""
    data = config.data
    if data.record_steps == 0:
        if remote_address(data.path) is None and not data.path.exists():
            raise DataError(f"{data.path} does not exist: record it with python -m jowa.record, or set --data.path")
        return
    if _holds_enough(config):
        print(f"reusing the data set in {data.path}", flush=True)  # however it was recorded
        return
    games = ", ".join(data.games)
    print(f"recording {data.record_steps:,} agent steps of each of {games} into {data.path}", flush=True)
    settings = RecordConfig(
        data.path, data.games, steps=data.record_steps, max_steps=data.record_max_steps, seed=config.seed
    )
    try:
        print(record(settings).describe(), flush=True)
    except UsageError as error:
        raise UsageError(f"{error}; to train on what it holds, set --data.record-steps 0") from error


def _holds_enough(config: TrainConfig) -> bool:
    data = config.data
    try:
        store = EpisodeStore.open(data.path)
    except DataError:
        return False  # the recorder goes on with what holds no episode yet, and says what else is wrong
    return all(game in store.games and store.num_steps(game) >= data.record_steps for game in data.games)


def train(config: TrainConfig, place: Place) -> Agent:
    """Train (or resume) and return the agent; the main process writes it to ``config.out / "agent"``."""
    trainer = Trainer(config, place)
    resumed = trainer.resume()
    if place.is_main:
        write_settings(config)
        _announce(config, trainer, resumed)
    finished_before = trainer.step == trainer.total
    if not finished_before:
        _run(config, place, trainer)
    agent = trainer.agent()
    if place.is_main:
        folder = config.out / AGENT
        if finished_before and config.draft.steps and (folder / "draft.safetensors").exists():
            agent.load_draft_head(folder)
        # First of all: whatever becomes of its draft head, the agent is there.
        _save_agent(agent, folder)
        if config.draft.steps and agent.draft_head is None:
            _train_draft_head(config, agent)
            agent.save_draft_head(folder)
    return agent


def _train_draft_head(config: TrainConfig, agent: Agent) -> None:
    """Let the finished ``agent`` imagine from recorded moments, and give it a network that guesses what it imagines."""
    generator = np.random.default_rng(config.seed)
    context = min(config.evaluation.context, agent.model.config.context_steps - 1)
    store = EpisodeStore.open(config.data.path)
    pairs = []
    for game in config.data.games:
        table = draw_transitions(store, game, config.data.transitions, config.seed)
        moments = Moments.draw_from(store, game, table, context, config.draft.moments, generator)
        pairs.append(imagine_pairs(agent, moments, generator))
    with steps_progress("training the draft head", config.draft.steps, "steps") as advance:
        head = train_head(
            agent, Pairs.join(pairs), config.draft.steps, config.seed,
            advance=lambda step, loss: advance(step, f"loss {loss:.3f}"),
        )  # fmt: skip
    agent.add_draft_head(head)


def _save_agent(agent: Agent, folder: Path) -> None:
    try:
        agent.save(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; the checkpoints are kept") from error


def play_and_report(config: TrainConfig, agent: Agent) -> None:
    """Draw what the agent imagines, play the real games unless that was done before, print the table."""
    print(f"agent: {config.out / AGENT}")
    print(f"imagined beside real frames: {write_picture(config, agent)}", flush=True)
    if config.evaluation.episodes == 0:
        return
    document = read_results(config)
    if document is not None:
        print(f"reusing the scores in {config.out / RESULTS}; --restart trains and plays anew")
    else:
        document = score(config, agent, config.stage1.steps + config.stage2.steps)
        atomic_write_text(config.out / RESULTS, json.dumps(document, indent=2) + "\n")
    Console().print(demo_table(document))


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
    with closing(Feed(config, place)) as feed:
        _run_with(config, place, trainer, feed)


def _run_with(config: TrainConfig, place: Place, trainer: Trainer, feed: Feed) -> None:
    if not place.is_main:
        trainer.run(feed, lambda step, metrics: None)
        return
    pace = Pace(config, place, trainer.step)
    with (
        Loggers(config, config.out / METRICS, trainer.step) as loggers,
        steps_progress("training", trainer.total, "steps", trainer.step) as advance,
    ):

        def report(step: int, metrics: dict[str, float]) -> None:
            stage = 1 if step <= config.stage1.steps else 2
            speed = pace.measure(step, stage, metrics) if metrics else {}
            advance(step, progress_note(stage, metrics, speed) if metrics else None)
            loggers.scalars(step, {f"stage{stage}/{name}": value for name, value in metrics.items()} | speed)

        def observe(step: int, agent: Agent) -> None:
            due = observations(config, step)
            if "picture" in due:
                loggers.picture(step, "imagined beside real", draw_picture(config, agent))
            if "play" in due:
                found = look(config, agent, seed=config.seed)
                loggers.scalars(step, {f"play/{name}": value for name, value in found.metrics.items()})
                trainer.store.mark_best(step, found.score)
                print(f"step {step}: {found.describe()}", flush=True)
            pace.restart(step)

        trainer.run(feed, report, observe)


def write_picture(config: TrainConfig, agent: Agent) -> Path:
    """Keep :func:`draw_picture` beside the agent."""
    path = config.out / PICTURE
    save_picture(path, draw_picture(config, agent))
    return path


def draw_picture(config: TrainConfig, agent: Agent) -> Image.Image:
    """Real and imagined frames of one episode a game, of those that the run trains on, side by side."""
    store = EpisodeStore.open(config.data.path)
    # Positions behind the longest training segment were never trained: what is imagined there is noise.
    context = min(config.evaluation.context, config.data.segment_length - 1)
    chosen = []
    for game in config.data.games:
        table = draw_transitions(store, game, config.data.transitions, config.seed)
        best = int(np.argmax(table["score"]))
        length = int(table["length"][best])
        start = min(max(length // 3, context - 1), length - PICTURE_STEPS - 1)
        if start >= context - 1:
            number = int(np.searchsorted(store.table(game)["offset"], table["offset"][best]))
            chosen.append((store.read_episode(game, number), start))
    return rollout_picture(agent, chosen, context, PICTURE_STEPS)
