"""The critic's losses and their gradient in native code against the definition by autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jowa.kernels import c51_loss_native, native
from jowa.kernels.c51_loss import c51_loss, c51_loss_reference

if native.native is None:
    pytest.skip("the native core was not built", allow_module_level=True)


def draw(members: int, steps: int, actions: int, atoms: int, scale: float = 2.0) -> list[Tensor]:
    """logits, actions, successor, rewards (some beyond the atoms), discounts (some 0)."""
    generator = torch.Generator().manual_seed(members * 1000 + steps)
    return [
        torch.randn(members, steps, actions, atoms, generator=generator) * scale,
        torch.randint(actions, (steps,), generator=generator),
        torch.randn(steps, atoms, generator=generator).softmax(-1),
        torch.randn(steps, generator=generator) * 20,
        torch.rand(steps, generator=generator) * (torch.arange(steps) % 3 > 0),
    ]


def both(function, arguments: list[Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    leaf = arguments[0].detach().clone().requires_grad_()
    found = torch.stack(function(leaf, *arguments[1:], -10.0, 30.0))
    return found.detach(), torch.autograd.grad((found * weights).sum(), leaf)[0]


SIZES = [(1, 1, 2, 2), (2, 24, 18, 51), (3, 5, 18, 51), (1, 3, 7, 33), (4, 9, 1, 64), (1, 36, 16, 16), (2, 37, 17, 8)]


@pytest.mark.parametrize("chosen", ["v4", "v3", "portable"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_autograds(monkeypatch: pytest.MonkeyPatch, chosen: str, sizes) -> None:
    monkeypatch.setattr(c51_loss_native, "_INSTRUCTIONS", chosen)
    arguments = draw(*sizes)
    weights = torch.randn(2, sizes[1], generator=torch.Generator().manual_seed(1))
    try:
        found = both(c51_loss, arguments, weights)
    except ValueError as error:
        pytest.skip(str(error))
    expected = both(c51_loss_reference, arguments, weights)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_pytorch_finds_the_operation_sound() -> None:
    logits, *others = draw(2, 5, 3, 7)
    torch.library.opcheck(torch.ops.jowa.c51_loss.default, (logits.requires_grad_(), *others, -10.0, 30.0))


def test_it_compiles_whole() -> None:
    arguments, weights = draw(2, 6, 4, 11), torch.ones(2, 6)

    def function(logits: Tensor, *others: object) -> tuple[Tensor, Tensor]:
        td, gap = torch.ops.jowa.c51_loss(logits * 2, *others)
        return td + 1, gap

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(both(compiled, arguments, weights), both(function, arguments, weights))


def test_neither_the_batch_nor_the_threads_show() -> None:
    arguments, weights = draw(2, 200, 18, 51), torch.ones(2, 200)
    whole = both(c51_loss, arguments, weights)
    before = native.native.num_threads(), torch.get_num_threads()
    try:
        for count in (1, 3):
            native.native.set_num_threads(count)
            torch.set_num_threads(count)
            part = [arguments[0][:, 7:90], *(tensor[7:90] for tensor in arguments[1:])]
            found = both(c51_loss, part, weights[:, 7:90])
            assert torch.equal(found[0], whole[0][:, 7:90]) and torch.equal(found[1], whole[1][:, 7:90])
    finally:
        native.native.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def test_strides_and_dtypes() -> None:
    arguments, weights = draw(2, 6, 18, 51), torch.ones(2, 6)
    expected = both(c51_loss_reference, arguments, weights)
    strided = [arguments[0].transpose(0, 2).contiguous().transpose(0, 2), *arguments[1:3],
               arguments[3].double(), arguments[4].repeat_interleave(2)[::2]]  # fmt: skip
    torch.testing.assert_close(both(c51_loss, strided, weights), expected, rtol=1e-4, atol=1e-4)
    half = both(c51_loss, [arguments[0].bfloat16(), *arguments[1:]], weights)
    assert half[0].dtype == torch.float32 and half[1].dtype == torch.bfloat16
    torch.testing.assert_close(half[1].float(), expected[1], rtol=5e-2, atol=5e-2)


def test_large_logits_and_certain_ones() -> None:
    """Up to 10^4, and atoms that cannot be; a distribution of nothing but -inf is NaN, as PyTorch's softmax is."""
    arguments, weights = draw(2, 8, 18, 51, scale=3e3), torch.ones(2, 8)
    arguments[0][0, 3, :, ::2] = -torch.inf
    found, expected = both(c51_loss, arguments, weights), both(c51_loss_reference, arguments, weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    arguments[0][1, 5, 2] = -torch.inf
    td, gap = c51_loss(*arguments, -10.0, 30.0)
    assert gap[5].isnan() and gap[torch.arange(8) != 5].isfinite().all() and td[torch.arange(8) != 5].isfinite().all()
    arguments[3][0] = torch.nan
    assert c51_loss(*arguments, -10.0, 30.0)[0][0].isnan()


@pytest.mark.parametrize("action", [-1, 18, 2**40])
def test_an_action_that_there_is_not_is_refused(action: int) -> None:
    arguments = draw(2, 6, 18, 51)
    arguments[1][4] = action
    with pytest.raises(ValueError, match=rf"actions must be in \[0, 18\), got {action}"):
        c51_loss(*arguments, -10.0, 30.0)


def test_nothing_is_nothing() -> None:
    found = both(c51_loss, draw(2, 0, 18, 51), torch.ones(2, 0))
    assert found[0].shape == (2, 0) and found[1].shape == (2, 0, 18, 51)
