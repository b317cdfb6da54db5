"""The terms of the tokenizer's loss, by plain arithmetic, and how the codebook's health is counted."""

from __future__ import annotations

import math

import pytest
import torch

from jowa.config import TokenizerConfig
from jowa.tokenizer import Tokenizer, TokenizerLossConfig
from jowa.tokenizer.losses import code_counts, edge_error, multiscale_error, usage_and_perplexity

SMALL = TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12)


def images(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_edges_are_differences_between_neighbours() -> None:
    target, pixels, weights = images(0), images(1), images(2) + 2
    plain = weighted = 0.0
    for b in range(2):
        e, w = (target - pixels)[b, 0].tolist(), weights[b, 0].tolist()
        for row in range(8):
            for column in range(7):
                for (r0, c0), (r1, c1) in (((row, column), (row, column + 1)), ((column, row), (column + 1, row))):
                    gap = abs(e[r1][c1] - e[r0][c0])
                    plain += gap / (2 * 8 * 7)
                    weighted += gap * (w[r1][c1] + w[r0][c0]) / 2 / (2 * 8 * 7)
    assert edge_error(target, pixels, None).item() == pytest.approx(plain, rel=1e-5)
    assert edge_error(target, pixels, weights).item() == pytest.approx(weighted, rel=1e-5)
    assert edge_error(target, target + 0.5, None).item() == pytest.approx(0, abs=1e-6), "edges know no brightness"


def test_scales_are_means_over_squares() -> None:
    target, pixels, weights = images(0), images(1), images(2) + 2
    plain = weighted = 0.0
    for side in (2, 4):
        count = 2 * (8 // side) ** 2
        for b in range(2):
            for row in range(0, 8, side):
                for column in range(0, 8, side):
                    square = (b, 0, slice(row, row + side), slice(column, column + side))
                    gap = abs((target - pixels)[square].mean().item())
                    plain += gap / count
                    weighted += gap * weights[square].mean().item() / count
    assert multiscale_error(target, pixels, None).item() == pytest.approx(plain, rel=1e-5)
    assert multiscale_error(target, pixels, weights).item() == pytest.approx(weighted, rel=1e-5)


def test_each_term_has_its_weight_and_the_total_is_their_sum() -> None:
    torch.manual_seed(0)
    plain = Tokenizer(SMALL)
    state = plain.state_dict()
    settings = TokenizerLossConfig(edge_weight=0.5, multiscale_weight=3.0)
    tokenizer = Tokenizer(SMALL, None, settings)
    tokenizer.load_state_dict(state)
    seen, weights = frames(2), torch.rand(2, 84, 84) + 1
    losses = tokenizer(seen, weights)
    target, pixels = seen[:, None] / 127.5 - 1, tokenizer.decode_unclamped(tokenizer.encode(seen))[:, None] * 2 - 1
    assert losses.edge.item() == pytest.approx(0.5 * edge_error(target, pixels, weights[:, None]).item(), rel=1e-4)
    assert losses.multiscale.item() == pytest.approx(
        3 * multiscale_error(target, pixels, weights[:, None]).item(), rel=1e-4
    )
    parts = losses.named()
    assert losses.total.item() == pytest.approx(
        sum(v.item() for k, v in parts.items() if k not in ("usage", "perplexity"))
    )
    assert plain(seen).edge == 0 and plain(seen).multiscale == 0 and plain(seen).statistics is None


def test_usage_and_perplexity() -> None:
    tokens = torch.tensor([3, 3, 3, 1, 1, 0])
    counts = code_counts(tokens, 8)
    assert counts.tolist() == [1, 2, 0, 3, 0, 0, 0, 0]
    usage, perplexity = usage_and_perplexity(counts)
    assert usage.item() == pytest.approx(3 / 8)
    entropy = -sum(p * math.log(p) for p in (1 / 6, 2 / 6, 3 / 6))
    assert perplexity.item() == pytest.approx(math.exp(entropy))
    assert usage_and_perplexity(code_counts(torch.zeros(9, dtype=torch.int64), 8))[1].item() == pytest.approx(1)


def test_a_batch_reports_its_own_codes() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL)
    with torch.no_grad():
        tokenizer.embedding.weight.normal_(std=0.5)
    losses = tokenizer(frames(2))
    used = tokenizer.encode(frames(2)).unique().numel()
    assert used > 1 and losses.usage.item() == pytest.approx(used / 32)
    assert 1 < losses.perplexity.item() <= used
