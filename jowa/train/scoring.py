"""The table at the end of training: random, the data's own policy, the agent before, without and with planning."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from rich.table import Table

from jowa.agent import Agent, Planning
from jowa.config import PlannerName
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.evaluate import GameScore, agent_player, get_protocol, play, random_player, summarise
from jowa.evaluate.play import MakePlayer, noting
from jowa.evaluate.published import published
from jowa.evaluate.report import interval, number, results_document
from jowa.progress import steps_progress
from jowa.train.config import TrainConfig
from jowa.train.folder import TrainedOn
from jowa.train.presets import TRAIN_PRESETS

ROWS = ("random", "data", "agent before", "agent", "agent + beam search", "agent + MCTS")
"""Who plays, from top to bottom of the table; the third only in a run that starts from an agent, the last only where
the agent plays so unless told otherwise (``evaluation.planner``)."""


class Recorded(TrainedOn, Protocol):
    """Which episodes a run trains on."""

    @property
    def transitions(self) -> int:
        """Agent steps of each game; 0: all."""


def score(config: TrainConfig, agent: Agent, step: int) -> dict[str, Any]:
    """Play every row of the table in every game; the document that ``results.json`` holds."""
    settings = config.evaluation
    named = get_protocol(settings.protocol)
    protocol = dataclasses.replace(named, max_steps=min(named.max_steps, settings.max_steps))
    rows: dict[str, list[GameScore]] = {"data": data_scores(config.data, config.seed)}
    players: dict[str, MakePlayer] = {
        "random": random_player(config.seed),
        "agent": agent_player(agent, plannings(config, agent, "none")),
        "agent + beam search": agent_player(agent, plannings(config, agent, "beam")),
    }
    if agent.planning.planner.name == "mcts":
        players["agent + MCTS"] = agent_player(agent, plannings(config, agent, "mcts"))
    if config.start_from is not None:
        before = Agent.load(config.start_from, str(agent.device), config.precision)
        players["agent before"] = agent_player(before, plannings(config, agent, "none"))
    games = config.data.games
    for name, player in players.items():
        with steps_progress(f"playing: {name}", settings.episodes * len(games), "episodes") as advance:
            played = play(player, games, settings.episodes, protocol, config.seed, on_progress=noting(advance))
        rows[name] = [summarise(game, [p.score for p in played if p.game == game]) for game in games]
    document = results_document(dataclasses.asdict(settings), rows["agent + beam search"], agent.device)
    document["td_lambda"] = agent.planning.planner.td_lambda
    chosen = plannings(config, agent, "beam")
    document["planning"] = {game: {"width": p.planner.width, "context": p.context} for game, p in chosen.items()}
    document["step"] = step
    document["rows"] = {name: [dataclasses.asdict(result) for result in rows[name]] for name in ROWS if name in rows}
    return document


def plannings(config: TrainConfig, agent: Agent, name: PlannerName) -> dict[str, Planning]:
    """How ``agent`` plays each of the run's games by the planner ``name``.

    Its own settings; under the published protocol the paper's context and width of each game, unless the run was given
    others than its preset's, which then count in every game.
    """
    settings, preset = config.evaluation, TRAIN_PRESETS.get(config.preset)
    own = Planning(dataclasses.replace(agent.planning.planner, name=name), settings.context)
    usual = None if preset is None else (preset.evaluation.width, preset.evaluation.context)
    as_published = settings.protocol == "published" and (settings.width, settings.context) == usual
    return {game: published(own, agent.model.config, game) if as_published else own for game in config.data.games}


def data_scores(data: Recorded, seed: int) -> list[GameScore]:
    """The scores of the episodes that a run with ``seed`` trains on, game by game."""
    store = EpisodeStore.open(data.path)
    tables = {game: draw_transitions(store, game, data.transitions, seed) for game in data.games}
    return [summarise(game, table["score"].tolist()) for game, table in tables.items()]


def demo_table(document: dict[str, Any]) -> Table:
    """The document as a table: a block a game, a row a player."""
    settings = document["settings"]
    table = Table(
        title=f"scores in real games, protocol {settings['protocol']}, at most {settings['max_steps']:,} agent steps"
    )
    for name in ("game", "player", "mean", "95% interval", "episodes"):
        table.add_column(name, justify="left" if name in ("game", "player") else "right")
    for index, result in enumerate(document["rows"]["random"]):
        shown = list(document["rows"])
        for name in shown:
            row = document["rows"][name][index]
            table.add_row(
                result["game"] if name == shown[0] else "", name, number(row["mean"]),
                interval(row["low"], row["high"], len(row["scores"])), str(len(row["scores"])),
            )  # fmt: skip
        table.add_section()
    return table
