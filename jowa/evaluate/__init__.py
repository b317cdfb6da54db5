"""Scores in real games: ``python -m jowa.evaluate``."""

from jowa.evaluate.play import PROTOCOLS, Played, Protocol, agent_player, get_protocol, play, random_player
from jowa.evaluate.rivals import rival_player
from jowa.evaluate.scores import Aggregate, GameScore, aggregate, summarise

__all__ = [
    "PROTOCOLS",
    "Aggregate",
    "GameScore",
    "Played",
    "Protocol",
    "agent_player",
    "aggregate",
    "get_protocol",
    "play",
    "random_player",
    "rival_player",
    "summarise",
]
