"""``python -m jowa.evaluate --agent AGENT``: play real games and write the scores."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from jowa.agent import Agent, Planning
from jowa.config import PRESETS
from jowa.errors import UsageError, command
from jowa.evaluate.play import Protocol, agent_player, get_protocol, noting, play
from jowa.evaluate.report import check_writable, results_document, score_table, write_results
from jowa.evaluate.scores import GameScore, summarise
from jowa.games import get_game
from jowa.hub import DEMO, output_folder
from jowa.options import parse_options
from jowa.planner.plan import PlannerName
from jowa.progress import steps_progress


@dataclass(frozen=True)
class EvaluateConfig:
    """Play real games with a trained agent and report its scores."""

    agent: tyro.conf.Positional[Path] = Path(DEMO)
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent."""
    games: tuple[str, ...] = ()
    """Games, CamelCase; none: those that the agent was trained on."""
    episodes: int = 16
    """Episodes a game."""
    planner: PlannerName | None = None
    """none: greedy in Q; beam: beam search in imagination; mcts: Monte Carlo tree search in it; default: the agent's
    own."""
    width: int | None = None
    """Beam width; default: the agent's own, or under the published protocol, for the published sizes and their fifteen
    games, the paper's."""
    horizon: int | None = None
    """Imagined steps; default: the agent's own."""
    simulations: int | None = None
    """MCTS: simulations a decision; default: the agent's own, or as many as beam search would imagine."""
    milliseconds: float | None = None
    """Time for a decision of the whole batch, after which the best actions so far are taken (results then depend on the
    machine; --batch 1 gives one environment all of it); default: the agent's own, usually no limit."""
    uncertainty: float | None = None
    """Value actions and states by the ensemble's mean minus so many of its standard deviations; default: the agent's
    own, usually 0."""
    gumbel: tyro.conf.FlagCreatePairsOff[bool] = False
    """MCTS: choose at the root by Gumbel noise and sequential halving; default: the agent's own, usually PUCT."""
    root_noise: float | None = None
    """MCTS: share of Dirichlet noise in the root's priors; default: the agent's own, usually 0."""
    context: int | None = None
    """Steps of memory to plan from; default: as for width."""
    protocol: Literal["sticky", "published"] = "sticky"
    """sticky: sticky actions 0.25, 27,000 agent steps; published: none, 108,000 steps, random action 0.001."""
    seed: int = 0
    """Seed of the environments."""
    batch: int = 64
    """Environments played at once."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; auto: bfloat16 on a GPU, float32 on a CPU."""
    out: Path | None = None
    """JSON file to write; default: evaluation-<planner>-<protocol>.json in the agent's folder, or in
    runs/played/<agent> for one that is shipped or of the hub."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be played with."""
        for game in self.games:
            get_game(game)
        if len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games)}: name each once")
        least = {"episodes": 1, "batch": 1, "seed": 0, "context": 1, "width": 1, "horizon": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"{name} is {value}, expected at least {minimum}: set --{name}")


def evaluate(config: EvaluateConfig) -> None:
    """Play, print the table, write the JSON."""
    config.check()
    agent = Agent.from_pretrained(config.agent, None, config.device, config.precision)
    games = config.games or tuple(agent.tasks)
    if not games:
        raise UsageError(f"{config.agent} names no games that it was trained on: choose some with --games")
    plannings = {game: planning_of(config, agent, game) for game in games}
    planner = next(iter(plannings.values())).planner
    path = config.out or output_folder(config.agent) / f"evaluation-{planner.name}-{config.protocol}.json"
    check_writable(path)
    protocol = get_protocol(config.protocol)
    for game in sorted(set(games) - set(agent.tasks)):
        known = ", ".join(agent.tasks) or "none"
        print(f"note: the agent was not trained on {game}, only on: {known}", file=sys.stderr)
    print(
        f"playing {config.episodes} episode(s) of {', '.join(games)}, at most {protocol.max_steps:,} agent steps each, "
        f"planner {planner.name}", flush=True,
    )  # fmt: skip
    results = _play(config, agent, plannings, protocol)
    contexts = {game: min(p.context, agent.longest_context(p.planner)) for game, p in plannings.items()}
    settings = {
        "agent": str(config.agent), "episodes": config.episodes, "seed": config.seed, "context": contexts,
        "width": {game: p.planner.width for game, p in plannings.items()},
        "planner": dataclasses.asdict(planner), "protocol": dataclasses.asdict(protocol),
    }  # fmt: skip
    document = results_document(settings, results, agent.device)
    write_results(path, document)
    Console().print(score_table(f"{config.agent}: {planner.name}, protocol {config.protocol}", results, document))
    print(f"written to {path}")


def planning_of(config: EvaluateConfig, agent: Agent, game: str) -> Planning:
    """How to play ``game``: what the call asks for, failing that the paper's settings or the agent's own."""
    named = config.planner or agent.planning.planner.name
    options = ("width", "horizon", "simulations", "milliseconds", "uncertainty", "root_noise")
    chosen: dict[str, Any] = {name: getattr(config, name) for name in options} | {"gumbel": config.gumbel or None}
    context = config.context
    paper = get_game(game).published_planning
    size = next((name for name, preset in PRESETS.items() if preset.model == agent.model.config), None)
    if config.protocol == "published" and paper is not None and size in ("40M", "70M", "150M"):
        chosen["width"] = paper.width if config.width is None else config.width
        context = getattr(paper, f"context_{size.lower()}") if context is None else context
    given = {key: value for key, value in chosen.items() if value is not None}
    planner = dataclasses.replace(agent.planning.planner, name=named, **given)
    return Planning(planner, agent.planning.context if context is None else context)


def _play(config: EvaluateConfig, agent: Agent, plannings: dict[str, Planning], protocol: Protocol) -> list[GameScore]:
    """Every game's scores, all games in one batch."""
    planner = next(iter(plannings.values())).planner
    with steps_progress(f"playing, planner {planner.name}", config.episodes * len(plannings), "episodes") as advance:
        player = agent_player(agent, plannings)
        played = play(player, list(plannings), config.episodes, protocol, config.seed, config.batch, noting(advance))
    return [summarise(game, [p.score for p in played if p.game == game]) for game in plannings]


@command
def main() -> None:
    """Entry point."""
    evaluate(parse_options(EvaluateConfig, "python -m jowa.evaluate", first="agent"))


if __name__ == "__main__":
    main()
