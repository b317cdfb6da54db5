"""Made-up results of a whole suite, for the report to speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from jowa.games import get_game
from jowa.suite.results import GamePlayed, Planned, Result, Training, Transfer

GAMES = ("Atlantis", "Boxing", "Breakout", "Freeway", "Pong", "SpaceInvaders")
HELD_OUT = ("Assault", "DemonAttack")
SIZES = {"S": 410_000, "M": 1_240_000, "L": 4_800_000}
PROTOCOL = {"name": "sticky", "sticky": 0.25, "max_steps": 27_000}
MACHINE = {"device": "cpu", "threads": 2, "torch": "2.13", "commit": "abc1234", "date": "2026-11-23"}
BEAM = Planned("beam", width=2, horizon=2)
SKILL = {"random": 0.0, "data": 0.55, "mtbc": 0.42, "mgdt": 0.45, "scaled-ql": 0.3, "jowa": 0.5}
SIZE_SKILL = {"": 0.0, "S": -0.15, "M": 0.0, "L": 0.1}


def played(
    games: tuple[str, ...], skill: float, generator: np.random.Generator, episodes: int
) -> dict[str, GamePlayed]:
    """Episodes around a human-normalised ``skill``."""
    found = {}
    for game in games:
        scores = get_game(game).scores
        assert scores is not None
        normalised = skill + generator.normal(0, 0.05) + generator.normal(0, 0.15, episodes)
        points = scores.random + normalised * (scores.human - scores.random)
        found[game] = GamePlayed(tuple(np.round(points, 1).tolist()), (1000,) * episodes)
    return found


def curve(generator: np.random.Generator) -> tuple[dict[str, float], ...]:
    steps = np.arange(0, 4000, 250)
    return tuple(
        {
            "step": float(step), "seconds": float(step) / 8, "speed/steps_per_second": 8.0,
            "world": float(3 * np.exp(-step / 900) + 0.4 + generator.normal(0, 0.03)),
            "td": float(1.2 * np.exp(-step / 1500) + 0.5 + generator.normal(0, 0.02)),
        }
        for step in steps
    )  # fmt: skip


class Suite:
    """Makes results; seeds and episodes as asked."""

    def __init__(self, seeds: int = 3, episodes: int = 10) -> None:
        self.seeds, self.episodes = seeds, episodes

    def result(self, id: str, groups: tuple[str, ...], method: Any, skill: float, seed: int = 0, **how: Any) -> Result:
        """One; ``how``: fields of :class:`Result`, and ``games`` by name."""
        generator = np.random.default_rng([seed, *id.encode()])
        games = how.pop("games", GAMES)
        size = how.get("size", "")
        trained = method not in ("random", "data")
        training = Training(560.0 + seed, 4000, SIZES.get(size, 900_000), curve(generator)) if trained else Training()
        return Result(
            id=id, groups=groups, method=method, games=played(games, skill, generator, self.episodes), seed=seed,
            training=training, protocol=PROTOCOL, machine=MACHINE,
            command=f"python -m jowa.train --seed {seed}\npython -m jowa.evaluate {id}", **how,
        )  # fmt: skip

    def methods(self) -> Iterator[Result]:
        """Agent, rivals, random and data; the agent in three sizes."""
        for method in ("random", "data"):
            yield self.result(method, ("methods",), method, SKILL[method])
        for seed in range(self.seeds):
            for method in ("mtbc", "mgdt", "scaled-ql"):
                yield self.result(f"{method}-M-seed{seed}", ("methods",), method, SKILL[method], seed, size="M")
            for size in SIZES:
                groups = ("methods", "scale", "ablations", "planning") if size == "M" else ("scale",)
                skill = SKILL["jowa"] + SIZE_SKILL[size]
                yield self.result(f"jowa-{size}-seed{seed}/greedy", groups, "jowa", skill, seed, size=size)
                planned = ("methods", "scale", "planning") if size == "M" else ("scale",)
                yield self.result(
                    f"jowa-{size}-seed{seed}/beam-2x2", planned, "jowa", skill + 0.12, seed, size=size, planned=BEAM
                )

    def ablations(self) -> Iterator[Result]:
        """One thing changed."""
        for variant, loss in {"detach-q": 0.2, "mse": 0.1, "no-cql": 0.3, "no-task-embedding": 0.02}.items():
            for seed in range(self.seeds):
                skill = SKILL["jowa"] - loss
                yield self.result(
                    f"jowa-M-{variant}-seed{seed}/greedy",
                    ("ablations",),
                    "jowa",
                    skill,
                    seed,
                    size="M",
                    variant=variant,
                )

    def planning(self) -> Iterator[Result]:
        """The same agents under planners."""
        planners = {
            "beam-2x1": (Planned("beam", 2, 1), 0.05), "beam-3x2": (Planned("beam", 3, 2), 0.15),
            "beam-4x3": (Planned("beam", 4, 3), 0.14), "mcts-4": (Planned("mcts", simulations=4), 0.03),
            "mcts-16": (Planned("mcts", simulations=16), 0.1), "mcts-64": (Planned("mcts", simulations=64), 0.18),
            "beam-2x2-no-ends": (Planned("beam", 2, 2, ends=False), 0.06),
            "beam-2x2-careful": (Planned("beam", 2, 2, uncertainty=1.0), 0.13),
        }  # fmt: skip
        for name, (planned, gain) in planners.items():
            for seed in range(self.seeds):
                skill = SKILL["jowa"] + gain
                yield self.result(
                    f"jowa-M-seed{seed}/{name}", ("planning",), "jowa", skill, seed, size="M", planned=planned
                )

    def transfer(self) -> Iterator[Result]:
        """Held-out games."""
        for quality, reach in {"weak": 0.2, "mixed": 0.4, "expert": 0.6}.items():
            for game in HELD_OUT:
                yield self.result(f"data/{game}-{quality}", ("transfer",), "data", reach, games=(game,),
                                  transfer=Transfer(game, quality, 5000, False))  # fmt: skip
                for seed in range(self.seeds):
                    for method, pretrained in (("jowa", True), ("jowa", False), ("mtbc", True), ("scaled-ql", True)):
                        skill = reach * SKILL[method] * (1.6 if pretrained else 0.7)
                        yield self.result(
                            f"transfer/{game}-{quality}/{method}-{pretrained}-seed{seed}", ("transfer",), method, skill,
                            seed, size="M", games=(game,), transfer=Transfer(game, quality, 5000, pretrained),
                        )  # fmt: skip

    def all(self) -> list[Result]:
        """The whole suite."""
        parts = (self.methods, self.ablations, self.planning, self.transfer)
        return [result for part in parts for result in part()]


@pytest.fixture(scope="session")
def make_suite() -> Callable[..., Suite]:
    return Suite
