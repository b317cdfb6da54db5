"""The rivals that the agent is compared with, as they play: networks, folders, deciding.

:mod:`jowa.baselines` trains them; ``python -m jowa.evaluate`` plays them.
"""

from jowa.rivals.config import KINDS, SIZES, Choice, ConvConfig, Kind, Playing, SequenceConfig
from jowa.rivals.conv import HISTORY, ConvCritic, stack_frames
from jowa.rivals.player import RivalPlayer
from jowa.rivals.rival import Rival, is_rival
from jowa.rivals.sequence import SequencePolicy

__all__ = [
    "HISTORY",
    "KINDS",
    "SIZES",
    "Choice",
    "ConvConfig",
    "ConvCritic",
    "Kind",
    "Playing",
    "Rival",
    "RivalPlayer",
    "SequenceConfig",
    "SequencePolicy",
    "is_rival",
    "stack_frames",
]
