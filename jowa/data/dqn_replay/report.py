"""What an import did, for the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jowa.data.dqn_replay.source import Fault

DROPPED = {
    "no_start": "without a known beginning",
    "no_end": "without an end",
    "crossing_dropped": "across checkpoints",
    "unreadable": "in damaged files",
    "surplus": "drawn to spare",
}
"""Counts of episodes that were left out, in words."""


@dataclass(frozen=True)
class GameReport:
    """What the store has of one game."""

    game: str
    counts: dict[str, int]
    """docs/dqn-replay.md says what each one means."""
    faults: list[Fault]
    frame_bytes: int
    """Bytes on disk of the frames."""
    reused: bool
    """Whether it was there before."""

    def describe(self) -> list[str]:
        """A line for the game, one for each file that was skipped."""
        counts = self.counts
        dropped = [f"{counts[key]:,} {words}" for key, words in DROPPED.items() if counts.get(key)]
        parts = [
            f"{counts['episodes']:,} of {counts['found']:,} whole episodes, {counts['transitions']:,} transitions",
            f"{counts['joined']:,} joined across checkpoints",
            f"{counts['padding_rows']:,} padding rows left out",
            f"dropped {', '.join(dropped) or 'nothing'}",
            f"{self.frame_bytes / counts['transitions']:.0f} bytes a frame",
        ]
        head = f"{self.game}{' (imported before)' if self.reused else ''}"
        return [f"{head}: {'; '.join(parts)}", *(f"{self.game}: skipped {fault.describe()}" for fault in self.faults)]


@dataclass(frozen=True)
class Summary:
    """What a call of the import did."""

    out: Path
    games: list[GameReport]
    frames: int
    """Frames read by this call; many more than were kept."""
    resumed: int
    """Frames that need not be read because their pieces were done before."""
    seconds: float

    def describe(self) -> str:
        """For the user: a line a game and skipped file, and one about the whole."""
        lines = [line for game in self.games for line in game.describe()]
        rate = f", {self.frames / self.seconds:,.0f} frames/s" if self.frames else ""
        resumed = f" ({self.resumed:,} had been read before)" if self.resumed else ""
        lines.append(f"{self.out}: {self.frames:,} frames read in {self.seconds:.1f} s{rate}{resumed}")
        return "\n".join(lines)
