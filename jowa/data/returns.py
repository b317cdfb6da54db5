"""What each recorded step went on to earn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jowa.data.segments import SegmentIndex
from jowa.data.store import EpisodeStore


def observed_returns(store: EpisodeStore, index: SegmentIndex, gamma: float) -> list[NDArray[np.float32]]:
    """float32 (rows,) for each game of ``index``: discounted clipped rewards from each step to its episode's end.

    Only what ``index`` holds of an episode counts, and what a cut-off one would have earned later counts as nothing;
    steps outside are 0.  4 bytes a step of the store, in memory.
    """
    from scipy.signal import lfilter  # takes most of a second to import

    returns = []
    for number, game in enumerate(index.games):
        rewards = store.read_scalars(game, 0, store.num_rows(game))[1].astype(np.float64)
        out = np.zeros(len(rewards), dtype=np.float32)
        for offset, steps in index.episodes(number):
            own = slice(offset, offset + steps)
            out[own] = lfilter([1.0], [1.0, -gamma], rewards[own][::-1])[::-1]
        returns.append(out)
    return returns
