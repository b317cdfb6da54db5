"""Players without learning: scripts that read the console's memory, look-ahead, random play, and mixtures of them."""

from jowa.env.experts.policies import EXPERTS, Policy, default_mixture, make_policy

__all__ = ["EXPERTS", "Policy", "default_mixture", "make_policy"]
