"""``python -m jowa.evaluate AGENT``: play real games and write the scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from jowa.agent import Agent
from jowa.errors import UsageError, command
from jowa.evaluate.play import agent_player, get_protocol, noting, play
from jowa.evaluate.report import check_writable, results_document, score_table, write_results
from jowa.evaluate.scores import summarise
from jowa.games import get_game
from jowa.progress import steps_progress


@dataclass(frozen=True)
class EvaluateConfig:
    """Play real games with a trained agent and report its scores."""

    agent: tyro.conf.Positional[Path]
    """Folder of the agent."""
    games: tuple[str, ...] = ()
    """Games, CamelCase; none: those that the agent was trained on."""
    episodes: int = 16
    """Episodes a game."""
    planner: Literal["none", "beam"] = "beam"
    """none: greedy in Q; beam: beam search in imagination."""
    width: int | None = None
    """Beam width; default: the agent's own."""
    horizon: int | None = None
    """Imagined steps; default: the agent's own."""
    context: int | None = None
    """Steps of memory to plan from; default: the agent's own."""
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
    """JSON file to write; default: evaluation-<planner>-<protocol>.json in the agent's folder."""

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
    path = config.out or config.agent / f"evaluation-{config.planner}-{config.protocol}.json"
    agent = Agent.load(config.agent, config.device, config.precision)
    games = config.games or tuple(agent.tasks)
    if not games:
        raise UsageError(f"{config.agent} names no games that it was trained on: choose some with --games")
    check_writable(path)
    chosen = {key: getattr(config, key) for key in ("width", "horizon") if getattr(config, key) is not None}
    planner = dataclasses.replace(agent.planning.planner, name=config.planner, **chosen)
    context = agent.planning.context if config.context is None else config.context
    protocol = get_protocol(config.protocol)
    player, total = agent_player(agent, planner, dict.fromkeys(games, context)), config.episodes * len(games)
    with steps_progress(f"{len(games)} games, {config.planner}", total, "episodes") as advance:
        played = play(player, games, config.episodes, protocol, config.seed, config.batch, noting(advance))
    results = [summarise(game, [p.score for p in played if p.game == game]) for game in games]
    settings = {
        "agent": str(config.agent), "episodes": config.episodes, "seed": config.seed, "context": context,
        "planner": dataclasses.asdict(planner), "protocol": dataclasses.asdict(protocol),
    }  # fmt: skip
    document = results_document(settings, results, agent.device)
    write_results(path, document)
    Console().print(score_table(f"{config.agent}: {config.planner}, protocol {config.protocol}", results, document))
    print(f"written to {path}")


@command
def main() -> None:
    """Entry point."""
    evaluate(tyro.cli(EvaluateConfig, prog="python -m jowa.evaluate"))


if __name__ == "__main__":
    main()
