"""``python -m jowa.diagnose AGENT STORE``: measure what limits an agent, on recorded episodes and in the real game."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jowa.agent import Agent, Planning
from jowa.config import PlannerName
from jowa.data.store import EpisodeStore
from jowa.diagnose.measure import GameFigures, Settings, measure_game
from jowa.diagnose.moments import check_store
from jowa.errors import UsageError, command
from jowa.evaluate.__main__ import EvaluateConfig, planning_of
from jowa.evaluate.play import get_protocol
from jowa.evaluate.report import check_writable
from jowa.games import get_game
from jowa.hub import output_folder
from jowa.options import parse_options


@dataclass(frozen=True)
class DiagnoseConfig:
    """Measure the errors of an agent's imagination and critic, and what planning makes of them.

    Measured on the last episodes of each game in the data set: use one that the agent was not trained on.
    """

    agent: tyro.conf.Positional[Path]
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub;
    also as --agent."""
    store: tyro.conf.Positional[Path]
    """Data set with recorded episodes."""
    games: tuple[str, ...] = ()
    """Games, CamelCase; none: those that the agent was trained on and the data set holds."""
    episodes: float = 0.1
    """Share of each game's episodes (the last ones, at least one) to measure on; 1: all."""
    moments: int = 500
    """Recorded moments a game, of all alike; up to half as many more are drawn near rewards and ends."""
    steps: int = 8
    """Steps to imagine from each."""
    planner: PlannerName | None = None
    """none: greedy in Q; beam: beam search in imagination; mcts: Monte Carlo tree search in it; default: the agent's
    own."""
    width: int | None = None
    """Beam width; default: as python -m jowa.evaluate chooses it."""
    horizon: int | None = None
    """Imagined steps of the planner; default: the agent's own."""
    simulations: int | None = None
    """MCTS: simulations a decision; default: the agent's own, or as many as beam search would imagine."""
    uncertainty: float | None = None
    """Value actions and states by the ensemble's mean minus so many of its standard deviations; default: the agent's
    own, usually 0."""
    td_lambda: float | None = None
    """Beam search: share of a plan's score that the imagined states have at each depth; default: the agent's own."""
    context: int | None = None
    """Steps of memory; default: as for width."""
    rollouts: int = 32
    """Moments a game at which the planned and the greedy action are both tried in the real game; 0: none."""
    rollout_steps: int = 50
    """Agent steps that each is played for."""
    repeats: int = 4
    """How often each is played, with other draws of sticky actions."""
    play: int = 2_000
    """Decisions in the real game, by the planner, among which those moments are found."""
    protocol: Literal["sticky", "published"] = "sticky"
    """Rules of the real game, as in python -m jowa.evaluate."""
    seed: int = 0
    """Of the moments, of chance in the real game and of the resampling."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; auto: bfloat16 on a GPU, float32 on a CPU."""
    out: Path | None = None
    """Folder for diagnosis.json and the plots; default: diagnosis in the agent's folder, or in runs/played/<agent> for
    one that is shipped or of the hub."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be measured with."""
        for game in self.games:
            get_game(game)
        if len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games)}: name each once")
        least = {"moments": 1, "steps": 1, "rollouts": 0, "rollout_steps": 1, "repeats": 1, "play": 1, "seed": 0,
                 "width": 1, "horizon": 0, "context": 1}  # fmt: skip
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                option = name.replace("_", "-")
                raise UsageError(f"{option} is {value}, expected at least {minimum}: set --{option}")
        if not 0.0 < self.episodes <= 1.0:
            raise UsageError(f"episodes is {self.episodes}, expected a share above 0 and at most 1: set --episodes")


def run(config: DiagnoseConfig) -> Path:
    """Measure, print the tables, write JSON and plots; returns the folder."""
    from jowa.diagnose.plots import save_plots
    from jowa.diagnose.report import diagnosis_document, print_tables, write_document

    config.check()
    agent = Agent.from_pretrained(config.agent, None, config.device, config.precision)
    store = EpisodeStore.open(config.store)
    games = config.games or tuple(game for game in agent.tasks if game in store.games)
    if not games:
        raise UsageError(f"{config.store} holds none of the agent's games ({', '.join(agent.tasks) or 'none'})")
    check_store(store, games)
    plannings = {game: _planning(config, agent, game) for game in games}
    out = config.out or output_folder(config.agent) / "diagnosis"
    check_writable(out / "diagnosis.json")
    settings = Settings(
        config.episodes, config.moments, config.steps, config.rollouts, config.rollout_steps, config.repeats,
        config.play, get_protocol(config.protocol), config.seed,
    )  # fmt: skip
    figures: dict[str, GameFigures] = {}
    for game in games:
        if game not in agent.tasks:
            known = ", ".join(agent.tasks) or "none"
            print(f"note: the agent was not trained on {game}, only on: {known}", file=sys.stderr)
        figures[game] = measure_game(agent, store, game, plannings[game], settings)
    write_document(out / "diagnosis.json", diagnosis_document(config, agent, plannings, figures))
    pictures = save_plots(out, figures)
    print_tables(figures)
    print(f"written to {out}: diagnosis.json, {', '.join(path.name for path in pictures)}")
    return out


def _planning(config: DiagnoseConfig, agent: Agent, game: str) -> Planning:
    """How to plan in ``game``, as ``python -m jowa.evaluate`` would."""
    asked = EvaluateConfig(
        agent=config.agent, planner=config.planner, width=config.width, horizon=config.horizon,
        simulations=config.simulations, uncertainty=config.uncertainty, td_lambda=config.td_lambda,
        context=config.context, protocol=config.protocol,
    )  # fmt: skip
    planning = planning_of(asked, agent, game)
    steps, longest = agent.model.config.context_steps, agent.longest_context(planning.planner)
    if longest < 1:
        raise UsageError(
            f"horizon {planning.planner.horizon} leaves no context: expected at most {steps - 1} with this model of "
            f"{steps} steps; set --horizon"
        )
    if steps < 2:
        raise UsageError(f"a model of {steps} step(s) cannot imagine: nothing to diagnose")
    return Planning(planning.planner, min(planning.context, longest))


@command
def main() -> None:
    """Entry point."""
    run(parse_options(DiagnoseConfig, "python -m jowa.diagnose", first="agent"))


if __name__ == "__main__":
    main()
