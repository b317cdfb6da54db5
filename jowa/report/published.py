"""Scores that others published, in one place.

Cheng et al., *Scaling Offline Model-Based RL via Jointly-Optimized World-Action Model Pretraining*, ICLR 2025
(arXiv 2410.00564).  Random, human and DQN scores are in :mod:`jowa.games`.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Cheng et al., ICLR 2025, arXiv 2410.00564"
SCALE = (
    "15 games of DQN-Replay, 1.75 million steps of 512 segments on GPUs, evaluated without sticky actions over "
    "16 episodes of one seed"
)


@dataclass(frozen=True)
class PublishedIQM:
    """An interquartile mean of human-normalised scores over the paper's 15 games."""

    agent: str
    size: str
    planned: float | None = None
    greedy: float | None = None


IQMS = (
    PublishedIQM("JOWA", "150M", 0.847, 0.524),
    PublishedIQM("JOWA", "70M", 0.802, 0.461),
    PublishedIQM("JOWA", "40M", 0.664, 0.271),
    PublishedIQM("EDT", "200M", greedy=0.501),
    PublishedIQM("MGDT", "200M", greedy=0.490),
    PublishedIQM("Scaled-QL", "80M", greedy=0.390),
    PublishedIQM("MTBC", "120M", greedy=0.326),
)
IQM_NOTE = (
    "The paper's first tables say 0.789 for JOWA-150M with planning. After fine-tuning on 5,000 transitions, its five "
    "held-out games reach an IQM of 0.647 of DQN's scores."
)

JOWA_150M: dict[str, tuple[float, float]] = {
    "Assault": (1458.6, 2102.2),
    "Atlantis": (2841262.5, 2217150.0),
    "BeamRider": (2927.0, 864.5),
    "Berzerk": (496.9, 396.9),
    "Carnival": (4910.0, 5560.0),
    "Centipede": (7117.0, 8746.0),
    "ChopperCommand": (3925.0, 806.2),
    "DemonAttack": (9296.6, 7390.0),
    "NameThisGame": (9380.0, 5691.9),
    "Phoenix": (5230.0, 4958.8),
    "Seaquest": (1413.8, 267.5),
    "SpaceInvaders": (1036.9, 732.2),
    "StarGunner": (53237.5, 7443.8),
    "TimePilot": (3975.0, 662.5),
    "Zaxxon": (331.2, 12.5),
}
"""Mean score of JOWA-150M with planning and without, by game."""
