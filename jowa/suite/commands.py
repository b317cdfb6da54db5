"""The command lines of the jobs: the one place that knows the other commands' options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jowa.suite.jobs import OUT
from jowa.suite.results import Planned

Arguments = tuple[str, ...]
QUIET_RUN: Arguments = ("--evaluation.episodes", "0", "--checkpoint.keep", "1")
"""Of every training: the suite plays by itself, and a finished run is never gone on with."""


def inside(path: str) -> str:
    """``path`` below the folder of the study, as an argument."""
    return f"{OUT}/{path}"


@dataclass(frozen=True)
class Data:
    """A data set below the study, and what of it is used."""

    path: str
    games: Arguments
    transitions: int = 0
    tokens: str = ""
    """Folder of its tokens below the study; empty: a run encodes the frames itself."""

    def options(self) -> Arguments:
        """Of python -m jowa.train and jowa.baselines."""
        found: Arguments = ("--data.path", inside(self.path), "--data.games", *self.games)
        found += ("--data.transitions", str(self.transitions)) if self.transitions else ()
        return found + (("--data.tokens", inside(self.tokens)) if self.tokens else ())


def record(store: str, game: str, steps: int, policies: Sequence[str], max_steps: int, seed: int) -> Arguments:
    """``python -m jowa.record``."""
    return (
        "--out", inside(store), "--games", game, "--steps", str(steps), "--policies", *policies,
        "--max-steps", str(max_steps), "--seed", str(seed),
    )  # fmt: skip


def train(
    folder: str, data: Data, seed: int, stage1: int, stage2: int, options: Sequence[str],
    tokenizer_from: str = "",
) -> Arguments:  # fmt: skip
    """``python -m jowa.train``, with the tokenizer of an agent below the study if ``tokenizer_from`` names one."""
    return (
        "--preset", "tiny", "--out", inside(folder), "--seed", str(seed), *data.options(), "--data.record-steps", "0",
        "--stage1.steps", str(stage1), "--stage2.steps", str(stage2),
        "--draft.steps", "0", *QUIET_RUN, *options,
        *(("--tokenizer-from", inside(tokenizer_from)) if tokenizer_from else ()),
    )  # fmt: skip


def tokenize(agent: str, store: str, tokens: str) -> Arguments:
    """``python -m jowa.tokenize``."""
    return (inside(agent), inside(store), "--out", inside(tokens))


def rival(
    kind: str, folder: str, data: Data, size: str, steps: int, seed: int, tokenizer_from: str = "", start_from: str = ""
) -> Arguments:
    """``python -m jowa.baselines``; tokens and a tokenizer are for those that read tokens."""
    if kind == "scaled-ql":
        data, tokenizer_from = Data(data.path, data.games, data.transitions), ""
    begin: Arguments = ("--start-from", inside(start_from)) if start_from else ("--size", size)
    begin += ("--tokenizer-from", inside(tokenizer_from)) if tokenizer_from and not start_from else ()
    return (
        kind,
        "--out",
        inside(folder),
        *data.options(),
        *begin,
        "--steps",
        str(steps),
        "--seed",
        str(seed),
        *QUIET_RUN,
    )


def finetune(agent: str, folder: str, data: Data, steps: int, seed: int, options: Sequence[str]) -> Arguments:
    """``python -m jowa.finetune``."""
    (game,) = data.games
    return (
        inside(agent), "--game", game, "--data", inside(data.path), "--transitions", str(data.transitions),
        "--steps", str(steps), "--out", inside(folder), "--seed", str(seed), "--draft.steps", "0", *QUIET_RUN, *options,
    )  # fmt: skip


def evaluate(
    agent: str, games: Sequence[str], episodes: int, seed: int, out: str, max_steps: int | None = None,
    planned: Planned | None = None, protocol: str = "sticky",
) -> Arguments:  # fmt: skip
    """``python -m jowa.evaluate``; ``planned`` None: of a rival, which has no planner."""
    how: Arguments = ()
    if planned is not None:
        how = ("--planner", planned.name)
        how += () if planned.name == "none" else ("--horizon", str(planned.horizon))
        how += ("--width", str(planned.width)) if planned.name == "beam" and planned.width else ()
        how += ("--simulations", str(planned.simulations)) if planned.name == "mcts" else ()
        how += () if planned.ends else ("--ignore-ends",)
        how += ("--uncertainty", f"{planned.uncertainty:g}") if planned.uncertainty else ()
        how += (
            ("--td-lambda", f"{planned.td_lambda:g}") if planned.name == "beam" else ()
        )  # the agent has one of its own
        how += ("--context", str(planned.context)) if planned.context else ()
    return (
        inside(agent), "--games", *games, "--episodes", str(episodes), "--seed", str(seed), "--protocol", protocol,
        *(() if max_steps is None else ("--max-steps", str(max_steps))), "--out", inside(out), *how,
    )  # fmt: skip


def play_random(games: Sequence[str], episodes: int, seed: int, out: str, max_steps: int) -> Arguments:
    """``python -m jowa.suite.untrained random``."""
    return (
        "random", "--games", *games, "--episodes", str(episodes), "--seed", str(seed), "--max-steps", str(max_steps),
        "--out", inside(out),
    )  # fmt: skip


def scores_of_data(data: Data, seed: int, out: str) -> Arguments:
    """``python -m jowa.suite.untrained data``."""
    return (
        "data", "--data", inside(data.path), "--games", *data.games, "--transitions", str(data.transitions),
        "--seed", str(seed), "--out", inside(out),
    )  # fmt: skip
