"""Who does the work of many pieces: this process, processes of this machine, or a Dask cluster; one interface."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_handles
from pathlib import Path
from typing import Any, TypeVar

from jowa.errors import JowaError, UsageError

Job = TypeVar("Job")
Result = TypeVar("Result")


class InThisProcess(Executor):
    """Works when asked to, in the calling process: for one worker no second process is needed."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of ``function(*args)``."""
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


@contextmanager
def local_workers(workers: int) -> Iterator[Executor]:
    """``workers`` processes of this machine, or none of their own for one worker.

    At the end, and when the calling process dies, they are ended at once: what they were at is not waited for.
    """
    if workers == 1:
        yield InThisProcess()
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    try:
        yield pool
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


@contextmanager
def dask_workers(address: str) -> Iterator[tuple[Executor, int]]:
    """The Dask cluster whose scheduler is at ``address``, and how many tasks it works on at once.

    Raises :class:`UsageError` when Dask is not installed or nobody answers there.
    """
    try:
        import distributed
    except ImportError:
        raise UsageError("a Dask cluster needs the package distributed: pip install distributed") from None
    try:
        connect: Any = distributed.Client  # untyped
        client = connect(address, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"no Dask scheduler at {address} ({reason}): start one, or check the address") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UsageError(f"the Dask cluster at {address} has no workers: start some with dask worker {address}")
        pool = client.get_executor(pure=False)
        try:
            yield pool, threads
        finally:
            pool.shutdown(wait=False)


def as_finished(
    pool: Executor, ahead: int, function: Callable[[Job], Result], jobs: Iterable[Job]
) -> Iterator[tuple[Job, Result]]:
    """Each job with ``function(job)``, in the order in which they get done; at most ``ahead`` are handed out."""
    remaining = iter(jobs)
    waiting: dict[Future[Result], Job] = {}
    while True:
        for job in islice(remaining, ahead - len(waiting)):
            waiting[pool.submit(function, job)] = job
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield waiting.pop(future), future.result()


@contextmanager
def plain_failures(out: Path, kept: str) -> Iterator[None]:
    """Make a full disk or a dead worker an error that names ``out``; ``kept`` says what is not lost."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is None:
            error.filename = str(out)
        raise
    except BrokenProcessPool:
        raise JowaError(
            f"a working process died (out of memory?): rerun with fewer --workers; {kept} are kept"
        ) from None


def _prepare_worker() -> None:
    """In a working process: leave Ctrl-C to its parent, and die with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait_for_handles([sentinel])
    os._exit(1)
