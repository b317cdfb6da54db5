"""A second console that plays on from another's snapshot, to try out what might happen."""

from __future__ import annotations

from ale_py import ALEInterface, ALEState, roms

from jowa.env.atari import FRAME_SKIP, seed_of_emulator
from jowa.games import Game


class Simulator:
    """One game without frames: four emulator frames an agent step, sticky actions from a generator of its own.

    A snapshot holds neither the random state nor the action before it, so a simulated future is one that may come
    and not the one that will: what is repeated right after :meth:`restore` is the last action simulated.
    """

    def __init__(self, game: Game, sticky: float) -> None:
        """Call :meth:`restart` before anything else."""
        self.sticky = sticky
        self._rom = roms.get_rom_path(game.rom)
        self._ale = ALEInterface()
        self._ale.setInt("frame_skip", FRAME_SKIP)
        self._ale.setFloat("repeat_action_probability", sticky)

    def restart(self, seed: int) -> None:
        """Begin anew: all chance from here on follows from ``seed``."""
        assert self._rom is not None, "ale-py carries the ROMs of all 60 games"
        self._ale.setInt("random_seed", seed_of_emulator(seed))
        self._ale.loadROM(self._rom)
        self._ale.reset_game()

    def restore(self, snapshot: ALEState) -> None:
        """Go on from ``snapshot`` of a console of the same game."""
        self._ale.restoreState(snapshot)

    def step(self, action: int) -> int:
        """Play ``action``, an index into the full set of 18, for an agent step; returns the game points earned."""
        return self._ale.act(action)

    @property
    def lives(self) -> int:
        """Lives left; always 0 in games that have none."""
        return self._ale.lives()

    @property
    def over(self) -> bool:
        """Whether the game has ended."""
        return self._ale.game_over()

    @property
    def ram(self) -> bytes:
        """The console's 128 bytes of memory."""
        return self._ale.getRAM().tobytes()
