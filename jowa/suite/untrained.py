"""``python -m jowa.suite.untrained random|data``: the scores of players that nobody trained.

``random`` plays uniformly random legal actions; ``data`` plays nothing and lists the scores of recorded episodes.
Both write what ``python -m jowa.evaluate`` writes, without means over games.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

import jowa
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.errors import UsageError, command
from jowa.evaluate import get_protocol, play, random_player, summarise
from jowa.evaluate.play import noting, steps_of
from jowa.evaluate.report import write_results
from jowa.games import get_game
from jowa.options import parse_options
from jowa.progress import steps_progress


@dataclass(frozen=True)
class UntrainedConfig:
    """Who, in which games."""

    player: tyro.conf.Positional[Literal["random", "data"]]
    """random: uniformly random legal actions; data: the recorded episodes themselves."""
    games: tuple[str, ...]
    """Games, CamelCase."""
    out: Path
    """JSON file to write."""
    data: Path | None = None
    """data: folder of the data set."""
    transitions: int = 0
    """data: only the episodes that so many agent steps of a game are drawn from; 0: all."""
    episodes: int = 10
    """random: episodes a game."""
    max_steps: int = 27_000
    """random: agent steps after which an episode is cut off."""
    seed: int = 0
    """random: of the environments; data: of the draw."""


def run(config: UntrainedConfig) -> dict[str, Any]:
    """The document of scores."""
    for game in config.games:
        get_game(game)
    if config.player == "data":
        if config.data is None:
            raise UsageError("whose scores: name the data set with --data")
        store = EpisodeStore.open(config.data)
        tables = {game: draw_transitions(store, game, config.transitions, config.seed) for game in config.games}
        results = [summarise(game, table["score"].tolist()) for game, table in tables.items()]
        steps = {game: [int(length) for length in table["length"]] for game, table in tables.items()}
        settings: dict[str, Any] = {"player": "data", "data": str(config.data), "transitions": config.transitions}
    else:
        if config.episodes < 1 or config.max_steps < 1:
            raise UsageError(f"episodes {config.episodes}, max_steps {config.max_steps}: expected at least 1 of both")
        protocol = dataclasses.replace(get_protocol("sticky"), max_steps=config.max_steps)
        with steps_progress("playing: random", config.episodes * len(config.games), "episodes") as advance:
            played = play(
                random_player(config.seed), config.games, config.episodes, protocol, config.seed,
                on_progress=noting(advance),
            )  # fmt: skip
        results = [summarise(game, [p.score for p in played if p.game == game]) for game in config.games]
        steps = steps_of(played)
        settings = {"player": "random", "protocol": dataclasses.asdict(protocol), "episodes": config.episodes}
    return {
        "jowa": jowa.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": settings | {"seed": config.seed},
        "games": [dataclasses.asdict(result) for result in results],
        "steps": steps,
    }


@command
def main() -> None:
    """Entry point."""
    config = parse_options(UntrainedConfig, "python -m jowa.suite.untrained", description=__doc__)
    write_results(config.out, run(config))
    print(f"written to {config.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
