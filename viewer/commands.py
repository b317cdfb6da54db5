"""What the session can be told: small frozen records that pass through its queue, so any thread may send them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Mode = Literal["play", "take over", "dream", "replay"]
MODES: tuple[Mode, ...] = ("play", "take over", "dream", "replay")
REAL_TIME = 15.0
"""Decisions a second at which an Atari game runs as fast as on the console: 60 frames, 4 a decision."""


class Command:
    """Base of all commands."""


@dataclass(frozen=True)
class Run(Command):
    """Go on deciding, from the moment that is shown; moments after it are dropped."""


@dataclass(frozen=True)
class Pause(Command):
    """Stop after the decision under way."""


@dataclass(frozen=True)
class Step(Command):
    """One moment onwards: through what is remembered, then by deciding."""


@dataclass(frozen=True)
class Back(Command):
    """Show the moment before the one shown, and pause."""

    steps: int = 1


@dataclass(frozen=True)
class GoTo(Command):
    """Show moment number ``index``, or the nearest that is remembered, and pause; None: the newest."""

    index: int | None = None


@dataclass(frozen=True)
class Find(Command):
    """Show the next moment, or the one before, at which planning changed the choice or a reward came, and pause."""

    what: Literal["changed", "reward"]
    forward: bool = True


@dataclass(frozen=True)
class Seek(Command):
    """In a replay: show moment ``step`` of the recording, and pause; None: its last."""

    step: int | None = None


@dataclass(frozen=True)
class Reset(Command):
    """Begin a new episode of what is being played; ``seed`` None: with the seed in use plus one."""

    seed: int | None = None


@dataclass(frozen=True)
class SetSpeed(Command):
    """At most so many decisions a second; None: as fast as possible."""

    per_second: float | None


@dataclass(frozen=True)
class SetGame(Command):
    """Play another game from its start."""

    name: str


@dataclass(frozen=True)
class LoadAgent(Command):
    """Use another agent: a folder, ``demo``, or an id of a model hub (``owner/name``).  The episode goes on."""

    source: str
    own_game: bool = True
    """Whether to begin, where nothing is played yet, with a game that it was trained on."""


@dataclass(frozen=True)
class SetPlanner(Command):
    """Change settings of the planner: those that are named, the others stay.  None where the planner has None."""

    changes: tuple[tuple[str, object], ...]

    @classmethod
    def to(cls, **changes: object) -> SetPlanner:
        """From keywords, which are fields of :class:`jowa.planner.PlannerConfig`."""
        return cls(tuple(changes.items()))


@dataclass(frozen=True)
class Adjust(Command):
    """Change a number of the planner by so much, as far as it goes."""

    name: Literal["width", "horizon"]
    by: int


@dataclass(frozen=True)
class SetContext(Command):
    """Steps of memory to plan from."""

    steps: int


@dataclass(frozen=True)
class SetSticky(Command):
    """Probability that the console repeats the action before; takes effect with the next episode."""

    probability: float


@dataclass(frozen=True)
class SetMode(Command):
    """Change who plays what.  The real game's episode stays where it is, whatever the mode."""

    mode: Mode


@dataclass(frozen=True)
class Jump(Command):
    """Into the dream at the moment shown, or out of it, to the real game and whoever played it."""


@dataclass(frozen=True)
class SetPerson(Command):
    """In a dream: whether the person plays, or the agent."""

    plays: bool


@dataclass(frozen=True)
class Press(Command):
    """The action (of 18) that the person holds down; 0 (NOOP) when they let go."""

    action: int


@dataclass(frozen=True)
class OpenRecording(Command):
    """Replay an episode of a data set."""

    path: Path
    game: str | None = None
    episode: int = 0


@dataclass(frozen=True)
class AskDistributions(Command):
    """Ask for the value distributions of the moment shown, now and with each moment after it, or no more."""

    wanted: bool = True


@dataclass(frozen=True)
class SaveEpisode(Command):
    """Append the running real episode, as far as it was played, to the data set in ``path``."""

    path: Path


@dataclass(frozen=True)
class ExportMoment(Command):
    """Write all that is known of one moment as JSON."""

    path: Path
    index: int | None = None
    """Which; None: the one shown."""


@dataclass(frozen=True)
class Quit(Command):
    """End the worker thread."""
