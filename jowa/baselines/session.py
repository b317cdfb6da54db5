"""One run from data to scores: train, save the rival, play, print the table."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from typing import Any

from rich.console import Console

from jowa.baselines.config import AnyConfig, ScaledQlConfig, as_training
from jowa.baselines.curve import Curve
from jowa.baselines.feed import RivalFeed
from jowa.baselines.loop import RivalTrainer
from jowa.baselines.start import check, with_games
from jowa.data.remote import remote_address
from jowa.data.store import EpisodeStore
from jowa.devices import choose_precision
from jowa.errors import CheckpointError, DataError, UsageError
from jowa.evaluate import GameScore, get_protocol, play, random_player, rival_player, summarise
from jowa.evaluate.play import MakePlayer, noting
from jowa.evaluate.report import results_document
from jowa.files import atomic_write_text
from jowa.progress import steps_progress
from jowa.rivals import Rival
from jowa.train.distributed import Place
from jowa.train.folder import AGENT, METRICS, RESULTS, begin, write_settings
from jowa.train.loggers import Loggers
from jowa.train.pace import progress_note
from jowa.train.scoring import data_scores, demo_table
from jowa.train.stop import stop_at_once

CURVE = "curve.jsonl"


def run(config: AnyConfig, place: Place) -> None:
    """The whole path for ``config``; what an earlier run finished is reused."""
    if place.world > 1:
        raise UsageError("rivals train in one process, expected no torchrun: start python -m jowa.baselines alone")
    check(config)
    if remote_address(config.data.path) is None and not config.data.path.exists():
        raise DataError(f"{config.data.path} does not exist: record it with python -m jowa.record, or set --data.path")
    config = with_games(config, EpisodeStore.open(config.data.path))
    if config.dry_run:
        show(config, place)
        return
    with stop_at_once():
        begin(config)
        if config.restart:
            (config.out / CURVE).unlink(missing_ok=True)
        rival = train(config, place)
        play_and_report(config, rival)


def show(config: AnyConfig, place: Place) -> None:
    """Print what would train, without data."""
    trainer = RivalTrainer(config, config.data.games, place)
    print(describe(config, trainer.rival))
    with closing(
        RivalFeed(dataclasses.replace(config, batch_size=1), config.data.games, place, trainer.rival.tasks)
    ) as feed:
        windows = len(feed.index)
    passed = config.steps * config.batch_size / windows
    unit = "transitions" if isinstance(config, ScaledQlConfig) else "segments"
    print(f"{config.steps:,} steps of {config.batch_size} {unit}: {passed:.1f} passes through {windows:,} of them")


def describe(config: AnyConfig, rival: Rival) -> str:
    """Sizes, in a line."""
    trained = sum(p.numel() for p in rival.model.parameters() if p.requires_grad)
    frozen = "" if rival.tokenizer is None else (
        f", frozen tokenizer {sum(p.numel() for p in rival.tokenizer.parameters()) / 1e6:.2f}M"
    )  # fmt: skip
    return f"{config.rival} {config.size}: {trained / 1e6:.2f}M parameters{frozen}, on {rival.device}"


def train(config: AnyConfig, place: Place) -> Rival:
    """Train (or resume), write the rival to ``config.out / "agent"`` and return it."""
    games = config.data.games
    trainer = RivalTrainer(config, games, place)
    resumed = trainer.resume()
    write_settings(config)
    print(describe(config, trainer.rival), flush=True)
    if resumed:
        state = "finished" if trainer.step == config.steps else f"at step {trainer.step} of {config.steps}"
        print(f"reusing the run in {config.out}: {state}", flush=True)
    if trainer.step < config.steps:
        with closing(RivalFeed(config, games, place, trainer.rival.tasks)) as feed:
            if trainer.rival.tokenizer is not None:
                print(
                    feed.encode(trainer.rival.tokenizer, choose_precision(config.precision, place.device)), flush=True
                )
            _run(config, trainer, feed)
    trainer.rival.save(config.out / AGENT)
    return trainer.rival


def _run(config: AnyConfig, trainer: RivalTrainer, feed: RivalFeed) -> None:
    curve = Curve(config.out / CURVE, trainer.step)
    with (
        Loggers(as_training(config, config.data.games), config.out / METRICS, trainer.step) as loggers,
        steps_progress("training", config.steps, "steps", trainer.step) as advance,
    ):

        def report(step: int, metrics: dict[str, float]) -> None:
            advance(step, progress_note(2, metrics, {}).removeprefix("stage 2").strip() if metrics else None)
            if metrics:
                curve.note(step, metrics)
                loggers.scalars(step, metrics | {"speed/seconds": curve.seconds})

        trainer.run(feed, report, curve.save)


def play_and_report(config: AnyConfig, rival: Rival) -> None:
    """Play the real games unless that was done before, print the table."""
    print(f"rival: {config.out / AGENT}", flush=True)
    if config.evaluation.episodes == 0:
        return
    document = _read_results(config)
    if document is not None:
        print(f"reusing the scores in {config.out / RESULTS}; --restart trains and plays anew")
    else:
        document = score(config, rival)
        atomic_write_text(config.out / RESULTS, json.dumps(document, indent=2) + "\n")
    Console().print(demo_table(document))


def score(config: AnyConfig, rival: Rival) -> dict[str, Any]:
    """Play every row of the table in every game; the document that ``results.json`` holds, as of jowa.train."""
    settings, games = config.evaluation, config.data.games
    named = get_protocol(settings.protocol)
    protocol = dataclasses.replace(named, max_steps=min(named.max_steps, settings.max_steps))
    players: dict[str, MakePlayer] = {"random": random_player(config.seed)}
    if config.start_from is not None:
        before = Rival.load(config.start_from, str(rival.device), config.precision)
        players[f"{config.rival} before"] = rival_player(before, config.seed)
    players[config.rival] = rival_player(rival, config.seed)
    rows: dict[str, list[GameScore]] = {}
    for name, player in players.items():
        with steps_progress(f"playing: {name}", settings.episodes * len(games), "episodes") as advance:
            played = play(player, games, settings.episodes, protocol, config.seed, on_progress=noting(advance))
        rows[name] = [summarise(game, [p.score for p in played if p.game == game]) for game in games]
        if name == "random":
            rows["data"] = data_scores(config.data, config.seed)
    document = results_document(dataclasses.asdict(settings), rows[config.rival], rival.device)
    document["step"] = config.steps
    document["rows"] = {name: [dataclasses.asdict(result) for result in found] for name, found in rows.items()}
    return document


def _read_results(config: AnyConfig) -> dict[str, Any] | None:
    """The scores of an earlier run of the same evaluation; None when there are none."""
    path = config.out / RESULTS
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = (document["step"], document["settings"]) == (config.steps, dataclasses.asdict(config.evaluation))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it and run again") from error
    return document if same else None
