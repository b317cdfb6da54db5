"""Planning: engines that imagine, beam search and Monte Carlo tree search, and the plans they return."""

from jowa.planner.beam import BeamPlanner
from jowa.planner.drafts import DraftHead
from jowa.planner.engine import Engine
from jowa.planner.imagination import Context, Imagination
from jowa.planner.make import make_planner
from jowa.planner.mcts import MCTSPlanner
from jowa.planner.plan import Plan, Planner, PlannerConfig, PlanningError, shared_settings
from jowa.planner.rollout import make_engine

__all__ = [
    "BeamPlanner",
    "Context",
    "DraftHead",
    "Engine",
    "Imagination",
    "MCTSPlanner",
    "Plan",
    "Planner",
    "PlannerConfig",
    "PlanningError",
    "make_engine",
    "make_planner",
    "shared_settings",
]
