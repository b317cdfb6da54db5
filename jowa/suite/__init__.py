"""The benchmark suite at small scale: many agents, rivals and ablations, trained, played and compared."""

from jowa.suite.results import GamePlayed, Planned, Result, Training, Transfer, read_results, write_result

__all__ = ["GamePlayed", "Planned", "Result", "Training", "Transfer", "read_results", "write_result"]
