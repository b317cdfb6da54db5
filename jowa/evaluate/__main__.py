"""``python -m jowa.evaluate --agent AGENT``: play real games and write the scores."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from jowa.agent import Agent, Planning
from jowa.config import PlannerName
from jowa.errors import UsageError, command
from jowa.evaluate.play import MakePlayer, Protocol, agent_player, get_protocol, noting, play, steps_of
from jowa.evaluate.published import published
from jowa.evaluate.report import check_writable, own_path, results_document, score_table, write_results
from jowa.evaluate.rivals import rival_player
from jowa.evaluate.scores import summarise
from jowa.games import get_game
from jowa.hub import DEMO, output_folder
from jowa.options import parse_options
from jowa.progress import steps_progress
from jowa.rivals import Choice, Kind, Rival, is_rival


@dataclass(frozen=True)
class EvaluateConfig:
    """Play real games with a trained agent, or a rival of it, and report its scores."""

    agent: tyro.conf.Positional[Path] = Path(DEMO)
    """Agent: its folder, demo (the one that comes with jowa), or owner/name on the Hugging Face hub; or the folder of a
    rival (python -m jowa.baselines), which has no planner; also as --agent."""
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
    td_lambda: float | None = None
    """Beam search: share of a plan's score that the imagined states have at each depth, the rest is Q's; default: the
    agent's own, usually 1, as published."""
    gumbel: tyro.conf.FlagCreatePairsOff[bool] = False
    """MCTS: choose at the root by Gumbel noise and sequential halving; default: the agent's own, usually PUCT."""
    root_noise: float | None = None
    """MCTS: share of Dirichlet noise in the root's priors; default: the agent's own, usually 0."""
    ignore_ends: tyro.conf.FlagCreatePairsOff[bool] = False
    """Plan on behind predicted ends, as the published code does; default: the agent's own, usually not."""
    context: int | None = None
    """Steps of memory to plan from; default: as for width.  Rivals that read tokens have a memory too; default: as they
    were saved."""
    choice: Choice | None = None
    """Rivals that predict actions.  likely: the most likely legal action; sampled: one drawn from the policy; default:
    as they were saved."""
    protocol: Literal["sticky", "published"] = "sticky"
    """sticky: sticky actions 0.25, 27,000 agent steps; published: none, 108,000 steps, random action 0.001."""
    max_steps: int | None = None
    """Agent steps after which an episode is cut off, if the protocol does not do so before; default: the protocol's."""
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
    runs/played/<agent> for one that is shipped or of the hub, with -2, -3, ... where scores of other games or settings
    have that name."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be played with."""
        for game in self.games:
            get_game(game)
        if len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games)}: name each once")
        least = {"episodes": 1, "batch": 1, "seed": 0, "context": 1, "width": 1, "horizon": 0, "max_steps": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                option = name.replace("_", "-")
                raise UsageError(f"{name} is {value}, expected at least {minimum}: set --{option}")

    def rules(self) -> Protocol:
        """The protocol, with its episodes cut off earlier if the call asks for it."""
        protocol = get_protocol(self.protocol)
        return dataclasses.replace(protocol, max_steps=min(protocol.max_steps, self.max_steps or protocol.max_steps))


def evaluate(config: EvaluateConfig) -> None:
    """Play, print the table, write the JSON."""
    config.check()
    if is_rival(config.agent):
        evaluate_rival(config)
        return
    if config.choice is not None:
        raise UsageError(f"{config.agent} is an agent, which chooses by value: leave out --choice, for rivals alone")
    agent = Agent.from_pretrained(config.agent, None, config.device, config.precision)
    games = _games(config, agent.tasks)
    plannings = {game: planning_of(config, agent, game) for game in games}
    planner = next(iter(plannings.values())).planner
    contexts = {game: min(p.context, agent.longest_context(p.planner)) for game, p in plannings.items()}
    settings = {
        "context": contexts, "width": {game: p.planner.width for game, p in plannings.items()},
        "horizon": {game: p.planner.depth for game, p in plannings.items()},
        "td_lambda": {game: p.planner.td_lambda for game, p in plannings.items()},
        "planner": dataclasses.asdict(planner),
    }  # fmt: skip
    _play(
        config, agent_player(agent, plannings), games, agent.device, f"planner {planner.name}", planner.name, settings
    )


def evaluate_rival(config: EvaluateConfig) -> None:
    """:func:`evaluate` of a rival.  Raises :class:`UsageError` for options that mean nothing to it."""
    rival = Rival.load(config.agent, config.device, config.precision)
    check_rival_options(config, rival.kind)
    games = _games(config, rival.tasks)
    chosen: dict[str, Any] = {"context": config.context, "choice": config.choice}
    playing = dataclasses.replace(rival.playing, **{name: value for name, value in chosen.items() if value is not None})
    settings = {"rival": rival.kind, "size": rival.size, "playing": dataclasses.asdict(playing)}
    player = rival_player(rival, config.seed, playing)
    _play(config, player, games, rival.device, rival.kind, rival.kind, settings)


def check_rival_options(config: EvaluateConfig, kind: Kind) -> None:
    """Raise :class:`UsageError` for what a rival of ``kind`` does not have."""
    own = (
        "agent", "games", "episodes", "protocol", "max_steps", "seed", "batch", "device", "precision", "out", "context",
        "choice",
    )  # fmt: skip
    foreign = [field.name for field in dataclasses.fields(config) if field.name not in own]
    if kind == "scaled-ql":
        foreign += ["context", "choice"]
    given = [name for name in foreign if getattr(config, name) not in (None, False, "none")]
    if given:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        reason = (
            "sees four frames and takes the action of the highest value" if kind == "scaled-ql" else "does not plan"
        )
        raise UsageError(f"{config.agent} is a rival, {kind}, which {reason}: leave out {named}")


def _games(config: EvaluateConfig, tasks: Mapping[str, int]) -> tuple[str, ...]:
    """What is played; says on stderr which of it is new to whom plays."""
    games = config.games or tuple(tasks)
    if not games:
        raise UsageError(f"{config.agent} names no games that it was trained on: choose some with --games")
    for game in sorted(set(games) - set(tasks)):
        known = ", ".join(tasks) or "none"
        print(f"note: the agent was not trained on {game}, only on: {known}", file=sys.stderr)
    return games


def _play(
    config: EvaluateConfig, player: MakePlayer, games: Sequence[str], device: torch.device, how: str, name: str,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    """Play ``games`` in one batch and report; ``how`` and ``name``: what the player is called, in text and files."""
    protocol = config.rules()
    own = {
        "agent": str(config.agent), "episodes": config.episodes, "seed": config.seed,
        "protocol": dataclasses.asdict(protocol),
    }  # fmt: skip
    path = config.out or own_path(
        output_folder(config.agent) / f"evaluation-{name}-{config.protocol}.json", own | settings, games
    )
    check_writable(path)
    print(
        f"playing {config.episodes} episode(s) of {', '.join(games)}, at most {protocol.max_steps:,} agent steps each, "
        f"{how}", flush=True,
    )  # fmt: skip
    with steps_progress(f"playing, {how}", config.episodes * len(games), "episodes") as advance:
        played = play(player, games, config.episodes, protocol, config.seed, config.batch, noting(advance))
    results = [summarise(game, [p.score for p in played if p.game == game]) for game in games]
    document = results_document(own | settings, results, device) | {"steps": steps_of(played)}
    write_results(path, document)
    Console().print(score_table(f"{config.agent}: {name}, protocol {config.protocol}", results, document))
    print(f"written to {path}")


def planning_of(config: EvaluateConfig, agent: Agent, game: str) -> Planning:
    """How to play ``game``: what the call asks for, failing that the paper's settings or the agent's own.

    A call that names a planner gets it with the same settings in every game, unless it is told them too.
    """
    own = agent.planning if config.planner else agent.planning.of(game)
    named = config.planner or own.planner.name
    options = ("width", "horizon", "simulations", "milliseconds", "uncertainty", "td_lambda", "root_noise")
    chosen: dict[str, Any] = {name: getattr(config, name) for name in options} | {
        "gumbel": config.gumbel or None, "respect_ends": False if config.ignore_ends else None,
    }  # fmt: skip
    if config.protocol == "published":
        own = published(own, agent.model.config, game)
    given = {key: value for key, value in chosen.items() if value is not None}
    planner = dataclasses.replace(own.planner, name=named, **given)
    return Planning(planner, own.context if config.context is None else config.context)


@command
def main() -> None:
    """Entry point."""
    evaluate(parse_options(EvaluateConfig, "python -m jowa.evaluate", first="agent"))


if __name__ == "__main__":
    main()
