"""The perceptual term: its network from a library, its weights from torch.hub's folder or not at all."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from jowa.config import TokenizerConfig, TokenizerLossConfig
from jowa.errors import CheckpointError, UsageError
from jowa.tokenizer import Tokenizer, load_perceptual
from jowa.tokenizer import perceptual as room

SMALL = TokenizerConfig("local", vocab_size=32, code_dim=8, channels=12)


def refuse(sentence: str) -> None:
    raise AssertionError(f"nothing to say: {sentence}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def library() -> None:
    """Skip where the extra is not installed, or torchvision is built for another torch."""
    try:
        for name in room.PACKAGES:
            import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"the extra jowa[perceptual] is absent: {error}")


def write_random_weights() -> None:
    """VGG16 with random convolutions; the classifier, which LPIPS does not use, takes no room on disk."""
    from torchvision.models import vgg16

    with torch.device("meta"):
        network = vgg16(weights=None)
    torch.manual_seed(0)
    state = {
        name: nn.init.kaiming_normal_(torch.empty(value.shape)) if name.startswith("features") and value.ndim > 1
        else torch.zeros(1).expand(value.shape)
        for name, value in network.state_dict().items()
    }  # fmt: skip
    torch.save(state, room.weights_path())


def test_none_is_silent() -> None:
    assert load_perceptual("none", refuse) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("No module named 'torchvision'"), "it needs torchvision and torchmetrics"),
        (RuntimeError("operator torchvision::nms does not exist\nmore"), "torchvision does not work here"),
    ],
)
def test_without_working_packages_it_says_so_once_and_trains_on(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(room, "import_module", fail)
    said: list[str] = []
    assert load_perceptual("auto", said.append) is None
    assert len(said) == 1 and expected in said[0] and "\n" not in said[0]
    with pytest.raises(UsageError, match=f"asked for, but {expected}"):
        load_perceptual("lpips", refuse)


def test_without_the_weights_it_says_where_they_would_lie(library: None, hub: Path) -> None:
    said: list[str] = []
    assert load_perceptual("auto", said.append) is None
    assert len(said) == 1 and str(hub / "vgg16-397923af.pth") in said[0] and "\n" not in said[0]
    with pytest.raises(UsageError, match="VGG16's weights are not at"):
        load_perceptual("lpips", refuse)
    assert not any(hub.iterdir()), "nothing is downloaded"


def test_damaged_weights_are_one_error(library: None, hub: Path) -> None:
    room.weights_path().write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"cannot read VGG16's weights from .*: expected torchvision's file"):
        load_perceptual("auto", refuse)


@pytest.fixture(scope="module")
def distance(library: None, tmp_path_factory: pytest.TempPathFactory) -> room.PerceptualDistance:
    home = tmp_path_factory.mktemp("home")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        write_random_weights()
        found = load_perceptual("lpips", refuse)
    assert found is not None
    return found


@pytest.mark.slow
def test_the_formula(distance: room.PerceptualDistance) -> None:
    """Step by step: repeat to three channels, normalise, convolve; compare the last ReLU of each stage."""
    first, second = torch.rand(2, 1, 1, 84, 84, generator=torch.Generator().manual_seed(1)).mul(2).sub(1)
    mean, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = ((torch.cat([x] * 3, 1) - mean.view(3, 1, 1)) / scale.view(3, 1, 1) for x in (first, second))
    expected = 0.0
    for stage in range(5):
        a, b = (getattr(distance.network.net, f"slice{stage + 1}")(x) for x in (a, b))
        unit = [x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
        linear = getattr(distance.network, f"lin{stage}").model[-1].weight.flatten()
        expected += float(((unit[0] - unit[1]).pow(2) * linear[:, None, None]).sum(1).mean())
    assert distance(first, second).item() == pytest.approx(expected, rel=1e-3)
    assert expected > 0.01 and distance(first, first).item() == 0


@pytest.mark.slow
def test_it_trains_the_tokenizer_also_in_bfloat16(distance: room.PerceptualDistance) -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(SMALL, distance, TokenizerLossConfig(perceptual_weight=2.0))
    assert not any("perceptual" in name for name in (*tokenizer.state_dict(), *dict(tokenizer.named_parameters())))
    frames = torch.randint(0, 256, (2, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = tokenizer(frames).perceptual
    pixels = tokenizer.decode_unclamped(tokenizer.encode(frames))[:, None] * 2 - 1
    once = distance(frames[:, None].float() / 127.5 - 1, pixels).mean()
    assert exact.item() == pytest.approx(2 * once.item(), rel=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = tokenizer(frames).perceptual
    assert rounded.dtype == torch.float32 and rounded.item() == pytest.approx(exact.item(), rel=0.02)
    rounded.backward()
    gradient = tokenizer.decoder.pixels.weight.grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.parameters())
    assert not distance.train().network.training
