"""Rivals of the agent (:mod:`jowa.rivals`) at play."""

from __future__ import annotations

from collections.abc import Sequence

from jowa.evaluate.play import Decider, MakePlayer, episode_generator
from jowa.rivals import Playing, Rival


def rival_player(rival: Rival, seed: int, playing: Playing | None = None) -> MakePlayer:
    """The rival, which plays as ``playing`` says (default: as it was saved).

    What it draws in an episode follows from ``seed``, the game and the episode's number alone.
    """

    def make(jobs: Sequence[tuple[str, int]]) -> Decider:
        generators = [episode_generator(seed, game, episode, stream=3) for game, episode in jobs]
        player = rival.player([game for game, _ in jobs], generators, playing)
        return Decider(lambda slots, frames: player.decide(slots.tolist(), frames), player.took, player.earned)

    return make
