"""From a configuration to the planner that it names."""

from __future__ import annotations

import torch

from jowa.model import WorldActionModel
from jowa.planner.beam import BeamPlanner
from jowa.planner.drafts import DraftHead
from jowa.planner.engine import Engine
from jowa.planner.mcts import MCTSPlanner
from jowa.planner.plan import Planner, PlannerConfig


def make_planner(
    model: WorldActionModel,
    config: PlannerConfig,
    autocast: torch.dtype | None = None,
    engine: Engine | None = None,
    draft_head: DraftHead | None = None,
) -> Planner:
    """The planner that ``config`` names; arguments as of :class:`jowa.planner.beam.BeamPlanner`."""
    kind = MCTSPlanner if config.name == "mcts" else BeamPlanner
    return kind(model, config, autocast, engine, draft_head)
