"""Look-ahead: try some plans in a simulator, play the beginning of the best, look again.

The emulator's state is copied without its random state and played on in a second console.  Sticky actions fall
otherwise there than they will, so the player knows the game's rules and not its chance.
"""

from __future__ import annotations

import numpy as np
from ale_py import ALEState

from jowa.env.atari import AtariEnv
from jowa.env.simulator import Simulator
from jowa.games import Game

HORIZON = 20
"""Agent steps that a plan lasts: a second and a third."""
PLANS = 6
"""Plans tried at a decision, the rest of the last one among them."""
KEEP = 4
"""Steps played before the next decision; what looking costs is HORIZON * PLANS / KEEP simulated steps a step."""
HOLD = 8.0
"""Mean steps that a plan stays with an action: one that changed its mind every step would get nowhere."""
DISCOUNT = 0.97
"""Per step: of two plans that earn the same, the faster one is better."""
LIFE = 10.0
"""What losing a life costs, in mean sizes of the rewards that this episode's simulations met."""


class LookAhead:
    """Plays any game: random plans and variations of the best one so far, each tried once."""

    def __init__(self, game: Game) -> None:
        """Call :meth:`reset` before play."""
        self._game = game
        self._simulator: Simulator | None = None
        self.reset(np.random.default_rng(0))

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Player`."""
        self._generator = generator
        self._plan: list[int] = []
        self._left = 0
        self._fresh = True
        self._earned, self._earnings = 0.0, 0

    def choose(self, environment: AtariEnv) -> int:
        """See :class:`Player`; ``environment`` is only read."""
        if self._left == 0:
            self._look(self._prepared(environment.options.sticky), environment.snapshot())
            self._left = KEEP
        self._left -= 1
        return self._plan.pop(0)

    def _prepared(self, sticky: float) -> Simulator:
        """The simulator; in an episode's first decision seeded anew, so that no earlier episode matters."""
        if self._simulator is None or self._simulator.sticky != sticky:
            self._simulator = Simulator(self._game, sticky)
        if self._fresh:
            self._simulator.restart(int(self._generator.integers(2**31)))
            self._fresh = False
        return self._simulator

    def _look(self, simulator: Simulator, start: ALEState) -> None:
        best = self._extended(self._plan)
        best_value = self._value(simulator, start, best)
        firsts = self._generator.permutation(self._game.legal_actions)
        for number in range(PLANS - 1):
            if number % 2 == 0:  # something else, with first actions as different as possible
                plan = self._extended(self._held(int(firsts[number // 2 % len(firsts)])))
            else:
                plan = self._extended(best[: int(self._generator.integers(1, HORIZON))])
            value = self._value(simulator, start, plan)
            if value > best_value:
                best, best_value = plan, value
        self._plan = best

    def _held(self, action: int) -> list[int]:
        return [action] * int(self._generator.geometric(1.0 / HOLD))

    def _extended(self, plan: list[int]) -> list[int]:
        """``plan`` with random actions, each held for a while, up to the horizon."""
        plan = list(plan)
        while len(plan) < HORIZON:
            plan += self._held(int(self._generator.choice(self._game.legal_actions)))
        return plan[:HORIZON]

    def _value(self, simulator: Simulator, start: ALEState, plan: list[int]) -> float:
        """Discounted return of one try at ``plan``, which ends with the first life lost."""
        simulator.restore(start)
        lives, value, weight = simulator.lives, 0.0, 1.0
        for action in plan:
            reward = simulator.step(action)
            if reward:
                self._earned += abs(reward)
                self._earnings += 1
                value += weight * reward
            if simulator.lives < lives or simulator.over:
                return value - weight * LIFE * self._unit
            weight *= DISCOUNT
        return value

    @property
    def _unit(self) -> float:
        """Game points differ from game to game by a factor of thousands: the mean size of a reward so far."""
        return self._earned / self._earnings if self._earnings else 1.0
