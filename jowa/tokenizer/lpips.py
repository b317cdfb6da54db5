"""LPIPS (Zhang et al. 2018): the perceptual distance on VGG16 features, for frames in one channel.

The weights are not ours to ship: :func:`LPIPS.load` reads torchvision's VGG16 state dict and the
linear weights of the lpips package from files that the user names.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jowa.errors import CheckpointError

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of VGG16's convolutions; the features after each stage's last ReLU are compared."""
MEAN = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """float (B, 1, h, w) twice, in [-1, 1], to the distance float32 (B,).  Frozen."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for index, stage in enumerate(STAGES):
            if index:
                layers.append(nn.MaxPool2d(2))
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(nn.Parameter(torch.ones(stage[-1])) for stage in STAGES)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, vgg16: Path, linear: Path) -> LPIPS:
        """Read ``vgg16`` (torchvision's state dict) and ``linear`` (lpips' ``vgg.pth``).

        Raises :class:`CheckpointError` when a file lacks the expected entries.
        """
        network = cls()
        try:
            features = torch.load(vgg16, map_location="cpu", weights_only=True)
            weights = torch.load(linear, map_location="cpu", weights_only=True)
            network.features.load_state_dict(
                {name.removeprefix("features."): v for name, v in features.items() if name.startswith("features.")}
            )
            for index, parameter in enumerate(network.linear):
                parameter.copy_(weights[f"lin{index}.model.1.weight"].flatten())
        except Exception as error:  # what a damaged pickle raises depends on which byte is damaged
            raise CheckpointError(
                f"cannot read LPIPS weights from {vgg16} and {linear} ({error}): expected torchvision's VGG16 "
                "state dict and lpips' vgg.pth; leave both paths empty to train without the perceptual term"
            ) from error
        return network

    def _stages(self, images: Tensor) -> list[Tensor]:
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.scale
        outputs = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                outputs.append(x)
            x = layer(x)
        return [*outputs, x]

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        total = first.new_zeros(len(first), dtype=torch.float32)
        for weight, a, b in zip(self.linear, self._stages(first), self._stages(second), strict=True):
            difference = (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).pow(2)
            total = total + (difference * weight[:, None, None]).sum(1).mean((1, 2)).float()
        return total
