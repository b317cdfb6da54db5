"""The perceptual distance: its formula on weights small enough to follow by hand, and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from jowa.errors import CheckpointError
from jowa.tokenizer import LPIPS
from jowa.tokenizer import lpips as room

NARROW = ((2, 3), (3, 2), (2, 2, 2), (2, 2, 2), (3, 2, 2))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> LPIPS:
    monkeypatch.setattr(room, "STAGES", NARROW)
    torch.manual_seed(0)
    network = LPIPS()
    with torch.no_grad():
        for parameter in network.linear:
            parameter.uniform_(0, 1)
    return network


def test_equal_images_have_distance_zero_and_others_do_not(narrow: LPIPS) -> None:
    image, other = torch.rand(2, 2, 1, 84, 84).mul(2).sub(1)
    assert torch.equal(narrow(image, image), torch.zeros(2))
    assert (narrow(image, other) > 0).all()
    torch.testing.assert_close(narrow(image, other), narrow(other, image))


def test_the_formula(narrow: LPIPS) -> None:
    """Step by step: repeat to three channels, normalise, convolve; compare the last ReLU of each stage."""
    first, second = torch.rand(2, 1, 1, 32, 32).mul(2).sub(1)
    mean, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    convolutions = iter([layer for layer in narrow.features if isinstance(layer, nn.Conv2d)])
    features = [(torch.cat([x] * 3, 1) - mean.view(3, 1, 1)) / scale.view(3, 1, 1) for x in (first, second)]
    distance = 0.0
    for stage, widths in enumerate(NARROW):
        if stage:
            features = [torch.nn.functional.max_pool2d(x, 2) for x in features]
        for _ in widths:
            layer = next(convolutions)
            features = [torch.relu(nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)) for x in features]
        a, b = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in features)
        for row in range(a.shape[2]):
            for column in range(a.shape[3]):
                gap = (a[0, :, row, column] - b[0, :, row, column]) ** 2
                distance += float(gap @ narrow.linear[stage]) / (a.shape[2] * a.shape[3])
    assert narrow(first, second).item() == pytest.approx(distance, rel=1e-4)


def test_frozen_but_it_passes_the_gradient_on(narrow: LPIPS) -> None:
    image = torch.rand(1, 1, 32, 32, requires_grad=True)
    narrow(torch.zeros(1, 1, 32, 32), image).sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in narrow.parameters())


def files(network: LPIPS, folder: Path) -> tuple[Path, Path]:
    """The two files that ``network`` could have come from."""
    features = {f"features.{name}": value for name, value in network.features.state_dict().items()}
    torch.save({**features, "classifier.0.weight": torch.zeros(2)}, folder / "vgg16.pth")
    linear = {f"lin{i}.model.1.weight": p.data.view(1, -1, 1, 1) for i, p in enumerate(network.linear)}
    torch.save(linear, folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


def test_loading(narrow: LPIPS, tmp_path: Path) -> None:
    loaded = LPIPS.load(*files(narrow, tmp_path))
    first, second = torch.rand(2, 1, 1, 32, 32)
    assert torch.equal(loaded(first, second), narrow(first, second))


def test_the_layers_stand_where_torchvision_has_them() -> None:
    with torch.device("meta"):
        convolutions = [i for i, layer in enumerate(LPIPS().features) if isinstance(layer, nn.Conv2d)]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_unusable_files_are_one_error(narrow: LPIPS, tmp_path: Path) -> None:
    vgg16, linear = files(narrow, tmp_path)
    bad = tmp_path / "bad.pth"
    for write in (
        lambda: bad.write_bytes(b"not a checkpoint"),
        lambda: bad.write_bytes(b""),
        lambda: torch.save([1, 2], bad),
        lambda: torch.save({"features.0.weight": torch.zeros(1)}, bad),
        lambda: bad.unlink(),
    ):
        write()
        for pair in ((bad, linear), (vgg16, bad)):
            with pytest.raises(CheckpointError, match="cannot read LPIPS weights from"):
                LPIPS.load(*pair)
