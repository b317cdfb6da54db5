"""What to import: the command's options, and the settings that the data follow from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jowa.data.remote import is_remote
from jowa.errors import UsageError
from jowa.games import get_game


@dataclass(frozen=True)
class ImportConfig:
    """What to import, and where to."""

    source: str
    """Folder, or address (gs:// and s3:// without credentials, or whatever else fsspec can list), that holds
    GAME/RUN/replay_logs, for example gs://atari-replay-datasets/dqn."""
    games: tuple[str, ...]
    """Games by their CamelCase names, for example Pong Breakout."""
    out: Path
    """Folder of the data set; created, resumed, or extended by further games."""
    runs: tuple[int, ...] = (1,)
    """Runs (1 to 5) of each game, for example 1 2 3."""
    fraction: float | None = None
    """Share of the whole episodes to draw, above 0 up to 1. Give this or --transitions."""
    transitions: int | None = None
    """Exact number of transitions per game; the last episode is cut to fit. Give this or --fraction."""
    subset: Literal["mixed", "expert", "weak"] = "mixed"
    """Of each run: all checkpoints, the last 20% of them, or the first 20%."""
    crossing: Literal["join", "drop"] = "join"
    """Episodes that cross the border of two checkpoints: join their parts, or leave them out of the draw."""
    seed: int = 0
    """Non-negative; which episodes are drawn of a game is a function of the seed, the game and what the source has."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a file that is missing, damaged or does not fit: stop, or leave out (and report) the episodes that need it."""
    workers: int = 0
    """Processes that read; 0: one per CPU core. The data do not depend on it."""
    dask: str | None = None
    """Address of a Dask scheduler whose workers read instead, for example tcp://10.0.0.1:8786; they must see the folder
    of the data set (and a local source) under the same path."""

    def __post_init__(self) -> None:
        """Raise :class:`UsageError` for values that mean nothing."""
        for name in self.games:
            get_game(name)
        if not self.games or len(set(self.games)) != len(self.games):
            raise UsageError(f"games are {' '.join(self.games) or 'none'}: name at least one, each once")
        if not self.runs or len(set(self.runs)) != len(self.runs) or min(self.runs) < 1:
            raise UsageError(f"runs are {' '.join(map(str, self.runs)) or 'none'}: name at least one, each once")
        if (self.fraction is None) == (self.transitions is None):
            raise UsageError("how much to import: give --fraction (of the episodes) or --transitions, not both")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UsageError(f"fraction {self.fraction}: expected above 0 and at most 1")
        if self.transitions is not None and self.transitions < 1:
            raise UsageError(f"transitions {self.transitions}: expected at least 1")
        if self.workers < 0 or self.seed < 0:
            raise UsageError(f"workers {self.workers}, seed {self.seed}: expected at least 0")

    @property
    def address(self) -> str:
        """The source, the same however a local folder was written."""
        return self.source.rstrip("/") if is_remote(self.source) else str(Path(self.source).expanduser().resolve())

    def settings(self) -> dict[str, Any]:
        """All that the data of a game follow from, beside the source's files, as JSON types."""
        return {
            "source": self.address,
            "runs": sorted(self.runs),
            "fraction": self.fraction,
            "transitions": self.transitions,
            "subset": self.subset,
            "crossing": self.crossing,
            "seed": self.seed,
        }
