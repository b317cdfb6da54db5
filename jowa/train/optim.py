"""Optimizers and their schedule (arXiv 2410.00564, table of hyperparameters)."""

from __future__ import annotations

import math

import torch
from torch import nn

from jowa.train.config import OptimizerConfig
from jowa.train.muon import Muon, hidden_matrices


def world_optimizer(model: nn.Module, learning_rate: float, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW or Muon: decay on Linear weights and the whole Q head; none on biases, norms and embeddings."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    hidden = hidden_matrices(model) if config.name == "muon" else []
    matrices = {id(weight) for weight in hidden}
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in matrices:
            continue
        (decayed if id(parameter) in linear or "q_head" in name.split(".") else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    groups.append({"params": hidden, "weight_decay": config.weight_decay, "orthogonal": True})
    return Muon(groups, learning_rate, config.muon_iterations)


def tokenizer_optimizer(tokenizer: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam without decay."""
    return torch.optim.Adam(tokenizer.parameters(), lr=learning_rate, fused=True)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, base: float, step: int, total: int, config: OptimizerConfig
) -> float:
    """Linear warm-up from 0, then cosine decay to ``final_fraction``; ``step`` counts from 0 within the stage."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total)))
    rate = base * warm * (config.final_fraction + (1 - config.final_fraction) * cosine)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
