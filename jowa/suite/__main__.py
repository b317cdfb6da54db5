"""``python -m jowa.suite``: train agents, rivals and ablations at small scale, play them, compare them.

Interrupt it whenever you like; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro
from rich.console import Console

from jowa.errors import JowaError, UsageError, command, unknown_name
from jowa.files import atomic_write_text
from jowa.games import get_game
from jowa.options import parse_options
from jowa.suite import paper, studies
from jowa.suite.jobs import Job, chosen
from jowa.suite.ledger import RESULTS, Ledger, check_same_study, note_study, only_one
from jowa.suite.plan import Asked, small_study
from jowa.suite.runner import Outcome, Runner, threads_of

WIDE = 160
"""Columns of a table that is written to a file."""
Group = Literal["methods", "scale", "ablations", "planning", "transfer"]
SizeName = Literal["S", "M", "L"]
MethodName = Literal["jowa", "mtbc", "mgdt", "scaled-ql"]
AblationName = Literal["detach-q", "mse", "no-cql", "combo", "rem", "no-task-embedding"]


@dataclass(frozen=True)
class SuiteConfig:
    """Run a study: record data, train agents, rivals and ablations, play them, fine-tune, compare."""

    action: tyro.conf.Positional[Literal["run", "status"]] = "run"
    """run: do what is not done; status: list the jobs with their state and time, as --dry-run does."""
    out: Path = Path("runs/suite")
    """Folder of the study; one found there is gone on with."""
    only: tuple[Group, ...] = ()
    """Comparisons to work for; default: all. What they need is done too."""
    seeds: int = 3
    """Trainings of each kind, with seeds from 0 on."""
    sizes: tuple[SizeName, ...] = get_args(SizeName)
    """Sizes of the scaling curve; M, failing that the first, is that of everything else."""
    methods: tuple[MethodName, ...] = get_args(MethodName)
    """Whom to compare; jowa is always there, rivals take its tokenizer."""
    ablations: tuple[AblationName, ...] = get_args(AblationName)
    """Settings to change one by one, of the agent of that size (docs/ablations.md)."""
    games: tuple[str, ...] = ()
    """Training games, of those that the study records; default: all."""
    held_out: tuple[str, ...] = studies.HELD_OUT
    """Games of the transfer."""
    episodes: int = 10
    """Episodes a game, for each agent played in one way."""
    scale: float = 1.0
    """Share of the steps that are recorded, trained and fine-tuned: 0.1 for a study in a tenth of the time, about."""
    max_steps: int = studies.RECORD_STEPS_MOST
    """Agent steps after which an episode of play is cut off."""
    jobs: int = 1
    """Child processes at once, which share the cores; more than 1 on a GPU only if its memory is enough for all."""
    device: str = "auto"
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    paper: bool = False
    """The paper's own study instead: 15 games, three sizes, DQN-Replay. For whoever has the GPUs; look at --dry-run
    first. Only out, only, seeds, methods, episodes, jobs, device and the two below bear on it."""
    paper_source: str = "gs://atari-replay-datasets/dqn"
    """--paper: folder or address of DQN-Replay, as of python -m jowa.import_dqn_replay."""
    gpus: int = 8
    """--paper: processes of torchrun in each training of an agent."""
    dry_run: bool = False
    """Only list the jobs with their state and time; nothing is run or written."""

    def check(self) -> None:
        """Raise :class:`UsageError` for what no study can be made of."""
        known = [data.game for data in studies.TRAINING]
        for game in self.games:
            if game not in known:
                raise unknown_name("training game", game, known)
        for game in self.held_out:
            if get_game(game).name in (self.games or known):
                raise UsageError(f"{game} is a training game too: name another with --held-out")
        for name, values in (("sizes", self.sizes), ("games", self.games), ("held_out", self.held_out)):
            if len(set(values)) != len(values):
                raise UsageError(f"{name} are {' '.join(values)}: name each once")
        if not self.sizes:
            raise UsageError("no sizes: name at least one of S, M and L with --sizes")
        for name in ("seeds", "episodes", "jobs", "max_steps", "gpus"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} is {getattr(self, name)}, expected at least 1: set --{name.replace('_', '-')}"
                )
        if not 0 < self.scale <= 100:
            raise UsageError(f"scale is {self.scale}, expected above 0 and at most 100: set --scale")

    def study(self) -> list[Job]:
        """All jobs, of all groups."""
        methods = tuple(dict.fromkeys(self.methods))
        if self.paper:
            return paper.paper_study(
                paper.PaperAsked(self.paper_source, methods, self.seeds, self.episodes, self.gpus, self.device)
            )
        games = self.games or tuple(data.game for data in studies.TRAINING)
        return small_study(
            Asked(
                games, self.held_out, self.sizes, methods, tuple(dict.fromkeys(self.ablations)), self.seeds,
                self.episodes, self.scale, self.max_steps, self.device, threads_of(self.jobs),
            )
        )  # fmt: skip

    def settings(self) -> dict[str, object]:
        """What must stay the same in one folder."""
        names = (
            ("paper", "paper_source", "gpus") if self.paper else ("paper", "scale", "max_steps", "games", "held_out")
        )
        values = {name: getattr(self, name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def run(config: SuiteConfig) -> None:
    """List the study, or work on it, and print what there is."""
    config.check()
    study = config.study()
    ledger, jobs = Ledger(config.out, study), chosen(study, config.only)
    if config.dry_run or config.action == "status":
        check_same_study(config.out, config.settings())
        _list(config, ledger, jobs)
        return
    with only_one(config.out) as lock:
        note_study(config.out, config.settings())
        for name in ledger.supersede():
            print(f"settings of {name} have changed: what it made is in {config.out / 'superseded'}", flush=True)
        _keep_missing(ledger)
        outcome = _work(config, ledger, jobs, lock)
        report(config.out, ledger)
    end(ledger, jobs, outcome)


def _list(config: SuiteConfig, ledger: Ledger, jobs: list[Job]) -> None:
    from jowa.suite.display import plan_table, totals_table

    console = Console()
    if not console.is_terminal:  # a file has room for whole names
        console.width = WIDE
    console.print(plan_table(ledger, jobs))
    console.print(totals_table(ledger, jobs, config.jobs))
    if config.paper:
        paper.show_cost(console, ledger, jobs, config.gpus)


def _keep_missing(ledger: Ledger) -> None:
    from jowa.suite.outcomes import keep_missing_results

    keep_missing_results(ledger)


def _work(config: SuiteConfig, ledger: Ledger, jobs: list[Job], lock: int) -> Outcome:
    from jowa.suite.display import Display
    from jowa.suite.outcomes import keep_result

    with Display(ledger, jobs, config.jobs) as display:
        runner = Runner(ledger, jobs, config.jobs, lock, display)
        runner.on_done = lambda job: keep_result(ledger, job)
        return runner.run()


def report(out: Path, ledger: Ledger) -> None:
    """Aggregate the results that belong to the study, print the tables and write ``summary.json``."""
    from jowa.suite.aggregate import GROUPS, Comparison, compare_group, summary_document
    from jowa.suite.display import comparison_table, pairs_table
    from jowa.suite.results import read_results

    if not any((out / RESULTS).rglob("*.json")):
        return
    planned = {job.measured.id for job in ledger.jobs.values() if job.measured is not None}
    results = [result for result in read_results(out / RESULTS) if result.id in planned]
    comparisons: dict[str, Comparison] = {}
    for group in GROUPS:
        comparisons |= compare_group(results, group)
    console = Console()
    for name, comparison in comparisons.items():
        if comparison.standings:
            console.print(comparison_table(name, comparison))
        if comparison.pairs:
            console.print(pairs_table(name, comparison))
        for note in comparison.notes:
            console.print(f"{name}: {note}", markup=False, highlight=False, soft_wrap=True)
    atomic_write_text(out / "summary.json", json.dumps(summary_document(comparisons), indent=1) + "\n")
    print(f"{len(results)} results in {out / RESULTS}, aggregated in {out / 'summary.json'}")


def end(ledger: Ledger, jobs: list[Job], outcome: Outcome) -> None:
    """Say how it ended; raises SystemExit if it was stopped, :class:`JowaError` if something failed."""
    print(f"{len(outcome.done)} of {len(jobs)} jobs done", flush=True)
    lines = [f"{name} failed: see {ledger.log(name)}" for name in outcome.failed]
    lines += [f"{name} was skipped: it needs what failed" for name in outcome.skipped]
    if outcome.stopped_by is not None:
        print(
            "\n".join([*lines, "stopped: run the same command again to go on; what was finished is kept"]), flush=True
        )
        raise SystemExit(128 + outcome.stopped_by)
    if lines:
        raise JowaError("\n".join([*lines, "the same command tries them again"]))


@command
def main() -> None:
    """Entry point."""
    run(parse_options(SuiteConfig, "python -m jowa.suite", description=SuiteConfig.__doc__))


if __name__ == "__main__":
    main()
