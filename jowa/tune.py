"""``python -m jowa.tune AGENT``: find how an agent plays each of its games best, and remember it.

The paper chooses context and width for every game.  What suits a game follows from its data, too: who recorded it by a
pattern in time can be imitated with a memory alone, and elsewhere a memory tempts a critic to repeat itself.  Where a
critic tells moments apart better than actions, imagined states are worth more than what Q says of the actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jowa.agent import Agent, GamePlanning, Planning
from jowa.errors import UsageError, command
from jowa.evaluate.play import Protocol, agent_player, get_protocol, noting, play
from jowa.games import get_game
from jowa.hub import find_agent, output_folder
from jowa.options import parse_options
from jowa.progress import steps_progress

PUBLISHED_SCORE = 1.0
"""Lambda of arXiv 2410.00564: a plan is worth what is imagined behind it, and nothing that Q says of its actions."""


@dataclass(frozen=True)
class TuneConfig:
    """Play every game with each memory that fits the model: greedily, by the agent's planner, and where that is beam
    search also scored as published; keep what is better than the agent's own way.

    That stays unless another one's mean score is higher by more than ``margin`` standard errors of the difference.
    These scores are of whoever was luckiest: evaluate afterwards, from another seed.
    """

    agent: tyro.conf.Positional[Path]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent. What is found goes into its config.json; of another agent than your own, a copy with it is written
    to runs/played/<agent>."""
    games: tuple[str, ...] = ()
    """Games, CamelCase; none: those that the agent was trained on."""
    episodes: int = 8
    """Episodes a game and candidate."""
    margin: float = 1.0
    """Standard errors by which a candidate must be better."""
    seed: int = 10_000
    """Seed of the environments, the same for all candidates."""
    protocol: Literal["sticky", "published"] = "sticky"
    """sticky: sticky actions 0.25, 27,000 agent steps; published: none, 108,000 steps, random action 0.001."""
    max_steps: int = 3_000
    """Agent steps after which an episode is cut off, if the protocol does not do so before."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be used."""
        for game in self.games:
            get_game(game)
        if len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games)}: name each once")
        for name, least in {"episodes": 2, "seed": 0, "max_steps": 1, "margin": 0}.items():
            if not getattr(self, name) >= least:
                option = name.replace("_", "-")
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {least}: set --{option}")


def candidates(agent: Agent) -> list[Planning]:
    """Ways to play one game: the agent's own first, then greedily and by its planner with each memory that fits, beam
    search also scored by imagined states alone."""
    planner = agent.planning.planner
    general = Planning(planner, min(agent.planning.context, agent.longest_context(planner)))
    own = general.planner.td_lambda
    scores = dict.fromkeys([own, PUBLISHED_SCORE] if planner.name == "beam" else [own])
    found = {(general.planner.depth, own, general.context): general}
    for horizon in dict.fromkeys([0, general.planner.depth]):
        for td_lambda in scores if horizon else [own]:  # without imagined states it bears on nothing
            planner = dataclasses.replace(general.planner, horizon=horizon, td_lambda=td_lambda)
            for context in range(1, agent.longest_context(planner) + 1):
                found.setdefault((horizon, td_lambda, context), Planning(planner, context))
    return list(found.values())


def better(own: Sequence[float], others: Sequence[Sequence[float]], margin: float) -> int | None:
    """Which of ``others`` has the highest mean, if it is above that of ``own`` by more than ``margin`` standard errors
    of the difference (Welch); None: none of them.  Each holds the scores of one player's episodes, two at least."""
    if not others:
        return None
    best = int(np.argmax([np.mean(scores) for scores in others]))
    gain = float(np.mean(others[best]) - np.mean(own))
    error = sum(float(np.var(scores, ddof=1)) / len(scores) for scores in (own, others[best])) ** 0.5
    return best if gain > margin * error else None


def tune(config: TuneConfig) -> Path:
    """Play, print the table, and write the agent; the folder that it went to."""
    config.check()
    folder = find_agent(config.agent)
    agent = Agent.load(folder, config.device)
    games = config.games or tuple(agent.tasks)
    if not games:
        raise UsageError(f"{config.agent} does not say which games it was trained on: name them with --games")
    ways = candidates(agent)
    rules = get_protocol(config.protocol)
    rules = dataclasses.replace(rules, max_steps=min(rules.max_steps, config.max_steps))
    scores = _play_all(agent, games, ways, config, rules)
    own = dict(agent.planning.games)
    table = Table(
        "game", *(_describe(way) for way in ways), title=f"{config.agent}: mean of {config.episodes} episodes"
    )
    for game in games:
        found = better(scores[game][0], scores[game][1:], config.margin)
        chosen = 0 if found is None else 1 + found
        own.pop(game, None)
        if chosen:
            own[game] = _difference(ways[chosen], agent.planning)
        means = [f"{np.mean(values):,.1f}" for values in scores[game]]
        table.add_row(game, *(f"[bold]{mean}[/]" if index == chosen else mean for index, mean in enumerate(means)))
    Console().print(table)
    agent.planning = dataclasses.replace(agent.planning, games=own)
    target = output_folder(config.agent)
    if target == folder:
        agent.save_planning(folder)
    else:
        agent.save_pretrained(target)
    said = ", ".join(f"{game} {_describe(agent.planning.of(game))}" for game in own)
    print(f"played otherwise from now on: {said or 'no game'}; written to {target}")
    return target


def _play_all(
    agent: Agent, games: Sequence[str], ways: Sequence[Planning], config: TuneConfig, rules: Protocol
) -> dict[str, list[list[float]]]:
    """By game: the scores of each of ``ways``."""
    scores: dict[str, list[list[float]]] = {game: [] for game in games}
    each = len(games) * config.episodes
    with steps_progress("playing", each * len(ways), "episodes") as advance:
        for index, way in enumerate(ways):
            player = agent_player(agent, dict.fromkeys(games, way))
            note = noting(advance, before=index * each)
            played = play(player, games, config.episodes, rules, config.seed, on_progress=note)
            for game in games:
                scores[game].append([one.score for one in played if one.game == game])
    return scores


def _difference(way: Planning, general: Planning) -> GamePlanning:
    planner = way.planner
    return GamePlanning(
        way.context, planner.horizon, None if planner.td_lambda == general.planner.td_lambda else planner.td_lambda
    )


def _describe(way: Planning) -> str:
    planner = way.planner
    planned = f"{planner.name}, horizon {planner.depth}"
    if planner.name == "beam":
        planned += f", lambda {planner.td_lambda:g}"
    return f"{planned if planner.depth else 'greedy'}, memory {way.context}"


@command
def main() -> None:
    """Entry point."""
    tune(parse_options(TuneConfig, "python -m jowa.tune", first="agent"))


if __name__ == "__main__":
    main()
