"""Batches for each stage from the recorded episodes; everything is a function of (seed, step, rank)."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from jowa.data.changes import UnchangedFiles
from jowa.data.loader import Prefetcher, SegmentLoader
from jowa.data.segments import SegmentIndex, SegmentSampler, Windows
from jowa.data.store import EpisodeStore
from jowa.data.subset import draw_transitions
from jowa.data.tokens import TOKENS, TokenStore, identity, kinds, short, tokens_folder
from jowa.devices import precision_name
from jowa.errors import DataError
from jowa.progress import LINE_EVERY
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.dataset import distinct_patches, encode_missing, encoder
from jowa.tokenizer.local import PATCH
from jowa.tokenizer.patches import Patches
from jowa.tokenizer.quality import MOVED
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.start import task_ids
from jowa.types import Batch, Segments

AHEAD = 2
"""Batches that are read while a GPU computes.  A CPU that computes has no time to spare: there it reads in between."""


class Feed:
    """The data set on disk and the three samplers: tokenizer frames, stage 1 and stage 2 segments.

    Raises :class:`DataError` for a store without segments of the chosen games.
    """

    def __init__(self, config: TrainConfig, place: Place, tasks: Mapping[str, int] | None = None) -> None:
        """``tasks``: game to task id; default: those that ``config`` gives."""
        self.store = EpisodeStore.open(config.data.path)
        absent = [game for game in config.data.games if game not in self.store.games]
        if absent:
            raise DataError(
                f"{config.data.path} holds {', '.join(self.store.games) or 'no games'}, not {absent[0]}: "
                "record it with python -m jowa.record, or change --data.games"
            )
        self.config, self.place = config, place
        self.games = config.data.games
        self._files = UnchangedFiles(self.store, self.games if place.is_main else ())
        length = config.data.segment_length
        self._tables = [draw_transitions(self.store, game, config.data.transitions, config.seed) for game in self.games]
        self.index = SegmentIndex(self.games, self._tables, length, config.data.segment_stride)
        self._task_ids = task_ids(config) if tasks is None else tasks
        self._on_gpu = place.device.type == "cuda"
        # One thread beside a model that computes on the same cores; on a machine with GPUs, each process its share.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._threads = max(1, (os.cpu_count() or 1) // here) if self._on_gpu else 1
        self._ahead = AHEAD if self._on_gpu else 0
        self._pixels = SegmentLoader(
            self.store, self.index, self._task_ids, threads=self._threads, prefetch=self._on_gpu
        )
        self._reading = threading.Lock()
        self._tokens: SegmentLoader | None = None
        self._prefetchers: dict[str, Prefetcher[Segments]] = {}
        self._in_flight: deque[tuple[torch.cuda.Event, Segments]] = deque()

        def sampler(batch: int, offset: int) -> SegmentSampler:
            return SegmentSampler(self.index, batch, config.seed * 3 + offset, place.rank, place.world, True)

        self._samplers = {
            "tokenizer": sampler(config.stage1.tokenizer_batch // length, 0),
            "stage1": sampler(config.stage1.batch_size, 1),
            "stage2": sampler(config.stage2.batch_size, 2),
        }

    def tokenizer_frames(self, step: int, motion_weight: float, ahead: bool = True) -> tuple[Tensor, Tensor | None]:
        """Frames uint8 (N, 84, 84) and, if ``motion_weight`` > 0, pixel weights float32 (N, 84, 84) on the device.

        ``ahead``: take what was read in advance; else the order of what is read in advance stays as it is.
        """
        segments = self._read("tokenizer", step) if ahead else self._load("tokenizer", step)
        frames = self._move(segments.frames)
        mask = self._move(segments.mask)
        self._hold(segments)
        # Padding repeats the last frame: shapes stay fixed, no black frame is learned and nothing seems to move.
        last = (mask.sum(1) - 1).clamp_min(0)
        frames = torch.where(
            mask[:, :, None, None], frames, frames[torch.arange(len(frames), device=last.device), last][:, None]
        )
        weights = motion_weights(frames, motion_weight).flatten(0, 1) if motion_weight > 0 else None
        return frames.flatten(0, 1), weights

    def pixels(self, step: int, stage: int = 1) -> Batch:
        """The segments of a stage for ``step``, as frames."""
        return self._with_noise(self._batch(self._read(f"stage{stage}", step)), stage)

    def tokens(self, step: int, stage: int = 2) -> Batch:
        """The segments of a stage for ``step``, as tokens; :meth:`encode` must have run."""
        return self._with_noise(self._batch(self._read(f"stage{stage} tokens", step)), stage)

    def _with_noise(self, batch: Batch, stage: int) -> Batch:
        share = self.config.objective.action_noise
        if stage == 1 or share == 0:
            return batch
        # The first rows of the batch of all processes: games take turns in it, so each has its share of them.
        rows = len(batch.actions)
        numbers = torch.arange(rows, device=self.place.device) + self.place.rank * rows
        return replace(batch, noisy=numbers < round(share * rows * self.place.world))

    def windows(self, step: int, stage: int = 2) -> Windows:
        """Where in the data set the segments of a stage for ``step`` lie."""
        return self.index.look_up(self._samplers[f"stage{stage}"].indices(step))

    def distinct_patches(self) -> list[Patches]:
        """Those of the frames to train on, a game each."""
        pairs = zip(self.games, self._tables, strict=True)
        return [distinct_patches(self.store, game, table, self.config.seed) for game, table in pairs]

    def encode(self, tokenizer: Tokenizer, autocast: torch.dtype | None) -> str:
        """Have every frame's tokens, for stage 2: those that the data set holds, or new ones in the run's folder.

        Returns what was done, in words.  Raises :class:`DataError` when ``data.tokens`` names a folder of another
        tokenizer's tokens, or one that lacks some.
        """
        name, config = identity(tokenizer.fingerprint(), precision_name(autocast)), self.config
        own = config.out / TOKENS / short(name)
        if config.data.tokens is not None:
            source, said = TokenStore.open(config.data.tokens, name), f"reading tokens from {config.data.tokens}"
        elif (shared := self._shared_tokens(name)) is not None:
            source, said = shared, f"reading tokens from {shared.folder}"
        else:
            others = ", ".join(kind for kind in kinds(self.store) if kind != short(name))
            refused = f" (the data set's are of other tokenizers: {others})" if others else ""
            if tokens_folder(self.store, name).is_dir():
                refused = " (the data set's own tokens are not complete: python -m jowa.tokenize finishes them)"
            if self.place.is_main:
                TokenStore.create(own, name, tokenizer.config.vocab_size)
            self.place.barrier()
            source = TokenStore.open(own, name)
            done = encode_missing(
                source, self.store, self.games, encoder(tokenizer, self.place.device, autocast),
                self.place.rank, self.place.world, self.place.barrier, _Lines(self.place.is_main),
            )  # fmt: skip
            source = TokenStore.open(own, name)  # which the main process finished
            said = f"encoded {done:,} frames into {own}{refused}" if done else f"reusing the tokens in {own}"
        self._tokens = SegmentLoader(
            self.store, self.index, self._task_ids, frames=False, tokens=source, threads=self._threads,
            prefetch=self._on_gpu, gamma=config.objective.gamma if config.objective.observed_weight > 0 else None,
        )  # fmt: skip
        return said

    def check_unchanged(self) -> None:
        """Raise :class:`DataError` in the main process when files of the data set changed since it was opened."""
        self._files.check()

    def close(self) -> None:
        """Stop reading ahead."""
        for prefetcher in self._prefetchers.values():
            prefetcher.close()
        self._prefetchers.clear()

    def _shared_tokens(self, name: str) -> TokenStore | None:
        folder = tokens_folder(self.store, name)
        if not folder.is_dir():
            return None
        tokens = TokenStore.open(folder, name)
        return tokens if tokens.covers(self.store, self.games) else None

    def _read(self, stream: str, step: int) -> Segments:
        """The segments of ``step`` of one of the samplers, read in advance where a GPU computes meanwhile."""
        if not self._ahead:
            return self._load(stream, step)
        if stream not in self._prefetchers:
            self._prefetchers[stream] = Prefetcher(lambda number: self._load(stream, number), step, self._ahead)
        return self._prefetchers[stream].get(step)

    def _load(self, stream: str, step: int) -> Segments:
        sampler, _, kind = stream.partition(" ")
        loader = self._tokens if kind else self._pixels
        assert loader is not None, "encode the data set first"
        with self._reading:  # streams read ahead in threads of their own
            segments = loader.read(self._samplers[sampler].indices(step), _pinned if self._on_gpu else np.empty)
        if not np.isfinite(segments.rewards).all():
            raise DataError(
                "a batch holds rewards that are not finite, expected -1 to 1: the data set is damaged; check it with "
                f"python -m jowa.data verify {self.store.path}, and restore it from a copy or record it anew"
            )
        return segments

    def _move(self, array: NDArray[Any] | None) -> Tensor:
        assert array is not None
        return torch.from_numpy(array).to(self.place.device, non_blocking=True)

    def _hold(self, segments: Segments) -> None:
        """Keep the pinned arrays until the copies out of them are done."""
        if self._on_gpu:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
            self._in_flight.append((copied, segments))
            while len(self._in_flight) > 1 and self._in_flight[0][0].query():  # type: ignore[no-untyped-call]
                self._in_flight.popleft()

    def _batch(self, segments: Segments) -> Batch:
        batch = Batch(
            frames=None if segments.frames is None else self._move(segments.frames),
            # Widened on the device: a quarter of the bytes cross the bus.
            tokens=None if segments.tokens is None else self._move(segments.tokens.view(np.int16)).long(),
            actions=self._move(segments.actions),
            rewards=self._move(segments.rewards),
            ends=self._move(segments.ends),
            mask=self._move(segments.mask),
            tasks=self._move(segments.tasks),
            legal=self._move(segments.legal),
            returns=None if segments.returns is None else self._move(segments.returns),
        )
        self._hold(segments)
        return batch


def _pinned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array from which a GPU copies while the CPU goes on."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy().view(dtype).reshape(shape)


class _Lines:
    """Says every now and then how far the encoding is."""

    def __init__(self, shown: bool) -> None:
        self.shown, self.said = shown, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self.shown and time.monotonic() - self.said > LINE_EVERY:
            print(f"encoding frames for stage 2: {done:,}/{total:,}", flush=True)
            self.said = time.monotonic()


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
