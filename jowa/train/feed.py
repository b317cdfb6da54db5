"""Batches for each stage from the recorded episodes; everything is a function of (seed, step, rank)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from jowa.data.loader import InMemoryEpisodes
from jowa.data.segments import SegmentIndex, SegmentSampler
from jowa.data.store import EpisodeStore
from jowa.errors import DataError
from jowa.games import get_game
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.local import PATCH
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.types import Batch, Segments

MOVED = 24
"""Grey levels by which a pixel must change between two steps to count as moving."""
ENCODE_CHUNK = 1024
"""Frames encoded at once when the whole data set is tokenised."""


def task_ids(games: Sequence[str]) -> dict[str, int]:
    """The task id that each game trains under; the agent's folder keeps them, so it plays under the same."""
    return {game: get_game(game).task_id for game in games}


class Feed:
    """The data set in memory and the three samplers: tokenizer frames, stage 1 and stage 2 segments.

    Raises :class:`DataError` for a store without segments of the chosen games.
    """

    def __init__(self, config: TrainConfig, place: Place) -> None:
        store = EpisodeStore.open(config.data.path)
        absent = [game for game in config.data.games if game not in store.games]
        if absent:
            raise DataError(
                f"{config.data.path} holds {', '.join(store.games) or 'no games'}, not {absent[0]}: "
                "record it with python -m jowa.record, or change --data.games"
            )
        self.place = place
        self.episodes = InMemoryEpisodes.load(store, config.data.games, task_ids(config.data.games))
        length = config.data.segment_length
        self.index = SegmentIndex.build(store, config.data.games, length, config.data.segment_stride)
        self._tokens: dict[str, NDArray[np.uint16]] | None = None

        def sampler(batch: int, offset: int) -> SegmentSampler:
            return SegmentSampler(self.index, batch, config.seed * 3 + offset, place.rank, place.world, True)

        self._tokenizer_sampler = sampler(config.stage1.tokenizer_batch // length, 0)
        self._stage1_sampler = sampler(config.stage1.batch_size, 1)
        self._stage2_sampler = sampler(config.stage2.batch_size, 2)

    def tokenizer_frames(self, step: int, motion_weight: float) -> tuple[Tensor, Tensor | None]:
        """Frames uint8 (N, 84, 84) and, if ``motion_weight`` > 0, pixel weights float32 (N, 84, 84) on the device."""
        segments = self.episodes.gather(self.index, self._tokenizer_sampler.indices(step))
        frames = torch.from_numpy(segments.frames).to(self.place.device, non_blocking=True)
        mask = torch.from_numpy(segments.mask).to(self.place.device)
        # Padding repeats the last frame: shapes stay fixed, no black frame is learned and nothing seems to move.
        last = (mask.sum(1) - 1).clamp_min(0)
        frames = torch.where(
            mask[:, :, None, None], frames, frames[torch.arange(len(frames), device=last.device), last][:, None]
        )
        weights = motion_weights(frames, motion_weight).flatten(0, 1) if motion_weight > 0 else None
        return frames.flatten(0, 1), weights

    def pixels(self, step: int) -> Batch:
        """Stage 1's segments for ``step``, as frames."""
        return self._batch(self.episodes.gather(self.index, self._stage1_sampler.indices(step)), False)

    def tokens(self, step: int) -> Batch:
        """Stage 2's segments for ``step``, as tokens; :meth:`encode` must have run."""
        assert self._tokens is not None, "encode the data set first"
        ids = self._stage2_sampler.indices(step)
        return self._batch(self.episodes.gather(self.index, ids, self._tokens), True)

    def encode(self, tokenizer: Tokenizer) -> None:
        """Tokenise every frame once, for stage 2."""
        self._tokens = {}
        for game, frames in self.episodes.frames.items():
            chunks = (torch.from_numpy(frames[at : at + ENCODE_CHUNK]) for at in range(0, len(frames), ENCODE_CHUNK))
            parts = [tokenizer.encode_sequence(chunk.to(self.place.device)).cpu() for chunk in chunks]
            self._tokens[game] = torch.cat(parts).numpy().astype(np.uint16)

    def _batch(self, segments: Segments, tokens: bool) -> Batch:
        if not np.isfinite(segments.rewards).all():
            raise DataError(
                "a batch holds rewards that are not finite, expected -1 to 1: the data set is damaged; restore it from "
                "a copy, or record it anew in another folder"
            )
        pictures = torch.from_numpy(segments.frames)
        return Batch(
            frames=None if tokens else pictures,
            tokens=pictures if tokens else None,
            actions=torch.from_numpy(segments.actions),
            rewards=torch.from_numpy(segments.rewards),
            ends=torch.from_numpy(segments.ends),
            mask=torch.from_numpy(segments.mask),
            tasks=torch.from_numpy(segments.tasks),
            legal=torch.from_numpy(segments.legal),
        ).to(self.place.device)


def motion_weights(frames: Tensor, weight: float) -> Tensor:
    """How much each pixel's reconstruction error counts: 1, and more where a pixel moves.

    A pixel moves if it differs by more than :data:`MOVED` from the frame before or after.  Each 14 x 14 patch with
    motion gets ``weight`` beside, divided among its moving pixels, at most half of it each: shared by the patch and
    not by the frame, so that a ball of two pixels weighs as much as a car.
    ``frames`` uint8 (B, L, 84, 84) to float32 of the same shape.
    """
    differs = (frames[:, 1:].short() - frames[:, :-1].short()).abs() > MOVED
    moves = torch.zeros(frames.shape, dtype=torch.bool, device=frames.device)
    moves[:, 1:] |= differs
    moves[:, :-1] |= differs
    count = functional.avg_pool2d(moves.float(), PATCH, divisor_override=1)
    share = weight / count.clamp_min(2)
    return 1 + moves * share.repeat_interleave(PATCH, -1).repeat_interleave(PATCH, -2)
