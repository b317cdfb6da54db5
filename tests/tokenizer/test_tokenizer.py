"""Frames to tokens and back: both architectures under one interface."""

from __future__ import annotations

import pytest
import torch

from jowa.config import PRESETS, TokenizerConfig
from jowa.tokenizer import Tokenizer

SMALL = {
    "published": TokenizerConfig("published", vocab_size=32, code_dim=8, channels=4, z_channels=8),
    "local": TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12),
}
both = pytest.mark.parametrize("encoder", SMALL)
PATCH = 14


def make(encoder: str, spread: float = 1.0) -> Tokenizer:
    """A small tokenizer whose codes lie as far apart as its latents, so that many are in use."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL[encoder])
    with torch.no_grad():
        latents = tokenizer.latents(frames(16, seed=9)).permute(0, 2, 3, 1).flatten(0, 2)
        tokenizer.embedding.weight.copy_(spread * latents[torch.randperm(len(latents))[:32]])
    return tokenizer


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@both
def test_one_interface(encoder: str) -> None:
    tokenizer = make(encoder)
    seen = frames(6).view(2, 3, 84, 84)
    tokens = tokenizer.encode(seen)
    assert tokens.shape == (2, 3, 36) and tokens.dtype == torch.int64 and not tokens.requires_grad
    assert tokens.min() >= 0 and tokens.max() < 32 and tokens.unique().numel() > 5
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == (2, 3, 84, 84) and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert torch.equal(decoded, tokenizer.decode_unclamped(tokens).clamp(0, 1))
    assert torch.equal(tokenizer.encode(seen[1, 2]), tokens[1, 2])


@both
def test_frames_do_not_influence_one_another(encoder: str) -> None:
    tokenizer = make(encoder)
    seen = frames(3)
    torch.testing.assert_close(tokenizer.latents(seen)[1:2], tokenizer.latents(seen[1:2]), rtol=1e-4, atol=1e-5)


@both
def test_which_pixels_a_token_sees(encoder: str) -> None:
    tokenizer = make(encoder)
    seen = frames(1).repeat(36, 1, 1)
    for patch in range(36):
        row, column = divmod(patch, 6)
        seen[patch, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] ^= 255
    before = tokenizer.latents(frames(1)).flatten(2)
    moved = (tokenizer.latents(seen).flatten(2) - before).abs().amax(1) > 1e-6
    if encoder == "local":
        # Row-major: the patch in row r and column c is token 6 r + c, and no other.
        assert torch.equal(moved, torch.eye(36, dtype=torch.bool))
        changed = tokenizer.encode(seen) != tokenizer.encode(frames(1))
        assert changed.any() and not (changed & ~moved).any()
    else:
        assert moved.all()


@both
def test_the_loss_is_the_formula(encoder: str) -> None:
    tokenizer = make(encoder)
    seen = frames(2)
    losses = tokenizer(seen)
    scaled = seen[:, None].double() / 127.5 - 1
    latents = tokenizer.latents(seen)
    codes = tokenizer.embedding(tokenizer.encode(seen)).view(2, 6, 6, 8).permute(0, 3, 1, 2)
    pixels = tokenizer.decode_unclamped(tokenizer.encode(seen))[:, None] * 2 - 1
    assert losses.reconstruction.item() == pytest.approx((scaled - pixels).abs().mean().item(), rel=1e-4)
    assert losses.commitment.item() == pytest.approx(2 * (latents - codes).pow(2).mean().item(), rel=1e-4)
    assert losses.perceptual == 0
    assert losses.total.item() == pytest.approx((losses.reconstruction + losses.commitment).item())


def test_pixel_weights_and_the_perceptual_term() -> None:
    torch.manual_seed(0)
    plain = make("local")
    seen = frames(2)
    doubled = plain(seen, torch.full((2, 84, 84), 2.0)).reconstruction
    assert doubled.item() == pytest.approx(2 * plain(seen).reconstruction.item(), rel=1e-5)

    class Half(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return torch.full((len(first),), 0.5)

    perceptual = Tokenizer(SMALL["local"], Half())  # type: ignore[arg-type]
    assert perceptual(seen).perceptual == 0.5
    assert set(perceptual.state_dict()) == set(plain.state_dict())


@both
def test_straight_through(encoder: str) -> None:
    """The encoder receives the decoder's gradient, unchanged by the lookup; the codebook does not."""
    tokenizer = make(encoder)
    grabbed = {}
    outer = tokenizer._decode_codes

    def watched(codes: torch.Tensor) -> torch.Tensor:
        codes.retain_grad()
        grabbed["codes"] = codes
        return outer(codes)

    tokenizer._decode_codes = watched  # type: ignore[method-assign]
    inner = tokenizer.latents

    def kept(seen: torch.Tensor) -> torch.Tensor:
        grabbed["latents"] = inner(seen)
        grabbed["latents"].retain_grad()
        return grabbed["latents"]

    tokenizer.latents = kept  # type: ignore[method-assign]
    tokenizer(frames(2)).reconstruction.backward()
    assert grabbed["codes"].grad.abs().sum() > 0
    torch.testing.assert_close(grabbed["latents"].grad, grabbed["codes"].grad)
    assert not tokenizer.embedding.weight.grad.any()


def test_commitment_pulls_codes_and_latents_together() -> None:
    tokenizer = make("local", spread=0.9)
    tokenizer(frames(2)).commitment.backward()
    used = torch.bincount(tokenizer.encode(frames(2)).flatten(), minlength=32) > 0
    moved = tokenizer.embedding.weight.grad.abs().sum(1) > 0
    assert torch.equal(used, moved)
    assert tokenizer.encoder.patches.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tokenizer.decoder.parameters())


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(1, 84, 84), torch.zeros(1, 80, 84, dtype=torch.uint8), torch.zeros(1, 1, 84, 84, dtype=torch.uint8)],
)
def test_only_uint8_frames_of_84_by_84(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 \(B, 84, 84\), got"):
        make("local")(bad)


def test_dead_codes_are_revived_on_distinct_latents() -> None:
    tokenizer = make("local")
    with torch.no_grad():
        tokenizer.embedding.weight[5:] = 1e6  # out of reach
    before = tokenizer.embedding.weight.clone()
    seen = frames(4)
    used = tokenizer.encode(seen).unique()
    revived = tokenizer.revive_dead_codes(seen, torch.Generator().manual_seed(0))
    assert revived == 32 - len(used)
    assert torch.equal(tokenizer.embedding.weight[used], before[used]), "codes in use stay"
    assert tokenizer.embedding.weight.unique(dim=0).shape[0] == 32, "no two codes in one place"
    latents = tokenizer.latents(seen).permute(0, 2, 3, 1).reshape(-1, 8)
    dead = [code for code in range(32) if code not in used.tolist()]
    assert (tokenizer.embedding.weight[dead][:, None] == latents).all(2).any(1).all(), "each on a latent"
    assert tokenizer.encode(seen).unique().numel() >= 30, "now in use; a new code may take an old one's last latents"


def test_codes_are_revived_where_the_picture_lacks_one() -> None:
    tokenizer = make("local")
    seen = torch.zeros(8, 84, 84, dtype=torch.uint8)
    background = tokenizer.latents(seen)[0, :, 0, 0]
    with torch.no_grad():
        tokenizer.embedding.weight[:] = 1e6  # out of reach
        tokenizer.embedding.weight[3] = background
    seen[0, 2:9, 3] = 255  # the only patch of 288 that is not background
    latents = tokenizer.latents(seen)
    assert tokenizer.revive_dead_codes(seen, torch.Generator().manual_seed(0)) >= 1
    token = tokenizer.encode(seen)[0, 0]
    assert torch.allclose(tokenizer.embedding.weight[token], latents[0, :, 0, 0], atol=1e-5)
    assert token != 3


def test_more_dead_codes_than_latents() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig("local", vocab_size=100, code_dim=8, channels=12))
    revived = tokenizer.revive_dead_codes(frames(1), torch.Generator().manual_seed(0))
    assert 0 < revived <= 36


@both
def test_fingerprint_names_what_decides_tokens(encoder: str) -> None:
    tokenizer = make(encoder)
    first = tokenizer.fingerprint()
    assert first == make(encoder).fingerprint()
    with torch.no_grad():
        next(tokenizer.decoder.parameters()).add_(1)
    assert tokenizer.fingerprint() == first
    with torch.no_grad():
        tokenizer.embedding.weight[0, 0] += 1
    second = tokenizer.fingerprint()
    with torch.no_grad():
        next(tokenizer.encoder.parameters()).add_(1)
    assert len({first, second, tokenizer.fingerprint()}) == 3


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(PRESETS["150M"].tokenizer)
    assert tokenizer.embedding.weight.abs().max() <= 1 / 2048
    weight = tokenizer.encoder.down[0].block[0].conv1.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(64), rtol=0, atol=1e-4)  # orthogonal, ReLU gain sqrt 2
    assert all(
        p.abs().max() == 0 for name, p in tokenizer.named_parameters() if "conv" in name and name.endswith("bias")
    )


@both
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_sequence_encodes_as_its_frames_do(encoder: str, count: int) -> None:
    """Some patches change from frame to frame, some come back, most stay."""
    tokenizer = make(encoder)
    sequence = frames(1, seed=3).repeat(count, 1, 1)
    for step in range(1, count):
        row, column = PATCH * (step % 3), PATCH * (step % 2)
        sequence[step:, row : row + PATCH, column : column + PATCH] = frames(1, seed=step % 4)[0, :PATCH, :PATCH]
    tokens = tokenizer.encode_sequence(sequence)
    assert tokens.shape == (count, 36)
    assert torch.equal(tokens, tokenizer.encode(sequence))


def test_a_sequence_computes_only_the_patches_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make("local")
    computed = []
    encode = tokenizer.encoder.encode_patches

    def spy(patches: torch.Tensor) -> torch.Tensor:
        computed.append(len(patches))
        return encode(patches)

    monkeypatch.setattr(tokenizer.encoder, "encode_patches", spy)
    sequence = frames(1).repeat(5, 1, 1)
    sequence[3:, :PATCH, :PATCH] = 0
    tokenizer.encode_sequence(sequence)
    assert computed == [36 + 1]


def test_the_published_convolutions_run_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first convolution to the last, and with the values that the usual layout gives."""
    tokenizer = make("published")
    layouts = []
    for module in tokenizer.modules():
        if isinstance(module, torch.nn.Conv2d) and min(module.in_channels, module.kernel_size[0]) > 1:
            module.register_forward_hook(lambda _, given, out: layouts.append(given[0].stride(1)))
    seen = frames(3)
    fast = tokenizer(seen)
    assert len(layouts) > 30 and set(layouts) == {1}
    layouts.clear()
    before = {name: value.stride() for name, value in tokenizer.state_dict().items()}
    monkeypatch.setattr("jowa.tokenizer.published._channels_last", lambda x: x)
    plain = tokenizer(seen)
    torch.testing.assert_close(fast.total, plain.total, rtol=1e-5, atol=1e-6)
    assert set(layouts) != {1}, "it is not so by itself"
    assert before == {name: value.contiguous().stride() for name, value in tokenizer.state_dict().items()}
