"""Saving while the training goes on: copies of the state are written in the background, one at a time."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from jowa.errors import CheckpointError
from jowa.train.checkpoint import (
    WAY_OUT,
    CheckpointWriter,
    checkpoint_name,
    newest_whole,
    prune,
    read_best,
    write_best,
)
from jowa.train.config import CheckpointConfig
from jowa.train.distributed import PATIENCE, Place
from jowa.train.state import State

FAILURES = (Exception, CheckpointException)
"""What torch raises when a checkpoint cannot be written or read; its own error is no ``Exception``."""


@dataclass(frozen=True)
class _Write:
    """A checkpoint on its way to the disk."""

    writer: CheckpointWriter
    step: int
    done: Future[Any]


class CheckpointStore:
    """The checkpoints of a run in ``folder``; every process has one, and all ask the same of theirs, in order."""

    def __init__(self, folder: Path, config: CheckpointConfig, place: Place) -> None:
        self.folder, self.config, self.place = folder, config, place
        self.failures = 0
        """Checkpoints that could not be written, in this process's life."""
        self._under_way: _Write | None = None
        # torch says at every save that one process is one process.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", module="torch.distributed.checkpoint")

    def save(self, step: int, state: State, facts: dict[str, Any]) -> None:
        """Write ``state`` in the background, or at once if the settings say so; waits for the write before it.

        A failure is counted and told, and harms nothing: the checkpoints before it stay, the run goes on.
        """
        self.wait()
        writer = self._writer(step, facts)
        if self.config.asynchronous:
            try:
                done = async_save(
                    state, storage_writer=writer, process_group=self._group, async_stager=self._stager,
                    no_dist=self.place.world == 1,
                )  # fmt: skip
            except FAILURES as error:
                self._failed(writer, error)
                return
            assert isinstance(done, Future), "staging is not asynchronous"
            self._under_way = _Write(writer, step, done)
            return
        try:
            self._save(writer, state)
        except FAILURES as error:
            self._failed(writer, error)

    def save_now(self, step: int, state: State, facts: dict[str, Any]) -> None:
        """Write ``state`` and return when it is on the disk.  Raises :class:`CheckpointError` when that fails."""
        self.wait()
        writer = self._writer(step, facts)
        try:
            self._save(writer, state)
        except FAILURES as error:
            self._clean(writer)
            raise CheckpointError(
                f"{writer.final} could not be written ({_why_not_written(error)}); expected room for it: free some "
                "space, or choose another --out, then rerun; the checkpoints before it are kept"
            ) from error

    def wait(self) -> None:
        """Return when nothing is being written any more."""
        write, self._under_way = self._under_way, None
        if write is None:
            return
        try:
            write.done.result()
        except FAILURES as error:
            self._failed(write.writer, error)

    def mark_best(self, step: int, score: float) -> bool:
        """Keep the checkpoint after ``step``, whatever is pruned, if no other has a ``score`` as high.

        Returns whether it is the best now; not if it could not be written.  The main process alone may ask this.
        """
        self.wait()
        best = read_best(self.folder)
        if (best is not None and best[1] >= score) or not (self.folder / checkpoint_name(step)).is_dir():
            return False
        write_best(self.folder, step, score)
        return True

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest undamaged checkpoint and its manifest; see :func:`newest_whole`.  The main process looks."""
        found: list[Any] = [None]
        if self.place.is_main:
            try:
                found = [newest_whole(self.folder)]
            except CheckpointError as error:
                found = [error]
        if self.place.world > 1:
            torch.distributed.broadcast_object_list(found, src=0, group=self._group)
        if isinstance(found[0], CheckpointError):
            raise found[0]
        return None if found[0] is None else (found[0][0], found[0][1])

    def load(self, path: Path, state: State) -> None:
        """Overwrite the tensors of ``state`` with those of the checkpoint ``path``.

        Raises :class:`CheckpointError` when it holds others.
        """
        try:
            load(
                state, storage_reader=FileSystemReader(path), process_group=self._group,
                no_dist=self.place.world == 1,
            )  # fmt: skip
        except FAILURES as error:
            raise CheckpointError(f"{path} does not fit these networks ({_reason(error)}): {WAY_OUT}") from error

    @functools.cached_property
    def _group(self) -> torch.distributed.ProcessGroup | None:
        """A group of its own, on the CPU: what is said in the background must not mix with the training's talk."""
        if self.place.world == 1:
            return None
        return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)

    @functools.cached_property
    def _stager(self) -> DefaultStager:
        """Copies the state to memory that it keeps, pinned where a GPU writes to it."""
        on_gpu = self.place.device.type == "cuda"
        return DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=on_gpu
            )
        )

    def _writer(self, step: int, facts: dict[str, Any]) -> CheckpointWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return CheckpointWriter(self.folder, step, facts, lambda: prune(self.folder, self.config.keep))

    def _save(self, writer: CheckpointWriter, state: State) -> None:
        save(state, storage_writer=writer, process_group=self._group, no_dist=self.place.world == 1)

    def _failed(self, writer: CheckpointWriter, error: BaseException) -> None:
        self._clean(writer)
        self.failures += 1
        if self.place.is_main and self.failures == 1:
            print(
                f"warning: {writer.final} could not be written ({_why_not_written(error)}): training goes on and tries "
                "again at the next interval; the checkpoints before it are kept",
                flush=True,
            )

    def _clean(self, writer: CheckpointWriter) -> None:
        if self.place.is_main:
            shutil.rmtree(writer.partial, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    error = _cause(error)
    if isinstance(error, OSError) and error.errno is not None:
        return "disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else os.strerror(error.errno)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _why_not_written(error: BaseException) -> str:
    """:func:`_reason` of a failed write; torch does not say when a disk is full, its counts are wrong then."""
    cause = _cause(error)
    return f"{_reason(error)}: is the disk full?" if isinstance(cause, RuntimeError) else _reason(error)


def _cause(error: BaseException) -> BaseException:
    """What was raised on the first process where something was."""
    if isinstance(error, CheckpointException) and error.failures:
        return error.failures[min(error.failures)][0]
    return error
