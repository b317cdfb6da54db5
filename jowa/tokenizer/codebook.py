"""A codebook that follows the latents by moving averages instead of by gradient.

Letters: V codebook size, C code width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

from jowa.tokenizer.losses import CodebookStatistics


class EmaCodebook(nn.Module):
    """Each code is the moving average of the latents that chose it (van den Oord et al. 2017, appendix A.1).

    ``weight`` (V, C) has the name that an ``nn.Embedding`` gives it, but is a buffer: no optimizer and no distributed
    wrapper waits for its gradient.  ``counts`` (V,) is the moving average of how often a code is chosen; the moving
    sum of latents of the published formula is weight x counts.
    """

    weight: Tensor
    counts: Tensor

    def __init__(self, vocab_size: int, code_dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("weight", torch.empty(vocab_size, code_dim))
        # Nothing counted yet: the first latents that choose a code move it all the way to their mean.
        self.register_buffer("counts", torch.zeros(vocab_size))

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.weight)

    @torch.no_grad()
    def update(self, parts: Sequence[CodebookStatistics], skipped: Tensor | None = None) -> None:
        """Take in the batches of one step, of all processes.

        A batch that is not finite changes nothing, nor does one where ``skipped`` float32 () is 1.
        """
        counts = torch.stack([part.counts for part in parts]).sum(0)
        sums = torch.stack([part.sums for part in parts]).sum(0)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            joined = torch.cat([sums, counts[:, None]], 1)
            torch.distributed.all_reduce(joined)
            sums, counts = joined[:, :-1], joined[:, -1]
        finite = sums.isfinite().all()
        if skipped is not None:
            finite = finite & (skipped == 0)
        total = self.decay * self.counts + (1 - self.decay) * counts
        seen = (1 - self.decay) * (sums - counts[:, None] * self.weight)
        moved = self.weight + seen / torch.where(counts > 0, total, 1.0)[:, None]
        self.weight.copy_(torch.where(finite & (counts > 0)[:, None], moved, self.weight))
        self.counts.copy_(torch.where(finite, total, self.counts))
