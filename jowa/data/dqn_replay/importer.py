"""Coordinating an import: list, scan, plan, hand out the pieces, commit each game once all of its pieces are done.

The process that does this holds the store's lock.  Pieces leave markers in ``OUT/.import/GAME``, so that a rerun
does only those that are missing; one commit makes a game's episodes appear, all at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from jowa.data.dqn_replay.config import ImportConfig
from jowa.data.dqn_replay.pieces import Job, Outcome, finished, import_piece, remove_block, scan
from jowa.data.dqn_replay.plan import (
    Log,
    Plan,
    TooFewTransitions,
    choose_checkpoints,
    make_plan,
    policy,
    settle,
    table,
)
from jowa.data.dqn_replay.report import GameReport, Summary
from jowa.data.dqn_replay.source import FILES, Checkpoint, Fault, list_checkpoints
from jowa.data.remote import is_remote, open_filesystem
from jowa.data.workers import as_finished, dask_workers, local_workers, plain_failures
from jowa.data.writer import EpisodeWriter
from jowa.errors import DataError, JowaError, UsageError
from jowa.progress import steps_progress

IMPORTED = "imported"
"""Root attribute: game → settings, and once it is done counts and faults."""
MARKERS = ".import"
"""Folder in the store where pieces that are done leave their markers."""


@dataclass
class _Game:
    """A game on its way into the store."""

    plan: Plan
    jobs: list[Job]
    faults: dict[str, Fault]
    """By file."""
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By the place of the piece in the plan."""


def import_dqn_replay(config: ImportConfig, progress: bool = True) -> Summary:
    """Bring the games of ``config`` into the store at ``config.out``; those that are there already are left alone.

    Raises :class:`UsageError` when one was imported with other settings, :class:`DataError` for a source that is
    missing or (unless skipping) faulty and for a store that is damaged or in use, OSError (naming the folder) when
    it cannot be written.  Pieces that were finished stay.
    """
    if is_remote(config.source):
        open_filesystem(config.source)  # before anything is written
    with plain_failures(config.out, "finished pieces"), EpisodeWriter.open(config.out) as writer:
        todo = [game for game in config.games if not _is_done(writer, config, game)]
        for game in set(config.games) - set(todo):
            _forget_markers(config.out, game)
        start, frames, resumed = time.perf_counter(), 0, 0
        if todo:
            with _workers(config) as (pool, ahead):
                frames, resumed = _import_games(writer, config, todo, pool, ahead, progress)
        reports = [_report(writer, game, game not in todo) for game in config.games]
        return Summary(config.out, reports, frames, resumed, time.perf_counter() - start)


@contextmanager
def _workers(config: ImportConfig) -> Iterator[tuple[Executor, int]]:
    """The pool, and how many tasks it gets at a time."""
    if config.dask is not None:
        with dask_workers(config.dask) as (pool, threads):
            try:
                yield pool, 2 * threads
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                raise JowaError("Dask workers died on a piece (out of memory?); finished pieces are kept") from None
        return
    workers = config.workers or os.cpu_count() or 1
    with local_workers(workers) as pool:
        yield pool, workers if workers == 1 else 2 * workers


def _is_done(writer: EpisodeWriter, config: ImportConfig, game: str) -> bool:
    """Whether ``game`` is in the store already, by this import; :class:`UsageError` when it is by another one."""
    had = writer.attributes.get(IMPORTED, {}).get(game)
    if had is None and (writer.num_episodes(game) or game in writer.attributes.get("recording", {})):
        raise UsageError(f"{game} in {config.out} was not imported by this command: choose another folder")
    wanted = config.settings()
    if had is not None and had["settings"] != wanted:
        before: dict[str, Any] = had["settings"]
        names = sorted(k for k in wanted.keys() | before.keys() if wanted.get(k) != before.get(k))
        differences = "; ".join(f"{k} was {before.get(k)}, now {wanted.get(k)}" for k in names)
        raise UsageError(
            f"{game} in {config.out} was imported, or begun, with other settings ({differences}): "
            "use the same ones, or choose another folder"
        )
    return writer.num_episodes(game) > 0


def _import_games(
    writer: EpisodeWriter, config: ImportConfig, todo: list[str], pool: Executor, ahead: int, progress: bool
) -> tuple[int, int]:
    """Plan and do the games; frames read by the last plan, and those read before.

    An exact draw that damaged files leave short is made again, passing over their checkpoints.
    """
    faults: dict[str, dict[str, Fault]] = {game: {} for game in todo}
    avoid: dict[str, set[tuple[int, int]]] = {game: set() for game in todo}
    while True:
        left = [game for game in todo if not writer.num_episodes(game)]
        games = _plan_games(config, pool, ahead, left, faults, avoid, progress)
        _prepare(writer, config, games)
        try:
            return _import_pieces(writer, config, games, pool, ahead, progress)
        except TooFewTransitions as error:
            if error.bad <= avoid[error.game]:
                raise
            avoid[error.game] |= error.bad
            plan = next(plan for plan, _ in games if plan.game == error.game)
            _forget_markers(config.out, plan.game)
            for job in _jobs(writer, config, plan):
                remove_block(job)


def _plan_games(
    config: ImportConfig,
    pool: Executor,
    ahead: int,
    games: list[str],
    faults: dict[str, dict[str, Fault]],
    avoid: dict[str, set[tuple[int, int]]],
    progress: bool,
) -> list[tuple[Plan, dict[str, Fault]]]:
    """List and scan all checkpoints, then plan every game; adds to the ``faults`` that are known."""
    logs: dict[str, list[Log]] = {game: [] for game in games}
    checkpoints: list[Checkpoint] = []
    for game in games:
        for run in sorted(config.runs):
            present, missing = _list_run(config, game, run)
            checkpoints += present
            for fault in missing:
                _note(config, faults[game], fault)
    with _shown("scanning", len(checkpoints), "checkpoints", 0, progress) as advance:
        for done, (checkpoint, found) in enumerate(as_finished(pool, ahead, scan, checkpoints), 1):
            if isinstance(found, Fault):
                _note(config, faults[checkpoint.game], found)
            else:
                logs[checkpoint.game].append(found)
            advance(done)
    for game in games:
        logs[game].sort(key=lambda log: (log.run, log.number))
    draw = (config.crossing, config.seed, config.fraction, config.transitions)
    return [(make_plan(config.address, game, logs[game], *draw, avoid[game]), faults[game]) for game in games]


def _list_run(config: ImportConfig, game: str, run: int) -> tuple[list[Checkpoint], list[Fault]]:
    """The checkpoints of the subset that are complete, and the files that the others lack."""
    listed = list_checkpoints(config.address, game, run)
    chosen = choose_checkpoints(list(range(max(listed) + 1)), config.subset)
    present, faults = [], []
    for number in range(chosen[0], chosen[-1] + 1):
        checkpoint = Checkpoint(config.address, game, run, number)
        missing = [kind for kind in FILES if kind not in listed.get(number, ())]
        faults += [Fault(run, number, checkpoint.file(kind), "is missing") for kind in missing]
        if not missing:
            present.append(checkpoint)
    return present, faults


def _note(config: ImportConfig, faults: dict[str, Fault], fault: Fault) -> None:
    """Keep ``fault`` for the report, or stop at it."""
    if config.on_error == "stop":
        raise DataError(
            f"{fault.describe()}: mend or fetch it again and rerun (finished pieces are kept), or leave its episodes "
            "out with --on-error skip"
        )
    faults.setdefault(fault.file, fault)


def _prepare(writer: EpisodeWriter, config: ImportConfig, games: list[tuple[Plan, dict[str, Fault]]]) -> None:
    """Note the settings before anything follows from them, and make the games' groups."""
    imported = dict(writer.attributes.get(IMPORTED, {}))
    begun = {plan.game: imported.get(plan.game, {"settings": config.settings()}) for plan, _ in games}
    if imported | begun != imported:
        writer.update_attributes({IMPORTED: imported | begun})
    for plan, _ in games:
        writer.create(plan.game)


def _import_pieces(
    writer: EpisodeWriter,
    config: ImportConfig,
    plans: list[tuple[Plan, dict[str, Fault]]],
    pool: Executor,
    ahead: int,
    progress: bool,
) -> tuple[int, int]:
    """Do all pieces that are not done and commit the games; returns frames read now, and those read before."""
    games = []
    for plan, faults in plans:
        game = _Game(plan, _jobs(writer, config, plan), faults)
        done = {place: finished(job) for place, job in enumerate(game.jobs)}
        game.outcomes = {place: outcome for place, outcome in done.items() if outcome is not None}
        games.append(game)
    resumed = sum(game.jobs[place].piece.frames for game in games for place in game.outcomes)
    open_jobs = {
        job.marker: (game, place) for game in games for place, job in enumerate(game.jobs) if place not in game.outcomes
    }
    total = sum(job.piece.frames for game in games for job in game.jobs)
    for game in games:
        _commit_if_whole(writer, config, game)
    frames = resumed
    with _shown("importing", total, "frames", resumed, progress) as advance:
        jobs = [game.jobs[place] for game, place in open_jobs.values()]
        for job, outcome in as_finished(pool, ahead, import_piece, jobs):
            game, place = open_jobs[job.marker]
            game.outcomes[place] = outcome
            for fault in outcome.faults:
                _note(config, game.faults, fault)
            frames += job.piece.frames
            advance(frames, f"{job.piece.game} {job.piece.name}")
            _commit_if_whole(writer, config, game)
    return frames - resumed, resumed


def _jobs(writer: EpisodeWriter, config: ImportConfig, plan: Plan) -> list[Job]:
    folder = config.out.resolve() / MARKERS / plan.game
    # A cluster's workers have working folders of their own.
    infos = {name: replace(info, folder=info.folder.resolve()) for name, info in writer.infos(plan.game).items()}
    return [Job(piece, infos, folder / f"{piece.name}.json") for piece in plan.pieces]


def _shown(
    title: str, total: int, unit: str, start: int, progress: bool
) -> AbstractContextManager[Callable[..., None]]:
    return steps_progress(title, total, unit, start) if progress else nullcontext(lambda *_: None)


def _commit_if_whole(writer: EpisodeWriter, config: ImportConfig, game: _Game) -> None:
    """Make the episodes of ``game`` part of the store once no piece is missing."""
    if len(game.outcomes) < len(game.jobs):
        return
    plan, faults = game.plan, [game.faults[file] for file in sorted(game.faults)]
    taken = [item for place in sorted(game.outcomes) for item in game.outcomes[place].taken]
    items, counts = settle(plan, taken, {(fault.run, fault.number) for fault in faults}, config.transitions)
    if not items:
        raise DataError(f"{plan.game}: all drawn episodes lie in damaged files, among them {faults[0].describe()}")
    # The report first: with the commit, one rename, the game is imported for good.
    report = {"settings": config.settings(), "counts": counts, "faults": [asdict(fault) for fault in faults]}
    writer.update_attributes({IMPORTED: writer.attributes[IMPORTED] | {plan.game: report}})
    rows = items[-1].offset + items[-1].length
    writer.commit(plan.game, table(plan, items), [policy(plan, item) for item in items], rows)
    _forget_markers(config.out, plan.game)


def _forget_markers(out: Path, game: str) -> None:
    folder = out / MARKERS / game
    if folder.is_dir():
        for marker in folder.iterdir():
            marker.unlink()
        folder.rmdir()
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _report(writer: EpisodeWriter, game: str, reused: bool) -> GameReport:
    noted = writer.attributes[IMPORTED][game]
    files = (writer.path / game / "frames" / "c").rglob("0")
    size = sum(file.stat().st_size for file in files if file.is_file())
    return GameReport(game, noted["counts"], [Fault(**fault) for fault in noted["faults"]], size, reused)
