"""Every setting of the networks and their losses as frozen dataclasses; the presets tiny, 40M, 70M, 150M and 400M.

Free of torch, so that a command knows its options before anything heavy is imported.

The docstring under a field is its documentation: ``--help`` prints it.  Sizes of the published
presets: arXiv 2410.00564, tables of the appendix.  Two are this project's own: a CPU trains ``tiny`` in minutes;
``400M`` goes beyond the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jowa.errors import CheckpointError

FRAME_SIZE = 84
"""Pixels along each side of a frame."""
TOKENS_PER_FRAME = 36
"""A frame is a 6 x 6 grid of tokens, row-major."""
TOKENS_PER_STEP = TOKENS_PER_FRAME + 1
"""The tokens of a frame, then its action."""


PlannerName = Literal["none", "beam", "mcts"]
DraftName = Literal["off", "copy", "last-change", "head"]


@dataclass(frozen=True)
class TokenizerConfig:
    """The VQ-VAE between frames and tokens."""

    encoder: Literal["published", "local", "patches"] = "published"
    """Architecture: ``published`` (needed for released weights; every token sees the whole frame), ``local`` (a token
    sees only its own 14 x 14 patch: trains faster, changes fewer tokens a step) or ``patches`` (no network: the codes
    are clusters of such patches, found before the first step; ``code_dim`` is their 196 pixels)."""
    vocab_size: int = 2048
    """Vectors in the codebook."""
    code_dim: int = 512
    """Width of a codebook vector."""
    channels: int = 64
    """Width of the convolutions (published) or of the position-wise layers (local); no matter for ``patches``."""
    z_channels: int = 512
    """Channels between the encoder and the 1 x 1 convolution to the codebook (published only)."""


@dataclass(frozen=True)
class ModelConfig:
    """The joint world-action transformer and its heads."""

    layers: int = 12
    """Transformer blocks."""
    heads: int = 12
    """Attention heads a block."""
    width: int = 768
    """Embedding width."""
    q_width: int = 1792
    """Hidden width of the Q head's MLPs."""
    q_ensemble: int = 3
    """MLPs in the Q head."""
    vocab_size: int = 2048
    """Frame tokens; must equal the tokenizer's codebook size."""
    context_steps: int = 8
    """Longest sequence, in steps of 37 tokens."""
    num_tasks: int = 60
    """Rows of the task embedding."""
    num_actions: int = 18
    """Actions: ALE's full set."""
    num_atoms: int = 51
    """Atoms of the value distribution (C51); 1: the head says the value itself, for ``objective.critic mse``."""
    v_min: float = -10.0
    """Lowest atom, in clipped reward."""
    v_max: float = 30.0
    """Highest atom, in clipped reward."""
    dropout: float = 0.1
    """Dropout probability on embeddings, attention and residuals in training."""
    q_dropout: float = 0.01
    """Dropout probability after the Q head's first linear layer in training."""
    task_embedding: bool = True
    """Whether the task id is embedded (off: the paper's ablation)."""
    init: Literal["published", "scaled"] = "published"
    """How weights start.  ``published``: normal 0.02 for Linear and Embedding.  ``scaled``: Linear by 1 / sqrt(inputs),
    residual outputs also by 1 / sqrt(2 layers), Embedding 0.5: a narrow model leaves its plateaus far sooner."""
    q_init: float | None = None
    """Where every Q starts, in clipped reward: the last bias of the Q head makes the initial distribution the
    widest one with this mean.  None: as published, uniform over the atoms, so Q starts at their mean."""


@dataclass(frozen=True)
class TokenizerLossConfig:
    """The tokenizer's loss beside the absolute error and the commitment; the defaults are the published ones."""

    perceptual: Literal["auto", "lpips", "none"] = "auto"
    """The perceptual term: ``auto`` if VGG16's weights are on disk (torch.hub's folder; nothing is downloaded),
    ``lpips`` insists on it, ``none`` leaves it out."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual term, 1 as published."""
    square_weight: float = 0.0
    """Weight of the mean squared error of pixels in [-1, 1], which needs no pretrained weights; 0 as published.  It
    makes a lost ball dear: an error of 1 costs it as much as 100 errors of 0.1."""
    codebook: Literal["gradient", "ema"] = "gradient"
    """How codes follow the latents: ``gradient`` (a loss term, as published) or ``ema`` (moving averages).
    An agent keeps its codes without their averages: a run that starts from one, and trains its tokenizer on, is refused
    with ``ema``."""
    ema_decay: float = 0.99
    """Share of a code's moving average that a step keeps (``ema`` only)."""


WEIGHT_FREE = TokenizerLossConfig(perceptual="none", square_weight=2.0)
"""What keeps most of what is small and moves, without pretrained weights (docs/tokenizer.md); goes with weight on
moving pixels and revival of unused codes."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights and switches of the joint loss (arXiv 2410.00564)."""

    gamma: float = 0.99
    """Discount a step."""
    critic: Literal["c51", "mse"] = "c51"
    """``c51``: the Q head gives distributions, trained by cross-entropy.  ``mse``: it gives one number an action,
    trained by squared error (the paper's ablation; needs ``model.num_atoms`` 1)."""
    ensemble: Literal["mean", "rem"] = "mean"
    """``mean``: the ensemble counts as its mean.  ``rem``: as a random convex combination, drawn for each microbatch
    and the same for Q and its target (random ensemble mixture, Agarwal et al. 2020: the paper's ablation)."""
    conservative: Literal["cql", "none", "combo"] = "cql"
    """``cql``: push down Q of all actions, pull up that of the batch's.  ``none``: leave that out.  ``combo``: pull up
    on recorded steps alone, push down on imagined ones too (Yu et al. 2021; needs ``stage2.imagined``)."""
    cql_weight: float = 0.1
    """Weight of the conservative term beside the TD loss; 0 leaves it out."""
    world_weight: float = 0.1
    """Weight of the three world losses beside the TD loss in stage 2 (the paper fine-tunes with 0.5)."""
    observed_weight: float = 0.0
    """Share of the observed return in the critic's target, beside what the target head expects of the next state; 0 as
    published.  Values then rest on what happened, not on guesses about guesses: they are right sooner, and those of
    the data's play.  A segment's last step, whose successor the critic does not see, learns from the return alone."""
    detach_q: bool = False
    """Stop the Q gradient at the backbone: the paper's ablation of joint optimisation."""
    action_noise: float = 0.0
    """Share of a stage 2 batch (``Batch.noisy``) whose remembered actions are replaced by random legal ones, 0 as
    published.  Above 0 the critic trains on those segments alone and the world losses on the others: a critic that sees
    what was done a step ago learns to repeat it (causal confusion, de Haan et al. 2019) long before it reads the
    frame."""


@dataclass(frozen=True)
class Preset:
    """The two networks of one size."""

    tokenizer: TokenizerConfig
    model: ModelConfig


LOCAL_TOKENIZER = TokenizerConfig(encoder="local", vocab_size=512, code_dim=64, channels=192)
"""The small network that measurements of tokenizers compare with."""

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        TokenizerConfig(encoder="patches", vocab_size=1024, code_dim=196),
        ModelConfig(
            layers=2,
            heads=4,
            width=128,
            q_width=256,
            q_ensemble=2,
            vocab_size=1024,
            context_steps=2,
            v_min=-5.0,
            v_max=10.0,
            dropout=0.0,
            init="scaled",
            q_init=0.0,
        ),
    ),
    "40M": Preset(TokenizerConfig(), ModelConfig(layers=4, heads=8, width=512, q_width=768, q_ensemble=1)),
    "70M": Preset(TokenizerConfig(), ModelConfig(layers=6, heads=12, width=768, q_width=1792, q_ensemble=3)),
    "150M": Preset(TokenizerConfig(), ModelConfig(layers=12, heads=12, width=768, q_width=1792, q_ensemble=3)),
    "400M": Preset(TokenizerConfig(), ModelConfig(layers=24, heads=16, width=1024, q_width=3072, q_ensemble=3)),
}


ConfigType = TypeVar("ConfigType")


def config_from_dict(cls: type[ConfigType], values: Mapping[str, Any], where: str) -> ConfigType:
    """Build a flat config dataclass from a mapping read from ``where``.

    Raises :class:`CheckpointError` for an unknown key or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where}: {cls.__name__} is {values!r}, expected its keys and values")
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    surplus = sorted(set(values) - set(known))
    if surplus:
        raise CheckpointError(
            f"{where}: unknown key {surplus[0]!r} in {cls.__name__}; known keys: {', '.join(known)}. "
            "Was it written by a newer version?"
        )
    hints = get_type_hints(cls)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            if get_origin(hints[name]) is Literal:
                wanted = " or ".join(map(repr, get_args(hints[name])))
            raise CheckpointError(f"{where}: {name} is {value!r}, expected {wanted}")
    return cls(**values)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON suits a field of type ``hint``: bool, int, float, str, Literal, or one or None."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_args(hint):
        return any(_fits(value, one) for one in get_args(hint))
    if isinstance(value, bool) and hint is not bool:
        return False
    return isinstance(value, (int, float) if hint is float else hint)
