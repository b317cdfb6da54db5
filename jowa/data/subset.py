"""A part of a recording, drawn by whole episodes: what an agent that sees little of a game is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.errors import DataError
from jowa.games import get_game

Table = dict[str, NDArray[Any]]
"""Columns of an episode table: :meth:`jowa.data.store.EpisodeStore.table`."""


def draw_transitions(store: EpisodeStore, game: str, steps: int, seed: int) -> Table:
    """The table of exactly ``steps`` agent steps of ``game``, in the order of the store; 0 steps: all of them.

    Whole episodes are drawn without replacement; the last one drawn is cut off where the number is reached, and then
    did not end.  A function of the store, ``seed`` and the game.  Raises :class:`DataError` when there are too few.
    """
    table = store.table(game)
    if steps == 0:
        return table
    if store.num_steps(game) < steps:
        raise DataError(
            f"{store.path} holds {store.num_steps(game):,} agent steps of {game}, expected at least the {steps:,} "
            "that are to be drawn: record more with python -m jowa.record, or ask for fewer"
        )
    order = np.random.default_rng((seed, get_game(game).task_id)).permutation(len(table["length"]))
    reached = np.cumsum(table["length"][order])
    last = int(np.searchsorted(reached, steps))
    lengths, terminal = table["length"].copy(), table["terminal"].copy()
    surplus = int(reached[last]) - steps
    lengths[order[last]] -= surplus
    terminal[order[last]] &= surplus == 0
    chosen = np.sort(order[: last + 1])
    return {name: column[chosen] for name, column in (table | {"length": lengths, "terminal": terminal}).items()}
