"""What the rivals train on: :mod:`jowa.train`'s batches, with returns to come or stacks of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.baselines.config import BaselineConfig, ScaledQlConfig, as_training
from jowa.data.subset import draw_transitions
from jowa.rivals import HISTORY, stack_frames
from jowa.train.distributed import Place
from jowa.train.feed import Feed
from jowa.types import Batch


@dataclass(frozen=True)
class Transitions:
    """B steps of ``scaled-ql``, each with what came n steps later."""

    frames: Tensor
    """uint8 (B, 4, 84, 84): the stack on which the action was chosen."""
    later: Tensor
    """uint8 (B, 4, 84, 84): the stack n steps on; anything where there is none."""
    actions: Tensor
    """int64 (B,)."""
    rewards: Tensor
    """float32 (B,): the discounted sum of the n clipped rewards, up to the end if that comes first."""
    discounts: Tensor
    """float32 (B,): gamma to the n, 0 where the game ended."""
    known: Tensor
    """bool (B,): whether there is a TD target: the game ended, or the step n steps on was recorded."""
    mask: Tensor
    """bool (B,): false for padding."""
    tasks: Tensor
    """int64 (B,)."""
    legal: Tensor
    """bool (B, 18)."""


class RivalFeed(Feed):
    """A :class:`Feed` of the segments that a rival trains on, by number of step."""

    def __init__(self, config: BaselineConfig, games: tuple[str, ...], place: Place, tasks: Mapping[str, int]) -> None:
        super().__init__(as_training(config, games), place, tasks)
        self._settings = config
        self._returns: list[NDArray[np.float32]] | None = None
        self._offsets = [self.store.table(game)["offset"] for game in games]

    def returns(self, step: int) -> Tensor:
        """float32 (B, L): at each step of :meth:`tokens`, the clipped rewards still to come, its own among them; 0 in
        padding."""
        if self._returns is None:
            self._returns = [self._returns_to_go(game) for game in self.games]
        windows, length = self.windows(step), self.index.length
        found = np.zeros((len(windows.first), length), np.float32)
        for row, (game, first, count) in enumerate(zip(windows.game, windows.first, windows.count, strict=True)):
            found[row, :count] = self._returns[game][first : first + count]
        return torch.from_numpy(found).to(self.place.device)

    def _returns_to_go(self, game: str) -> NDArray[np.float32]:
        """float32 (rows,): of every row that the run trains on, 0 elsewhere."""
        data = self._settings.data
        table = draw_transitions(self.store, game, data.transitions, self._settings.seed)
        returns = np.zeros(self.store.num_rows(game), np.float32)
        for offset, length in zip(table["offset"].tolist(), table["length"].tolist(), strict=True):
            rewards = self.store.read_scalars(game, offset, offset + length)[1]
            returns[offset : offset + length] = np.cumsum(rewards[::-1].astype(np.float64))[::-1]
        return returns

    def transitions(self, step: int) -> Transitions:
        """The transitions of ``scaled-ql`` for ``step``."""
        assert isinstance(self._settings, ScaledQlConfig)
        objective = self._settings.objective
        # A segment is a stack and what follows it; only the first of an episode has states with shorter histories,
        # and they take turns in it.
        first = torch.from_numpy(self._begins(step)).to(self.place.device)
        newest = torch.where(first, step % HISTORY, HISTORY - 1)
        return transitions_of(self.pixels(step, stage=2), newest, objective.n_step, objective.gamma)

    def _begins(self, step: int) -> NDArray[np.bool_]:
        """bool (B,): whether each segment of ``step`` is its episode's first."""
        windows = self.windows(step)
        begins = np.zeros(len(windows.first), np.bool_)
        for game, offsets in enumerate(self._offsets):
            begins |= (windows.game == game) & np.isin(windows.first, offsets)
        return begins


def transitions_of(batch: Batch, newest: Tensor, n_step: int, gamma: float) -> Transitions:
    """A transition of each segment of ``batch``: from its frame ``newest`` int64 (B,) to the one ``n_step`` later."""
    assert batch.frames is not None
    rows = torch.arange(len(newest), device=newest.device)
    later = newest + n_step
    steps = newest[:, None] + torch.arange(n_step, device=newest.device)
    rewards, ends = (values[rows[:, None], steps] for values in (batch.rewards, batch.ends))
    powers = gamma ** torch.arange(n_step, device=newest.device, dtype=torch.float32)
    ended = ends.any(1)
    return Transitions(
        frames=stack_frames(batch.frames, newest),
        later=stack_frames(batch.frames, later),
        actions=batch.actions[rows, newest],
        rewards=(rewards * powers).sum(1),  # behind an end there is padding, which earns nothing
        discounts=gamma**n_step * (~ended).float(),
        known=batch.mask[rows, newest] & (ended | batch.mask[rows, later]),
        mask=batch.mask[rows, newest],
        tasks=batch.tasks,
        legal=batch.legal,
    )
