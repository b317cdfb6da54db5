"""The tokenizer without networks: codes are clusters of patches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jowa.config import TokenizerConfig
from jowa.data.store import EpisodeStore
from jowa.errors import UsageError
from jowa.tokenizer import Tokenizer
from jowa.tokenizer.dataset import distinct_patches
from jowa.tokenizer.local import split_patches
from jowa.tokenizer.patches import PIXELS, Patches, cluster, fit_patches, nearest


@pytest.fixture
def store(sprite_store: Path) -> EpisodeStore:
    return EpisodeStore.open(sprite_store)


def make(codes: int = 48) -> Tokenizer:
    tokenizer = Tokenizer(TokenizerConfig(encoder="patches", vocab_size=codes, code_dim=PIXELS))
    with torch.no_grad():
        tokenizer.embedding.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return tokenizer


def frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def patches(distinct: NDArray[np.uint8], usual: int = 0) -> Patches:
    return Patches(distinct, distinct[:usual])


def test_a_token_names_the_nearest_picture_and_decodes_to_it() -> None:
    tokenizer, seen = make(), frames(5)
    patches = split_patches(seen).flatten(2).double() / 127.5 - 1
    distances = torch.cdist(patches, tokenizer.embedding.weight.double())
    tokens = tokenizer.encode(seen)
    assert torch.equal(tokens, distances.argmin(-1)) and torch.equal(tokenizer.encode_sequence(seen), tokens)
    pictures = split_patches(tokenizer.decode_unclamped(tokens)).flatten(2)
    torch.testing.assert_close(pictures, (tokenizer.embedding.weight[tokens] + 1) / 2)


def test_no_weight_but_the_codes() -> None:
    assert [name for name, _ in make().named_parameters()] == ["embedding.weight"]
    with pytest.raises(ValueError, match="code_dim is 64, expected 196"):
        Tokenizer(TokenizerConfig(encoder="patches", code_dim=64))


def test_distinct_patches_are_those_of_the_frames(store: EpisodeStore) -> None:
    table = store.table("Pong")
    seen = np.concatenate([store.read_episode("Pong", i).frames for i in range(store.num_episodes("Pong"))])
    expected = {patch.tobytes() for patch in split_patches(torch.from_numpy(seen)).flatten(0, 1).numpy()}
    found, usual = distinct_patches(store, "Pong", table, seed=0, most=10**9)
    assert {patch.tobytes() for patch in found} == expected and len(found) == len(expected) > 50
    few, other = (distinct_patches(store, "Pong", table, seed, most=20).distinct for seed in (0, 1))
    assert len(few) == 20 and {patch.tobytes() for patch in few} <= expected and not np.array_equal(few, other)
    first = {name: column[:1] for name, column in table.items()}
    assert len(distinct_patches(store, "Pong", first, seed=0).distinct) < len(found)
    every = Counter(patch.tobytes() for patch in split_patches(torch.from_numpy(seen)).flatten(0, 1).numpy())
    assert {patch.tobytes() for patch in usual} == {p for p, n in every.items() if n >= 1e-3 * every.total()}


def test_the_error_falls_with_each_round_and_vanishes_with_enough_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    patches, free = torch.rand(400, PIXELS, generator=generator) * 2 - 1, torch.ones(30, dtype=torch.bool)
    errors, codes = [], patches[:30].clone()
    for _ in range(5):
        errors.append(nearest(patches, codes)[1].mean().item())
        codes = cluster(patches, codes, free, torch.Generator().manual_seed(1), rounds=1)
    assert sorted(errors, reverse=True) == errors and errors[-1] < 0.95 * errors[0]
    enough = cluster(patches[:25], codes, free, torch.Generator().manual_seed(1))
    torch.testing.assert_close(nearest(patches[:25], enough)[1], torch.zeros(25), atol=1e-6, rtol=0)


def test_codes_in_use_stay_where_they_are_asked_to() -> None:
    old, new = (np.random.default_rng(s).integers(0, 256, (n, PIXELS), dtype=np.uint8) for s, n in ((0, 40), (1, 60)))
    codes = fit_patches(torch.zeros(64, PIXELS), [patches(old)], seed=0, keep_used=False)
    again = fit_patches(torch.zeros(64, PIXELS), [patches(old)], seed=0, keep_used=False)
    assert torch.equal(codes, again), "the same seed gives the same codes"
    scaled = torch.from_numpy(np.concatenate([old[:10], new])).float() / 127.5 - 1
    used = torch.bincount(nearest(scaled, codes)[0], minlength=64) > 0
    moved = fit_patches(codes, [patches(old[:10]), patches(new)], seed=0, keep_used=True)
    assert torch.equal(moved[used], codes[used]) and not torch.equal(moved[~used], codes[~used])
    assert nearest(scaled, moved)[1].mean() < 0.6 * nearest(scaled, codes)[1].mean()


def test_usual_patches_have_codes_of_their_own() -> None:
    seen = np.random.default_rng(0).integers(0, 256, (200, PIXELS), dtype=np.uint8)
    scaled = torch.from_numpy(seen).float() * (2 / 255) - 1
    codes = fit_patches(torch.zeros(16, PIXELS), [patches(seen, 5), patches(seen[:100], 3)], seed=0, keep_used=False)
    assert nearest(scaled[:5], codes)[1].max() < 1e-6 < nearest(scaled[5:], codes)[1].mean()
    without = fit_patches(torch.zeros(16, PIXELS), [patches(seen), patches(seen[:100])], seed=0, keep_used=False)
    assert nearest(scaled[:5], without)[1].max() > 1
    many = fit_patches(torch.zeros(16, PIXELS), [patches(seen, 100)], seed=0, keep_used=False)
    assert 8 <= (nearest(scaled, many)[1] < 1e-6).sum() < 12, "half of the codes at most; others may hit one by chance"
    new = np.random.default_rng(1).integers(0, 256, (3, PIXELS), dtype=np.uint8)
    kept = fit_patches(codes, [patches(np.concatenate([new, seen[:2]]), 2)], seed=0, keep_used=True)
    assert nearest(torch.from_numpy(new[:2]).float() * (2 / 255) - 1, kept)[1].max() < 1e-6
    assert nearest(scaled[:2], kept)[1].max() < 1e-6


def test_data_without_frames_is_refused() -> None:
    with pytest.raises(UsageError, match="no frame"):
        fit_patches(torch.zeros(4, PIXELS), [patches(np.empty((0, PIXELS), np.uint8))], seed=0, keep_used=False)
