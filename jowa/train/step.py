"""What one optimizer step does with gradients: add up, clip, apply; or skip, where they are not finite.

Nothing here waits for the device: what is found is read back later, by :mod:`jowa.train.watch`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.profiler import record_function

from jowa.train.distributed import Place

SKIPPED, IN_ROW, FIRST = "_skipped", "_skipped_in_row", "_first_skipped"
"""Ends of the names of a part's counters among the metrics: steps skipped so far; the longest stretch of them since the
last reading; and the step that this stretch began with."""


class Part:
    """A network in training: itself, its wrapper, its optimizer, and how many of its steps were skipped."""

    def __init__(
        self, name: str, module: nn.Module, wrapped: nn.Module, optimizer: torch.optim.Optimizer, clip: float,
        place: Place,
    ) -> None:  # fmt: skip
        """``wrapped``: what averages ``module``'s gradients over the processes; ``clip``: their largest norm."""
        self.name, self.module, self.wrapped, self.optimizer = name, module, wrapped, optimizer
        self.clip, self.place = clip, place
        self.skipped = torch.zeros((), device=place.device)
        self.skipped_in_row = torch.zeros((), device=place.device)
        self.found = torch.zeros((), device=place.device)
        """float32 (): 1 if the last step was skipped."""
        self._began = self._longest = self._longest_began = torch.zeros((), dtype=torch.float64, device=place.device)

    def backward(self, loss: Tensor, first: bool, last: bool) -> None:
        """Add the gradient of a microbatch's ``loss``; the ``first`` of a step begins at zero."""
        if first:
            self.optimizer.zero_grad(set_to_none=True)
        with self.place.synchronised(self.wrapped, last), record_function("backward"):
            torch.autograd.backward(loss)

    def apply(self, loss: Tensor, step: int) -> dict[str, Tensor]:
        """Take ``step``, unless ``loss`` float32 () or the gradient is not finite on some process.

        Returns what to log: the gradient's norm before clipping, and the counters of skipped steps.
        """
        with record_function("clip"):
            norm = self._clip()
            found = self.place.any(1 - torch.isfinite(norm + loss.detach().float()).float())
        # The fused optimizers read this flag on the device, and leave weights and state alone where it is 1.
        self.optimizer.found_inf = found  # type: ignore[attr-defined]
        with record_function("optimizer"):
            self.optimizer.step()
        self.found = found
        self.skipped = self.skipped + found
        self.skipped_in_row = (self.skipped_in_row + 1) * found
        self._began = torch.where(self.skipped_in_row == 1, float(step), self._began)
        longer = self.skipped_in_row > self._longest
        self._longest = torch.where(longer, self.skipped_in_row.double(), self._longest)
        self._longest_began = torch.where(longer, self._began, self._longest_began)
        return {
            f"{self.name}_gradient_norm": norm,
            f"{self.name}{SKIPPED}": self.skipped,
            f"{self.name}{IN_ROW}": self._longest,
            f"{self.name}{FIRST}": self._longest_began,
        }

    def was_read(self) -> None:
        """From now on count the longest stretch anew; one under way goes on."""
        self._longest, self._longest_began = self.skipped_in_row.double(), self._began

    def resumed(self, step: int) -> None:
        """Tell when the stretch under way began, after ``skipped_in_row`` was restored as of ``step``."""
        self._began = step - self.skipped_in_row.double()
        self.was_read()

    def _clip(self) -> Tensor:
        """Scale the gradient to the largest norm if it is longer; its norm before, float32 ()."""
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):  # of this process's part: the squares are summed over the processes here
            norm = norm.full_tensor()
        nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return norm


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """The total of named scalar losses."""
    return torch.stack(list(losses.values())).sum()


def add_to(total: dict[str, Tensor], losses: dict[str, Tensor]) -> None:
    """Add a microbatch's ``losses`` to those of the microbatches before it."""
    for name, value in losses.items():
        total[name] = total[name] + value.detach() if name in total else value.detach()
