"""Planning: imagination, beam search, and the plans they return."""

from jowa.planner.beam import BeamPlanner
from jowa.planner.imagination import Context, Imagination
from jowa.planner.plan import Plan, Planner, PlannerConfig

__all__ = ["BeamPlanner", "Context", "Imagination", "Plan", "Planner", "PlannerConfig"]
