"""The terms of the tokenizer's loss, by plain arithmetic, and how the codebook's health is counted."""

from __future__ import annotations

import math

import pytest
import torch

from jowa.config import TokenizerConfig, TokenizerLossConfig
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.losses import code_counts, usage_and_perplexity

SMALL = TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12)


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_each_term_has_its_weight_and_the_total_is_their_sum() -> None:
    torch.manual_seed(0)
    plain = Tokenizer(SMALL)
    tokenizer = Tokenizer(SMALL, None, TokenizerLossConfig(square_weight=3.0))
    tokenizer.load_state_dict(plain.state_dict())
    seen, weights = frames(2), torch.rand(2, 84, 84) + 1
    losses, without = tokenizer(seen, weights), plain(seen, weights)
    target, pixels = seen / 127.5 - 1, tokenizer.decode_unclamped(tokenizer.encode(seen)) * 2 - 1
    expected = ((target - pixels) ** 2 * weights).mean().item()
    assert losses.square.item() == pytest.approx(3 * expected, rel=1e-4)
    assert tokenizer(seen).square.item() == pytest.approx(3 * ((target - pixels) ** 2).mean().item(), rel=1e-4)
    assert losses.total.item() == pytest.approx(without.total.item() + losses.square.item(), rel=1e-5)
    assert set(losses.named()) == {"reconstruction", "commitment", "perceptual", "square"}
    assert not any(value.requires_grad for value in losses.named().values())
    assert without.square == 0 and without.statistics is None


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
