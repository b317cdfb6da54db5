"""Tokenising a whole data set, shard by shard, alone or with others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.data.tokens import Encode, TokenStore
from jowa.tokenizer.tokenizer import Tokenizer

ENCODE_CHUNK = 1024
"""Frames encoded at once."""


def encoder(tokenizer: Tokenizer, device: torch.device, autocast: torch.dtype | None) -> Encode:
    """A function from frames uint8 (n, 84, 84) to tokens uint16 (n, 36), in the precision that an agent plays in."""

    def encode(frames: NDArray[np.uint8]) -> NDArray[np.uint16]:
        parts = []
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            for at in range(0, len(frames), ENCODE_CHUNK):
                chunk = torch.from_numpy(frames[at : at + ENCODE_CHUNK]).to(device)
                parts.append(tokenizer.encode_sequence(chunk).cpu().numpy().astype(np.uint16))
        return np.concatenate(parts)

    return encode


def encode_missing(
    tokens: TokenStore,
    store: EpisodeStore,
    games: tuple[str, ...],
    encode: Encode,
    rank: int,
    world: int,
    wait: Callable[[], None],
    report: Callable[[int, int], None],
) -> int:
    """Encode what ``tokens`` lacks of ``games``; process ``rank`` of ``world`` makes its share of the shards.

    ``wait``: returns when all processes have called it; ``report``: gets frames done and in all, of this process.
    Returns how many frames this process encoded.  Raises :class:`DataError` for a damaged data set, OSError when the
    disk is full; finished shards stay.
    """
    if rank == 0:
        tokens.prepare(store, games)  # one decides what there is to do: the data set may be growing
    wait()
    missing = tokens.missing(store, games)
    wait()  # before anyone makes a shard that another has not counted yet
    mine = missing[rank::world]
    total, done = sum(piece.stop - piece.first for piece in mine), 0
    for piece in mine:
        tokens.write(store, piece, encode)
        done += piece.stop - piece.first
        report(done, total)
    wait()
    if rank == 0:
        tokens.finish(store, games)
    wait()
    return done
