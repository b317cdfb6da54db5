"""From a specification such as ``expert:0.1`` to a policy that plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jowa.env.atari import AtariEnv
from jowa.env.experts.atlantis import AtlantisExpert
from jowa.env.experts.base import Expert, Player
from jowa.env.experts.boxing import BoxingExpert
from jowa.env.experts.breakout import BreakoutExpert, BreakoutFollower
from jowa.env.experts.freeway import FreewayExpert
from jowa.env.experts.lookahead import LookAhead
from jowa.env.experts.pong import PongExpert, PongFollower
from jowa.errors import UsageError
from jowa.games import get_game

EXPERTS: dict[str, Callable[[], Expert]] = {
    "Atlantis": AtlantisExpert,
    "Boxing": BoxingExpert,
    "Breakout": BreakoutExpert,
    "Freeway": FreewayExpert,
    "Pong": PongExpert,
}
"""The games that have a scripted expert."""

FOLLOWERS: dict[str, Callable[[], Expert]] = {"Breakout": BreakoutFollower, "Pong": PongFollower}
"""The games that have a plainer script as well, whose choices a network can read off one frame."""

SCRIPTS = {"expert": EXPERTS, "follower": FOLLOWERS}

EXPERTS_VERSION = 1
"""Raised when a script or look-ahead plays differently than before: a store holds episodes of one version only."""

LOOKING_AHEAD = ("lookahead", "lookahead:0.2", "lookahead:0.5", "random")

DEFAULT_MIXTURES: dict[str, tuple[str, ...]] = {
    # Boxing's expert hardly suffers from noise below a half, so its bad play needs more of it.
    "Boxing": ("expert", "expert:0.2", "expert:0.5", "expert:0.8", "random"),
    "Atlantis": ("expert", "expert:0.2", "expert:0.5", "expert:0.8", "random"),
    "Freeway": ("expert", "expert:0.1", "expert:0.3", "expert:0.6", "random"),
    "Breakout": ("follower", "follower:0.1", "follower:0.3", "follower:0.6", "follower:0.3", "random"),
    "Pong": ("follower", "follower:0.1", "follower:0.3", "follower:0.6", "random"),
    # Games without a script in which look-ahead scores several times what chance does: docs/players.md has the scores.
    "Assault": LOOKING_AHEAD,
    "Centipede": LOOKING_AHEAD,
    "DemonAttack": LOOKING_AHEAD,
    "MsPacman": LOOKING_AHEAD,
    "Phoenix": LOOKING_AHEAD,
    # A wrong jump in Qbert costs a life: a little noise makes it middling.
    "Qbert": ("lookahead", "lookahead:0.05", "lookahead:0.2", "random"),
    "SpaceInvaders": LOOKING_AHEAD,
}


class Policy(Protocol):
    """Whoever chooses actions: a script, chance, or a trained agent."""

    def reset(self, seed: int) -> None:
        """Begin an episode; everything random until the next reset follows from ``seed``."""

    def act(self, frame: NDArray[np.uint8], environment: AtariEnv) -> int:
        """The action, an index into the full set of 18, for ``frame`` uint8 (84, 84), the last of ``environment``.

        What else a policy wants to know it reads from ``environment``, and never changes it.
        """


class ScriptedPlayer:
    """A script, which needs no more of the environment than its memory."""

    def __init__(self, expert: Expert) -> None:
        """``expert`` is asked once an agent step."""
        self._expert = expert

    def reset(self, generator: np.random.Generator) -> None:
        """See :class:`Player`."""
        self._expert.reset(generator)

    def choose(self, environment: AtariEnv) -> int:
        """See :class:`Player`."""
        return self._expert.choose(environment.ram)


class NoisyPolicy:
    """``player`` with a uniformly random legal action instead at a share ``noise`` of the steps.

    Each step draws anew.  Random actions that are held for a while show more ways back to the script, but teach an
    imitator above all to repeat the last action: in a trial it did nothing else.
    """

    def __init__(self, player: Player | None, noise: float, legal: tuple[int, ...]) -> None:
        """``player`` may be None when ``noise`` is 1."""
        self._player = player
        self._noise = noise
        self._legal = np.array(legal)
        self._generator = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        """See :class:`Policy`."""
        own, players = np.random.SeedSequence(seed).spawn(2)
        self._generator = np.random.default_rng(own)
        if self._player is not None:
            self._player.reset(np.random.default_rng(players))

    def act(self, frame: NDArray[np.uint8], environment: AtariEnv) -> int:
        """See :class:`Policy`."""
        del frame
        # The player is asked even when it is overruled: a script follows the ball from step to step.
        wanted = None if self._player is None else self._player.choose(environment)
        if wanted is None or self._generator.random() < self._noise:
            return int(self._generator.choice(self._legal))
        return wanted


AGENTS = {"agent": "none", "agent-beam": "beam", "agent-mcts": "mcts"}
"""Specifications of a trained agent, and the planner that each plays with."""


class _AgentPolicy:
    """A trained agent behind the same two verbs, with its own memory and settings; it sees frames only."""

    def __init__(self, path: str, game: str, planner: str) -> None:
        # Late and by name: env stands below agent, and recording scripts must not import torch.
        from importlib import import_module

        agent: Any = import_module("jowa.agent").Agent.from_pretrained(path)
        own = agent.planning.of(game)
        self._player: Any = agent.player([game], replace(own.planner, name=planner), own.context)

    def reset(self, seed: int) -> None:
        """See :class:`Policy`."""
        del seed  # nothing random: the sticky actions alone make its episodes differ
        self._player.reset(0)

    def act(self, frame: NDArray[np.uint8], environment: AtariEnv) -> int:
        """See :class:`Policy`."""
        del environment
        actions: NDArray[np.int64] = self._player.decide([0], frame[None]).actions
        self._player.took([0], actions)
        return int(actions[0])


def make_policy(spec: str, game: str) -> Policy:
    """The policy that ``spec`` names, for ``game``.

    ``random``: uniformly random legal actions.  ``expert``: the game's script.  ``expert:0.1``: the script,
    with a random legal action at 10% of the steps.  ``follower``, ``follower:0.1``: the same with the plainer
    script that a network imitates within minutes.  ``lookahead``, ``lookahead:0.1``: whoever tries plans in a
    simulator, in any game.  ``agent:NAME``: a trained agent (its folder, ``demo``, or ``owner/name`` on the hub),
    greedy in Q; ``agent-beam:NAME`` and ``agent-mcts:NAME``: the same with planning.
    Raises :class:`UsageError` for another specification or a game without a script.
    """
    legal = get_game(game).legal_actions
    kind, _, argument = spec.partition(":")
    if kind == "random" and not argument:
        return NoisyPolicy(None, 1.0, legal)
    if kind in AGENTS and argument:
        return _AgentPolicy(argument, game, AGENTS[kind])
    if kind in SCRIPTS:
        scripts = SCRIPTS[kind]
        if game not in scripts:
            raise UsageError(
                f"{game} has no scripted {kind}, only {', '.join(scripts)} have: choose lookahead, random or agent:NAME"
            )
        return NoisyPolicy(ScriptedPlayer(scripts[game]()), _noise(spec, argument), legal)
    if kind == "lookahead":
        return NoisyPolicy(LookAhead(get_game(game)), _noise(spec, argument), legal)
    raise UsageError(
        f"unknown policy {spec!r}: expected random, expert, expert:NOISE (0 to 1), follower, follower:NOISE, "
        "lookahead, lookahead:NOISE, agent:NAME, agent-beam:NAME or agent-mcts:NAME"
    )


def _noise(spec: str, argument: str) -> float:
    try:
        noise = float(argument or 0.0)
    except ValueError:
        noise = -1.0
    if not 0.0 <= noise <= 1.0:
        raise UsageError(f"policy {spec!r}: expected a share of random actions between 0 and 1 after the colon")
    return noise


def default_mixture(game: str) -> tuple[str, ...]:
    """What is recorded of ``game`` unless told otherwise: what :data:`DEFAULT_MIXTURES` says, else random play."""
    return DEFAULT_MIXTURES.get(get_game(game).name, ("random",))
