"""The native nearest-code search against brute force in float64, with every set of instructions at hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jowa.kernels import native
from jowa.kernels.vq_lookup import nearest_codes, vq_lookup, vq_lookup_reference
from jowa.kernels.vq_lookup_native import search

if native.native is None:
    pytest.skip("the native core was not built", allow_module_level=True)


def instructions() -> list[str]:
    """Those that this processor runs."""
    found, one = [], torch.ones(1, 1)
    for name in ("v4", "v3", "portable"):
        try:
            search(one, one, False, name)
        except ValueError:
            continue
        found.append(name)
    return found


def draw(count: int, codes: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator), torch.randn(codes, width, generator=generator)


@pytest.mark.parametrize("chosen", instructions())
@pytest.mark.parametrize(
    ("count", "codes", "width"),
    [(1, 1, 1), (1, 31, 5), (36, 32, 64), (37, 33, 3), (95, 65, 16), (97, 512, 17), (296, 100, 33), (900, 70, 1)],
)
def test_every_set_of_instructions_finds_the_nearest(chosen: str, count: int, codes: int, width: int) -> None:
    latents, codebook = draw(count, codes, width)
    tokens, vectors, left = search(latents, codebook, True, chosen)
    assert len(left) == 0
    assert torch.equal(tokens, vq_lookup_reference(latents, codebook))
    assert vectors is not None and torch.equal(vectors, codebook[tokens])
    without, nothing, _ = search(latents, codebook, False, chosen)
    assert torch.equal(without, tokens) and nothing is None


@pytest.mark.parametrize("chosen", instructions())
def test_ties_of_equal_codes_go_to_the_lowest_index(chosen: str) -> None:
    latents, codebook = draw(200, 31, 64)
    for repeated in (codebook.repeat(17, 1), codebook[:1].repeat(300, 1), codebook.repeat_interleave(20, 0)):
        tokens, _, left = search(latents, repeated, False, chosen)
        assert len(left) == 0 and torch.equal(tokens, vq_lookup_reference(latents, repeated))


def test_equal_distances_of_different_codes_are_the_oracles() -> None:
    """Few levels make exact ties common; 0.1 is not exact, so float64 rounds them apart in an order of its own."""
    generator = torch.Generator().manual_seed(3)
    left = 0
    for scale in (1.0, 0.1, 1e-3):
        latents = torch.randint(4, (300, 40), generator=generator) * scale
        codebook = torch.randint(4, (500, 40), generator=generator) * scale
        left += len(search(latents, codebook, False)[2])
        tokens, codes = nearest_codes(latents, codebook)
        assert torch.equal(tokens, vq_lookup_reference(latents, codebook)) and torch.equal(codes, codebook[tokens])
    assert left > 10, "some had to be settled by torch"


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e-10, 1e10, 1e18, 1e30])
def test_magnitudes(scale: float) -> None:
    latents, codebook = (tensor * scale for tensor in draw(50, 80, 24))
    assert torch.equal(vq_lookup(latents, codebook), vq_lookup_reference(latents, codebook))


def test_far_from_the_origin_and_close_together() -> None:
    latents, codebook = draw(50, 300, 24)
    for far, apart in ((1000.0, 0.1), (1e6, 1.0), (0.0, 2.0**-11)):
        near, codes = far + apart * latents, far + apart * codebook
        assert torch.equal(vq_lookup(near, codes), vq_lookup_reference(near, codes))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("of", ["latent", "code"])
def test_numbers_that_are_none_are_the_oracles(value: float, of: str) -> None:
    latents, codebook = draw(40, 70, 12)
    (latents if of == "latent" else codebook)[5, 3] = value
    tokens, codes = nearest_codes(latents, codebook)
    assert torch.equal(tokens, vq_lookup_reference(latents, codebook))
    torch.testing.assert_close(codes, codebook[tokens], rtol=0, atol=0, equal_nan=True)


def test_neither_the_batch_nor_the_threads_show() -> None:
    latents, codebook = draw(1700, 300, 32)
    codebook[150:] = codebook[:150] + 1e-6
    whole = vq_lookup(latents, codebook)
    before = native.native.num_threads(), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            native.native.set_num_threads(count)
            torch.set_num_threads(count)
            for first, last in ((0, 1), (3, 40), (5, 700), (0, 1700)):
                assert torch.equal(vq_lookup(latents[first:last], codebook), whole[first:last])
    finally:
        native.native.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def test_strides_and_dtypes() -> None:
    latents, codebook = draw(40, 50, 16)
    wide = torch.full((40, 33), torch.nan)
    wide[:, 1::2] = latents
    assert torch.equal(vq_lookup(wide[:, 1::2], codebook), vq_lookup(latents, codebook))
    tokens, codes = nearest_codes(latents.t().contiguous().t().half(), codebook.bfloat16())
    assert torch.equal(tokens, vq_lookup_reference(latents.half(), codebook.bfloat16()))
    assert codes.dtype == torch.bfloat16 and torch.equal(codes, codebook.bfloat16()[tokens])


def test_nothing_is_nothing() -> None:
    tokens, codes = nearest_codes(torch.zeros(0, 8), torch.zeros(3, 8))
    assert tokens.shape == (0,) and codes.shape == (0, 8)
    assert vq_lookup(torch.zeros(4, 0), torch.zeros(3, 0)).tolist() == [0] * 4


def test_unknown_instructions_are_refused() -> None:
    with pytest.raises(ValueError, match="no instructions called z80"):
        search(torch.ones(1, 1), torch.ones(1, 1), False, "z80")
