"""Sizes of the rivals' networks, and how they play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from jowa.config import PRESETS

Kind = Literal["mtbc", "mgdt", "scaled-ql"]
"""``mtbc``: multi-task behaviour cloning; ``mgdt``: multi-game decision transformer; ``scaled-ql``: convolutional
offline Q-learning."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Choice = Literal["likely", "sampled"]


@dataclass(frozen=True)
class SequenceConfig:
    """The transformer of ``mtbc`` and ``mgdt``; its blocks are the joint agent's."""

    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads a block."""
    width: int = 128
    """Embedding width."""
    context_steps: int = 2
    """Longest sequence, in steps."""
    dropout: float = 0.0
    """Dropout probability on embeddings, attention and residuals in training."""
    init: Literal["published", "scaled"] = "scaled"
    """How weights start, as for the joint agent's ``model.init``."""


@dataclass(frozen=True)
class ConvConfig:
    """The convolutional Q-network of ``scaled-ql``."""

    channels: int = 24
    """Channels of the first convolution; the later ones have twice as many."""
    blocks: int = 1
    """Residual blocks of two 3 x 3 convolutions after the two strided ones."""
    features: int = 256
    """Width of the features that the head reads."""
    q_width: int = 256
    """Hidden width of the Q head's MLP."""
    num_atoms: int = 51
    """Atoms of the value distribution (C51)."""
    v_min: float = -5.0
    """Lowest atom, in clipped reward."""
    v_max: float = 10.0
    """Highest atom, in clipped reward."""
    q_init: float | None = 0.0
    """Where every Q starts, in clipped reward, as for the joint agent's ``model.q_init``."""


@dataclass(frozen=True)
class Size:
    """The networks of one size."""

    sequence: SequenceConfig
    conv: ConvConfig | None
    """None: ``scaled-ql`` is not made at this size."""


def _published(name: str) -> Size:
    model = PRESETS[name].model
    sequence = SequenceConfig(
        model.layers, model.heads, model.width, model.context_steps, model.dropout, "published"
    )  # fmt: skip
    return Size(sequence, None)


SIZES: dict[str, Size] = {
    "S": Size(SequenceConfig(layers=2, heads=4, width=96), ConvConfig(channels=16, features=128, q_width=192)),
    "M": Size(SequenceConfig(layers=2, heads=4, width=128), ConvConfig(channels=24, features=256, q_width=256)),
    "L": Size(
        SequenceConfig(layers=4, heads=6, width=192), ConvConfig(channels=40, blocks=2, features=384, q_width=384)
    ),
    **{name: _published(name) for name in ("40M", "70M", "150M")},
}
"""Networks by name.  S, M, L: the joint agent's in :mod:`jowa.suite`, which a CPU trains within minutes to an hour; the
others have the published transformers' shapes."""


@dataclass(frozen=True)
class Playing:
    """How a rival plays unless told otherwise."""

    context: int = 1
    """Steps of memory of ``mtbc`` and ``mgdt``."""
    choice: Choice = "likely"
    """``likely``: the most likely legal action; ``sampled``: one drawn from the policy.  ``scaled-ql`` always takes the
    action of the highest value."""
    kappa: float = 10.0
    """``mgdt``: how much the return that it asks for leans to high ones: exp(kappa R / R_high)."""
