"""What the suite measured: one JSON file for each agent played in one way, which the report reads."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jowa.config import config_from_dict
from jowa.errors import CheckpointError, DataError, UsageError
from jowa.files import atomic_write_text
from jowa.games import get_game

FORMAT = 1

Method = Literal["jowa", "mtbc", "mgdt", "scaled-ql", "random", "data"]
"""``jowa``: this project's agent; ``mtbc``, ``mgdt``, ``scaled-ql``: rivals (:mod:`jowa.baselines`); ``random``:
uniform legal actions; ``data``: the episodes that were trained on."""


Quality = Literal["expert", "mixed", "weak"]
"""Of the transitions of a transfer."""


@dataclass(frozen=True)
class Planned:
    """How an agent chose its actions."""

    name: Literal["none", "beam", "mcts"] = "none"
    width: int = 1
    """Beam width; 0: the paper's for each game."""
    horizon: int = 0
    """Imagined steps of beam search."""
    simulations: int = 0
    """Simulations of MCTS."""
    ends: bool = True
    """Whether predicted ends are respected."""
    uncertainty: float = 0.0
    """Standard deviations of the ensemble taken off a value."""
    td_lambda: float = 1.0
    """Share of a plan's score that imagined states have."""
    context: int = 1
    """Steps of memory; 0: the paper's for each game."""


def describe_planned(planned: Planned) -> str:
    """``beam 2x1`` (width by horizon), ``mcts 16`` (simulations), with what departs from the usual; empty for none."""
    beam = f"beam {planned.width}x{planned.horizon}" if planned.width else "beam as published"
    words = {"none": [], "beam": [beam], "mcts": [f"mcts {planned.simulations}"]}
    words[planned.name] += [] if planned.ends else ["without ends"]
    words[planned.name] += [f"uncertainty {planned.uncertainty:g}"] if planned.uncertainty else []
    words[planned.name] += [f"lambda {planned.td_lambda:g}"] if planned.td_lambda != 1 else []
    words[planned.name] += [f"memory {planned.context}"] if planned.context > 1 else []
    return ", ".join(words[planned.name])


@dataclass(frozen=True)
class Transfer:
    """Few transitions of a game that pretraining never saw."""

    game: str
    data: Quality
    transitions: int
    """Agent steps trained on."""
    pretrained: bool
    """False: the same run from random weights."""


@dataclass(frozen=True)
class GamePlayed:
    """The episodes of one game."""

    scores: tuple[float, ...]
    """Raw points, one an episode."""
    steps: tuple[int, ...] = ()
    """Agent steps, one an episode; empty where they were not kept."""


@dataclass(frozen=True)
class Training:
    """What the agent cost, and how it came on."""

    seconds: float = 0.0
    """Of the clock, from the first step of training to the last."""
    steps: int = 0
    """Optimizer steps, all stages."""
    parameters: int = 0
    """Trained numbers, tokenizer included."""
    curve: tuple[dict[str, float], ...] = ()
    """Points of the learning curve: ``step``, ``seconds`` and named metrics such as ``world``, ``td``, ``cql``."""


@dataclass(frozen=True)
class Result:
    """One agent, played in one way."""

    id: str
    """Unique in a study, and the path of its file: ``jowa-M-seed0/greedy``."""
    groups: tuple[str, ...]
    """Comparisons that it belongs to, of ``methods``, ``scale``, ``ablations``, ``planning``, ``transfer``."""
    method: Method
    games: dict[str, GamePlayed]
    size: str = ""
    """``S``, ``M``, ``L`` or a preset of :mod:`jowa.train.presets`; empty for players without weights."""
    seed: int = 0
    """Seed of the training."""
    variant: str = ""
    """The ablation, such as ``detach-q``; empty for the agent as it is."""
    planned: Planned = field(default_factory=Planned)
    transfer: Transfer | None = None
    training: Training = field(default_factory=Training)
    protocol: dict[str, Any] = field(default_factory=dict)
    """Sticky actions, longest episode, seeds."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Everything that the training was given."""
    command: str = ""
    """Command lines that repeat it, one a line."""
    machine: dict[str, Any] = field(default_factory=dict)
    """Device, threads, versions, commit, date."""

    def __post_init__(self) -> None:
        parts = Path(self.id).parts
        if not self.id or Path(self.id).is_absolute() or ".." in parts:
            raise UsageError(f"the id of a result is {self.id!r}: expected a relative path such as jowa-M-seed0/greedy")
        for game, played in self.games.items():
            get_game(game)
            if not played.scores:
                raise UsageError(f"result {self.id} has no episode of {game}: leave the game out or play it")


def write_result(folder: Path, result: Result) -> Path:
    """Write ``result`` to ``folder``/``id``.json, atomically; returns the path."""
    path = folder / f"{result.id}.json"
    atomic_write_text(path, json.dumps({"format": FORMAT, **dataclasses.asdict(result)}, indent=1) + "\n")
    return path


def read_results(folder: Path) -> list[Result]:
    """All results under ``folder``, by id.

    Raises :class:`DataError` where there is none, and for a file that is damaged, of another format, or under another
    name than its id.
    """
    paths = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder} holds no results: run python -m jowa.suite first, or name its results folder")
    return [_read_result(folder, path) for path in paths]


def _read_result(folder: Path, path: Path) -> Result:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): move it away and run the suite again") from error
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise DataError(f"{path} is no result of format {FORMAT}: move it away, or run the suite again")
    try:
        result = _from_json(document, str(path))
    except (CheckpointError, UsageError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no result ({error}): name the folder of a suite, or move it away") from error
    if path != folder / f"{result.id}.json":
        raise DataError(f"{path} holds the result {result.id}: give it back its name")
    return result


def _from_json(document: dict[str, Any], where: str) -> Result:
    games = {
        game: GamePlayed(tuple(float(score) for score in played["scores"]), tuple(played["steps"]))
        for game, played in document.pop("games").items()
    }
    training = document.pop("training")
    trained = Training(**training | {"curve": tuple(training["curve"])})
    transfer = document.pop("transfer")
    planned = config_from_dict(Planned, document.pop("planned"), where)
    groups = tuple(document.pop("groups"))
    return Result(
        games=games, groups=groups, planned=planned, training=trained,
        transfer=None if transfer is None else config_from_dict(Transfer, transfer, where), **document,
    )  # fmt: skip
