"""What needs the whole data set: its tokens, made shard by shard, alone or with others; its distinct patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.data.store import EpisodeStore
from jowa.data.tokens import Encode, TokenStore
from jowa.tokenizer.local import GRID, PATCH
from jowa.tokenizer.patches import PIXELS, Patches
from jowa.tokenizer.tokenizer import Tokenizer

ENCODE_CHUNK = 1024
"""Frames encoded at once."""
PATCHES_PER_GAME = 20_000
"""Distinct patches that are clustered, at most."""
STRETCH = 512
"""Frames read at once to find them."""
USUAL = 1e-3
"""Share of all patches of a game from which on one is usual."""


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


def distinct_patches(
    store: EpisodeStore, game: str, table: Mapping[str, NDArray[Any]], seed: int, most: int = PATCHES_PER_GAME
) -> Patches:
    """What occurs in the episodes of ``table``; see :func:`unique_patches`.

    Raises :class:`DataError` for a damaged data set.
    """
    return unique_patches(_stretches(store, game, table), seed, most)


def unique_patches(stretches: Iterable[NDArray[np.uint8]], seed: int, most: int = PATCHES_PER_GAME) -> Patches:
    """``most`` of the patches of ``stretches``, drawn evenly; each stretch is frames uint8 (n, 84, 84) in order."""
    found, counts = np.empty((0, PIXELS), np.uint8), np.empty(0)
    for frames in stretches:
        patches = frames.reshape(-1, GRID, PATCH, GRID, PATCH).swapaxes(2, 3).reshape(-1, GRID * GRID, PIXELS)
        changed = np.ones(patches.shape[:2], bool)
        changed[1:] = (patches[1:] != patches[:-1]).any(-1)
        # Place by place, a patch counts for the frames until the next one there: each place begins with a change.
        lasts = np.diff(np.flatnonzero(changed.T), append=changed.size)
        found, counts = _unique(
            np.concatenate([found, patches.swapaxes(0, 1)[changed.T]]), np.concatenate([counts, lasts])
        )
    usual = found[counts >= USUAL * counts.sum()]
    if len(found) > most:
        found = found[np.random.default_rng(seed).choice(len(found), most, replace=False)]
    return Patches(found, usual)


def _stretches(store: EpisodeStore, game: str, table: Mapping[str, NDArray[Any]]) -> Iterator[NDArray[np.uint8]]:
    for start, length in zip(table["offset"].tolist(), table["length"].tolist(), strict=True):
        for at in range(start, start + length, STRETCH):
            yield store.read_frames(game, at, min(at + STRETCH, start + length))


def _unique(rows: NDArray[np.uint8], counts: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Distinct rows of uint8 (N, P), in order of their bytes, and the sums of their counts (N,)."""
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1]))).ravel()
    distinct, index = np.unique(whole, return_inverse=True)
    return distinct.view(np.uint8).reshape(-1, rows.shape[1]), np.bincount(index, counts, len(distinct))
