"""The perceptual term: LPIPS (Zhang et al. 2018) on VGG16 features, from torchmetrics, if its weights are on disk.

torchmetrics brings the linear weights.  VGG16's are not ours to ship and are not downloaded in training: they are read
from torch.hub's folder, where torchvision keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from jowa.errors import CheckpointError, UsageError

PACKAGES = ("torchvision", "torchmetrics")
FETCH = "python -c \"from torchvision.models import vgg16; vgg16(weights='DEFAULT')\""
"""What puts the weights there, on a machine with a network."""


class PerceptualDistance(nn.Module):
    """float (B, 1, h, w) twice, about [-1, 1], to the distance float32 (B,).  Frozen, and always in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, target: Tensor, pixels: Tensor) -> Tensor:
        # The network itself and not the metric around it, which refuses a decoder's -1.01 and waits for the GPU to see.
        distances: Tensor = self.network(target.expand(-1, 3, -1, -1), pixels.expand(-1, 3, -1, -1))
        return distances.flatten().float()

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode."""
        return super().train(False)


def weights_path() -> Path:
    """Where torchvision keeps VGG16's weights, whether they are there or not; needs torchvision."""
    from torchvision.models import VGG16_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG16_Weights.DEFAULT.url).name


def load_perceptual(choice: Literal["auto", "lpips", "none"], say: Callable[[str], None]) -> PerceptualDistance | None:
    """The network of the perceptual term, on the CPU, or None to train without.

    ``auto``: None when a package or the weights are missing, which ``say`` is told in one sentence (give several
    processes one that speaks).  ``lpips``: :class:`UsageError` then.  Raises :class:`CheckpointError` for weights that
    cannot be read.
    """
    if choice == "none":
        return None
    missing = _missing()
    if missing and choice == "lpips":
        raise UsageError(f"the perceptual term was asked for, but {missing}; or train without it (none, or auto)")
    if missing:
        say(f"training the tokenizer without the perceptual term: {missing}")
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    path = weights_path()
    try:
        metric = LearnedPerceptualImagePatchSimilarity(net_type="vgg")
    except Exception as error:  # what a damaged pickle raises depends on which byte is damaged
        raise CheckpointError(
            f"cannot read VGG16's weights from {path} ({str(error).splitlines()[0]}): expected torchvision's file; "
            f"delete it and fetch it anew: {FETCH}"
        ) from error
    return PerceptualDistance(getattr(metric, metric.feature_network))


def _missing() -> str:
    """What the perceptual term lacks and how to get it; empty when it lacks nothing."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError:
            return f"it needs {' and '.join(PACKAGES)} (pip install {' '.join(PACKAGES)})"
        except Exception as error:  # torchvision for CUDA beside torch without: an operator that does not exist
            first = str(error).splitlines()[0]
            return f"{name} does not work here ({first}): install its build for torch {torch.__version__}"
    path = weights_path()
    return "" if path.is_file() else f"VGG16's weights are not at {path} (on a machine with a network: {FETCH})"
