"""The paper's own way of playing a game."""

from __future__ import annotations

import dataclasses

from jowa.agent import Planning
from jowa.config import PRESETS, ModelConfig
from jowa.games import get_game

SIZES = ("40M", "70M", "150M")
"""The sizes that the paper has settings for."""


def published(own: Planning, model: ModelConfig, game: str) -> Planning:
    """``own`` with the paper's context (steps) and beam width of ``game``, where it has them for this size."""
    paper = get_game(game).published_planning
    size = next((name for name in SIZES if PRESETS[name].model == model), None)
    if paper is None or size is None:
        return own
    planner = dataclasses.replace(own.planner, width=paper.width)
    return Planning(planner, getattr(paper, f"context_{size.lower()}"))
