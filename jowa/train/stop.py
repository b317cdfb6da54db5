"""SIGTERM and Ctrl-C: finish the step, save, and end as if that had been the plan."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed

from jowa.train.distributed import Place

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTICE = b"\nfinishing this step and saving; Ctrl-C again stops at once\n"


class Stopped(KeyboardInterrupt):
    """The run was asked to end; nothing that it had finished is lost.  The message says how to go on."""


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within it SIGTERM and SIGINT raise :class:`Stopped` where they find the main thread."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped("stopped: run the same command again to go on; what was finished is kept")

    with _handling(stop):
        yield


class StopRequests:
    """Within it SIGTERM and SIGINT are noted, and :meth:`agreed` tells all processes of it at the same step."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.requested = False
        self._flag = torch.zeros(())
        self._asked: torch.distributed.Work | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals; a second SIGINT stops at once."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            if not self.requested and self.place.is_main:
                os.write(2, _NOTICE)  # print may have been interrupted
            self.requested = True

        with _handling(note):
            yield

    def agreed(self, now: bool = False) -> bool:
        """Whether to stop after this step; the same on all processes, which must all ask after every step.

        What one process knows, the others hear a step later, since the answers of a step travel while the next
        computes; ``now``: they are waited for.
        """
        if self.place.world == 1:
            return self.requested
        stop = self._answer()
        if not stop:
            self._flag = torch.tensor(float(self.requested))
            self._asked = torch.distributed.all_reduce(
                self._flag, torch.distributed.ReduceOp.MAX, group=self.place.waiting, async_op=True
            )
        return stop or (now and self._answer())

    def _answer(self) -> bool:
        """What was found when the processes were last asked."""
        if self._asked is None:
            return False
        self._asked.wait()
        return bool(self._flag.item())


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call ``handler`` for :data:`SIGNALS`; only a main thread can, in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
