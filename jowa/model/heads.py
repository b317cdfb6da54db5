"""The four heads: next frame token, reward sign, end of the episode, and the distributional Q ensemble."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jowa.config import ModelConfig

REWARD_CLASSES = 3
"""Reward signs -1, 0, +1, in that order."""
END_CLASSES = 2


class PredictionHead(nn.Sequential):
    """Linear-ReLU-Linear, float (..., D) to logits (..., outputs)."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__(nn.Linear(config.width, config.width), nn.ReLU(), nn.Linear(config.width, outputs))


class EnsembleLinear(nn.Module):
    """E linear layers side by side: float (E, N, in) to (E, N, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))


class EnsembleLayerNorm(nn.Module):
    """E layer norms side by side over the last axis of float (E, N, width)."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = functional.layer_norm(x, x.shape[-1:])
        return normed * self.weight[:, None] + self.bias[:, None]


class QHead(nn.Module):
    """An ensemble of E MLPs: hidden float (..., D) to logits float (E, ..., 18, 51).

    With one atom (the paper's ablation of C51) the one output is Q itself.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        members, hidden = config.q_ensemble, config.q_width
        self.members, self.dropout = members, config.q_dropout
        self.outputs = (config.num_actions, config.num_atoms)
        self.linear1 = EnsembleLinear(members, config.width, hidden)
        self.norm1 = EnsembleLayerNorm(members, hidden)
        self.linear2 = EnsembleLinear(members, hidden, hidden)
        self.norm2 = EnsembleLayerNorm(members, hidden)
        self.linear3 = EnsembleLinear(members, hidden, config.num_actions * config.num_atoms)
        if config.q_init is not None:
            self._start_at(config.q_init, config)

    def _start_at(self, q_init: float, config: ModelConfig) -> None:
        """Set the last bias so that every initial distribution is the widest one whose mean is ``q_init``.

        A narrow one would do for the value, but its far atoms have no gradient: Q could hardly move.
        """
        if config.num_atoms == 1:
            nn.init.constant_(self.linear3.bias, q_init)
            return
        atoms = torch.linspace(config.v_min, config.v_max, config.num_atoms, dtype=torch.float64, device="cpu")
        with torch.no_grad():
            logits = _tilt_to_mean(atoms, q_init) * atoms
            self.linear3.bias.copy_(logits.repeat(config.num_actions).expand_as(self.linear3.bias))

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.reshape(1, -1, hidden.shape[-1]).expand(self.members, -1, -1)
        x = functional.dropout(self.linear1(x), self.dropout, self.training)
        x = functional.mish(self.norm1(x))
        x = functional.mish(self.norm2(self.linear2(x)))
        return self.linear3(x).view(self.members, *hidden.shape[:-1], *self.outputs)


def _tilt_to_mean(atoms: Tensor, mean: float) -> float:
    """The b for which the distribution proportional to exp(b z) over ``atoms`` (Z,) has this mean, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        if float((middle * atoms).softmax(0) @ atoms) < mean:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def member_values(logits: Tensor, v_min: float, v_max: float) -> Tensor:
    """Q of every member, float32 (E, ..., A), of logits (E, ..., A, Z); with one atom they are Q themselves."""
    if logits.shape[-1] == 1:
        return logits[..., 0].float()
    return expectation(logits.float().softmax(-1), v_min, v_max)


def mean_values(logits: Tensor, v_min: float, v_max: float) -> Tensor:
    """Q float32 (..., A): the expectation of the ensemble's mean distribution; logits as in :func:`member_values`."""
    if logits.shape[-1] == 1:
        return member_values(logits, v_min, v_max).mean(0)
    return expectation(q_distribution(logits), v_min, v_max)


def q_distribution(logits: Tensor) -> Tensor:
    """Mean over the ensemble of the softmaxes: (E, ..., A, Z) to probabilities float32 (..., A, Z)."""
    return logits.float().softmax(dim=-1).mean(dim=0)


def expectation(probabilities: Tensor, v_min: float, v_max: float) -> Tensor:
    """Q values float32 (..., A) of value distributions (..., A, Z) on evenly spread atoms."""
    atoms = torch.linspace(v_min, v_max, probabilities.shape[-1], device=probabilities.device)
    # Not a matrix product: autocast would round Q to bfloat16, and near 7 that is steps of 0.03.
    return (probabilities * atoms).sum(dim=-1)
