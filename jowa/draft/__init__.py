"""``python -m jowa.draft``: train an agent's draft head, and measure how well frames are guessed."""

from jowa.draft.distill import Moments, Pairs, imagine_pairs, recorded_pairs, train_head
from jowa.draft.measure import Measured, measure

__all__ = ["Measured", "Moments", "Pairs", "imagine_pairs", "measure", "recorded_pairs", "train_head"]
