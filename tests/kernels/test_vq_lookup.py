"""Nearest codebook vectors against brute force in float64."""

from __future__ import annotations

import pytest
import torch

from jowa.kernels import vq_lookup as module
from jowa.kernels.vq_lookup import nearest_codes, vq_lookup, vq_lookup_reference

# A machine with a GPU may have nothing beyond torch, triton, NumPy and pytest.
st = pytest.importorskip("hypothesis.strategies")
given, settings = (getattr(pytest.importorskip("hypothesis"), name) for name in ("given", "settings"))


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 40),
    codes=st.integers(1, 33),
    width=st.integers(1, 17),
    levels=st.sampled_from([2, 3, 1000]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**31),
)
def test_equals_brute_force_ties_included(count, codes, width, levels, scale, seed) -> None:
    """Few levels make exact ties and doubled codes common."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randint(0, levels, (count, width), generator=generator) * (scale / levels)
    codebook = torch.randint(0, levels, (codes, width), generator=generator) * (scale / levels)
    expected = vq_lookup_reference(latents, codebook)
    found = vq_lookup(latents, codebook)
    assert found.dtype == torch.int64 and found.shape == (count,)
    assert torch.equal(found, expected)
    assert torch.equal(module._by_matrix_product(latents, codebook), expected), "the way without native code"


def test_numbers_that_are_none_without_native_code() -> None:
    """A latent of NaN or infinity is as far from every code as the oracle says; the others do not care."""
    latents, codebook = torch.randn(9, 5), torch.randn(7, 5)
    latents[2, 1], latents[4, 0], latents[6] = torch.nan, torch.inf, -torch.inf
    assert torch.equal(module._by_matrix_product(latents, codebook), vq_lookup_reference(latents, codebook))


@pytest.mark.parametrize("copies", [2, 17, 64])
def test_a_code_that_stands_several_times_is_found_at_its_lowest_index(copies: int) -> None:
    """Columns of a matrix product may be rounded differently; an equal code must still not win."""
    torch.manual_seed(0)
    codebook = torch.randn(31, 64).repeat(copies, 1)
    assert vq_lookup(torch.randn(200, 64), codebook).max() < 31


def test_far_from_the_origin_rounding_does_not_decide() -> None:
    torch.manual_seed(0)
    codebook = 1000 + 0.1 * torch.randn(64, 16)
    latents = codebook[:40] + 0.001 * torch.randn(40, 16)
    assert torch.equal(vq_lookup(latents, codebook), torch.arange(40))


def test_reduced_precision_and_autocast() -> None:
    torch.manual_seed(0)
    latents, codebook = torch.randn(50, 8).bfloat16(), torch.randn(20, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vq_lookup(latents, codebook)
    assert torch.equal(found, vq_lookup_reference(latents, codebook))


@pytest.mark.parametrize("shapes", [((3, 4), (5, 6)), ((3,), (5, 3)), ((2, 3, 4), (5, 4))])
def test_shapes_that_do_not_fit(shapes) -> None:
    with pytest.raises(ValueError, match="must share D"):
        vq_lookup(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("function", [vq_lookup, nearest_codes])
def test_dtypes_and_devices_that_do_not_fit(function) -> None:
    latents, codebook = torch.zeros(3, 4), torch.zeros(5, 4)
    for arguments, message in (
        ((latents.long(), codebook), "latents must be floating, got torch.int64"),
        ((latents, codebook.bool()), "codebook must be floating, got torch.bool"),
        ((latents, codebook.to("meta")), "codebook is on meta and latents on cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_a_codebook_without_codes() -> None:
    with pytest.raises(ValueError, match="V at least 1"):
        vq_lookup(torch.zeros(3, 4), torch.zeros(0, 4))


def test_many_latents_are_searched_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    latents, codebook = torch.randn(101, 8), torch.randn(20, 8)
    whole = vq_lookup(latents, codebook)
    monkeypatch.setattr(module, "native_runs", lambda tensor: False)
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 20 * 7)
    tokens, codes = nearest_codes(latents, codebook)
    assert torch.equal(tokens, whole) and torch.equal(codes, codebook[tokens])
    assert vq_lookup(latents[:0], codebook).shape == (0,)


def test_a_cpu_settles_ties_also_when_it_need_not() -> None:
    latents, codebook = torch.zeros(3, 4), torch.ones(5, 4)
    assert vq_lookup(latents, codebook, settle=False).tolist() == [0, 0, 0]
