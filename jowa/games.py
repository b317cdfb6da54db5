"""The 60 Atari games: task id, legal actions, scores to normalise by, published planner settings.

The single source of these facts.  Task ids follow the alphabetical order of the CamelCase names
of DQN-Replay.  Legal actions are ALE's minimal action sets as indices into the full set of 18.
Scores: random and human play and DQN, as published with JOWA (arXiv 2410.00564).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.errors import UsageError, unknown_name

ACTIONS: tuple[str, ...] = (
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN",
    "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT",
    "UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE",
    "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
)  # fmt: skip
"""ALE's full action set, in ALE's order."""

NUM_ACTIONS = len(ACTIONS)
ALL = tuple(range(NUM_ACTIONS))


@dataclass(frozen=True)
class Scores:
    """Mean episode returns (raw game points) of three reference players."""

    random: float
    human: float
    dqn: float


@dataclass(frozen=True)
class PublishedPlanning:
    """The paper's evaluation settings of one game: context (steps) for each preset, beam width."""

    context_150m: int
    context_70m: int
    context_40m: int
    width: int


@dataclass(frozen=True)
class Game:
    """One Atari game."""

    task_id: int
    name: str
    rom: str
    """ALE's name of the ROM (snake case)."""
    legal_actions: tuple[int, ...]
    """ALE's minimal action set, ascending indices into :data:`ACTIONS`."""
    scores: Scores | None = None
    published_planning: PublishedPlanning | None = None

    @property
    def action_mask(self) -> NDArray[np.bool_]:
        """bool (18,), true where the action is legal in this game."""
        mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
        mask[list(self.legal_actions)] = True
        return mask


GAMES: tuple[Game, ...] = (
    Game(0, "AirRaid", "air_raid", (0, 1, 3, 4, 11, 12)),
    Game(1, "Alien", "alien", ALL),
    Game(2, "Amidar", "amidar", (0, 1, 2, 3, 4, 5, 10, 11, 12, 13)),
    Game(3, "Assault", "assault", (0, 1, 2, 3, 4, 11, 12), Scores(222.4, 742.0, 1525.2), PublishedPlanning(4, 5, 3, 2)),
    Game(4, "Asterix", "asterix", (0, 2, 3, 4, 5, 6, 7, 8, 9)),
    Game(5, "Asteroids", "asteroids", (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15)),
    Game(6, "Atlantis", "atlantis", (0, 1, 11, 12), Scores(12850.0, 29028.1, 853640.0), PublishedPlanning(2, 2, 4, 3)),
    Game(7, "BankHeist", "bank_heist", ALL),
    Game(8, "BattleZone", "battle_zone", ALL),
    Game(9, "BeamRider", "beam_rider", (0, 1, 2, 3, 4, 6, 7, 11, 12), Scores(363.9, 16926.5, 5852.4), PublishedPlanning(6, 2, 5, 2)),
    Game(10, "Berzerk", "berzerk", ALL, Scores(123.7, 2630.4, 487.5), PublishedPlanning(1, 1, 6, 4)),
    Game(11, "Bowling", "bowling", (0, 1, 2, 5, 10, 13)),
    Game(12, "Boxing", "boxing", ALL, Scores(0.1, 12.1, 78.0)),
    Game(13, "Breakout", "breakout", (0, 1, 3, 4), Scores(1.7, 30.5, 96.2)),
    Game(14, "Carnival", "carnival", (0, 1, 3, 4, 11, 12), Scores(700.8, 3800.0, 4784.8), PublishedPlanning(4, 5, 2, 2)),
    Game(15, "Centipede", "centipede", ALL, Scores(2090.9, 12017.0, 2583.0), PublishedPlanning(6, 1, 1, 4)),
    Game(16, "ChopperCommand", "chopper_command", ALL, Scores(811.0, 7387.8, 2690.6), PublishedPlanning(2, 4, 1, 4)),
    Game(17, "CrazyClimber", "crazy_climber", (0, 2, 3, 4, 5, 6, 7, 8, 9)),
    Game(18, "DemonAttack", "demon_attack", (0, 1, 3, 4, 11, 12), Scores(152.1, 1971.0, 6361.6), PublishedPlanning(3, 3, 3, 2)),
    Game(19, "DoubleDunk", "double_dunk", ALL),
    Game(20, "ElevatorAction", "elevator_action", ALL),
    Game(21, "Enduro", "enduro", (0, 1, 3, 4, 5, 8, 9, 11, 12)),
    Game(22, "FishingDerby", "fishing_derby", ALL),
    Game(23, "Freeway", "freeway", (0, 2, 5), Scores(0.0, 29.6, 26.3)),
    Game(24, "Frostbite", "frostbite", ALL),
    Game(25, "Gopher", "gopher", (0, 1, 2, 3, 4, 10, 11, 12)),
    Game(26, "Gravitar", "gravitar", ALL, Scores(173.0, 3351.4, 330.1)),
    Game(27, "Hero", "hero", ALL),
    Game(28, "IceHockey", "ice_hockey", ALL),
    Game(29, "Jamesbond", "jamesbond", ALL),
    Game(30, "JourneyEscape", "journey_escape", (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17)),
    Game(31, "Kangaroo", "kangaroo", ALL),
    Game(32, "Krull", "krull", ALL),
    Game(33, "KungFuMaster", "kung_fu_master", (0, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16, 17)),
    Game(34, "MontezumaRevenge", "montezuma_revenge", ALL),
    Game(35, "MsPacman", "ms_pacman", (0, 2, 3, 4, 5, 6, 7, 8, 9), Scores(307.3, 6951.6, 3402.4)),
    Game(36, "NameThisGame", "name_this_game", (0, 1, 3, 4, 11, 12), Scores(2292.3, 8049.0, 7278.6), PublishedPlanning(3, 2, 2, 2)),
    Game(37, "Phoenix", "phoenix", (0, 1, 3, 4, 5, 11, 12, 13), Scores(761.4, 7242.6, 4996.6), PublishedPlanning(2, 1, 2, 2)),
    Game(38, "Pitfall", "pitfall", ALL),
    Game(39, "Pong", "pong", (0, 1, 3, 4, 11, 12), Scores(-20.7, 14.6, 16.6)),
    Game(40, "Pooyan", "pooyan", (0, 1, 2, 5, 10, 13)),
    Game(41, "PrivateEye", "private_eye", ALL),
    Game(42, "Qbert", "qbert", (0, 1, 2, 3, 4, 5)),
    Game(43, "Riverraid", "riverraid", ALL),
    Game(44, "RoadRunner", "road_runner", ALL),
    Game(45, "Robotank", "robotank", ALL, Scores(2.2, 11.9, 59.8)),
    Game(46, "Seaquest", "seaquest", ALL, Scores(68.4, 42054.7, 1600.7), PublishedPlanning(6, 6, 2, 4)),
    Game(47, "Skiing", "skiing", (0, 3, 4)),
    Game(48, "Solaris", "solaris", ALL),
    Game(49, "SpaceInvaders", "space_invaders", (0, 1, 3, 4, 11, 12), Scores(148.0, 1668.7, 1794.2), PublishedPlanning(2, 3, 2, 2)),
    Game(50, "StarGunner", "star_gunner", ALL, Scores(664.0, 10250.0, 42165.2), PublishedPlanning(2, 6, 1, 3)),
    Game(51, "Tennis", "tennis", ALL),
    Game(52, "TimePilot", "time_pilot", (0, 1, 2, 3, 4, 5, 10, 11, 12, 13), Scores(3568.0, 5229.2, 3654.4), PublishedPlanning(2, 6, 6, 4)),
    Game(53, "Tutankham", "tutankham", (0, 2, 3, 4, 5, 10, 11, 12)),
    Game(54, "UpNDown", "up_n_down", (0, 1, 2, 5, 10, 13)),
    Game(55, "Venture", "venture", ALL),
    Game(56, "VideoPinball", "video_pinball", (0, 1, 2, 3, 4, 5, 10, 11, 12)),
    Game(57, "WizardOfWor", "wizard_of_wor", (0, 1, 2, 3, 4, 5, 10, 11, 12, 13)),
    Game(58, "YarsRevenge", "yars_revenge", ALL, Scores(3092.9, 54576.9, 23909.4)),
    Game(59, "Zaxxon", "zaxxon", ALL, Scores(32.5, 9173.3, 4538.6), PublishedPlanning(2, 6, 2, 4)),
)  # fmt: skip

_BY_NAME = {game.name: game for game in GAMES}

PRETRAINING_GAMES: tuple[str, ...] = tuple(g.name for g in GAMES if g.published_planning)
"""The paper's 15 pretraining games."""

BORROWED_TASK: dict[str, str] = {
    "Robotank": "Phoenix",
    "YarsRevenge": "ChopperCommand",
    "Gravitar": "TimePilot",
    "MsPacman": "Berzerk",
    "Pong": "Pong",
}
"""Held-out games and the pretraining game whose task id they use, in training and in evaluation."""


def get_game(name: str) -> Game:
    """The game called ``name`` (CamelCase, as in DQN-Replay); :class:`UsageError` if there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise unknown_name("game", name, _BY_NAME) from None


def task_id(game: str, trained: Mapping[str, int]) -> int:
    """The task id of ``game`` for a model whose games and their task ids are ``trained``; in training and in play alike.

    That which it was trained under; failing that the borrowed one (:data:`BORROWED_TASK`), or the game's own.
    """
    known = get_game(game)
    if game in trained:
        return trained[game]
    return get_game(BORROWED_TASK.get(game, known.name)).task_id


def normalised_score(game: Game, score: float, reference: str = "human") -> float:
    """(score - random) / (reference - random), with ``reference`` "human" (HNS) or "dqn" (DNS).

    Raises :class:`UsageError` for a game without published reference scores.
    """
    if game.scores is None:
        raise UsageError(f"{game.name} has no reference scores: leave it out of the normalised table")
    if reference not in ("human", "dqn"):
        raise unknown_name("reference", reference, ("human", "dqn"))
    top = game.scores.human if reference == "human" else game.scores.dqn
    return (score - game.scores.random) / (top - game.scores.random)
