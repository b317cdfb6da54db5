"""One of several processes that share a codebook: ``codebook_worker.py OUT``."""

from __future__ import annotations

import sys

import torch
import torch.distributed

from jowa.tokenizer import CodebookStatistics
from jowa.tokenizer.codebook import EmaCodebook


def statistics(seed: int) -> CodebookStatistics:
    """Of some batch, for 6 codes of 3 numbers; not all are chosen."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (6,), generator=generator).float()
    return CodebookStatistics(counts, torch.randn(6, 3, generator=generator) * (counts > 0)[:, None])


def main(out: str) -> None:
    """Three steps, each process with batches of its own; write the state."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    codebook = EmaCodebook(6, 3, 0.9)
    torch.nn.init.ones_(codebook.weight)
    for step in range(3):
        codebook.update([statistics(2 * step + rank)])
    torch.save(codebook.state_dict(), out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
