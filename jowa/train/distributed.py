"""Where this process stands among its peers: one process without ``torchrun``, several with it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from jowa.devices import choose_device
from jowa.errors import UsageError

PATIENCE = timedelta(days=7)
"""How long a barrier waits: the main process may record for hours meanwhile.  ``torchrun`` ends the others
when one fails, so nobody waits in vain."""

_OPTIONS = inspect.signature(DistributedDataParallel).parameters
NO_SYNC: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False}
"""Tells a wrapper to copy no buffers before a forward pass; torch 2.13 has a new name for it, and warns of the old."""


@dataclass(frozen=True)
class Place:
    """This process: its rank of ``world``, and its device."""

    rank: int
    world: int
    device: torch.device
    waiting: torch.distributed.ProcessGroup | None = None
    """The group of :meth:`barrier`; collectives of the training itself keep the usual, short timeout."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Average gradients over the processes; the module itself when there is one process or nothing to train.

        A module that is sharded averages its own.
        """
        if self.world == 1 or isinstance(module, FSDPModule) or not any(p.requires_grad for p in module.parameters()):
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, **NO_SYNC)

    @contextmanager
    def synchronised(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Average the gradients of ``wrapped`` in this backward pass only if it is the ``last`` of a step."""
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
            yield
        elif last or not isinstance(wrapped, DistributedDataParallel):
            yield
        else:
            with wrapped.no_sync():
                yield

    def barrier(self) -> None:
        """Wait for all processes, as long as it takes."""
        if self.world > 1:
            torch.distributed.barrier(group=self.waiting)

    def gather(self, rows: Tensor) -> Tensor:
        """The ``rows`` (N, ...) of every process, in the order of ranks: (world N, ...)."""
        if self.world == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def broadcast(self, values: Tensor) -> None:
        """Overwrite ``values`` with the main process's."""
        if self.world > 1:
            torch.distributed.broadcast(values, src=0)

    def mean(self, values: Tensor) -> Tensor:
        """``values``, averaged over the processes."""
        if self.world > 1:
            values = values.clone()
            torch.distributed.all_reduce(values)
        return values / self.world

    def any(self, flag: Tensor) -> Tensor:
        """float32 (): 1 if ``flag`` float32 () is 1 on any process, else 0."""
        if self.world > 1:
            flag = flag.clone()
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return flag


_KEPT: list[Any] = []
"""The groups of this process, until it ends.

Were a wrapped module the last to hold one, its destructor would join Gloo's threads without giving up the interpreter's
lock, which those may need to free a tensor: now and then a finished run would hang.
"""


@contextmanager
def process_group(device_name: str) -> Iterator[Place]:
    """Join the peers that ``torchrun`` started, or be alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and device_name.startswith("cuda:"):
        raise UsageError(f"device {device_name!r} names one GPU for several processes: use --device cuda")
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Place(0, 1, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=_store(), rank=int(os.environ["RANK"]), world_size=world)
    try:
        waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        _KEPT.extend([torch.distributed.group.WORLD, waiting])
        yield Place(torch.distributed.get_rank(), world, device, waiting)
    finally:
        torch.distributed.destroy_process_group()


def _store() -> PrefixStore:
    """Where the processes find one another: what ``torchrun`` offers, or the first process's own.

    ``torchrun`` keeps one store over its restarts.  Names get the number of the start, or a process would read the
    address of one that was killed.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    offered = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    first = not offered and os.environ["RANK"] == "0"
    store = TCPStore(host, port, int(os.environ["WORLD_SIZE"]), is_master=first, wait_for_workers=False)
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
