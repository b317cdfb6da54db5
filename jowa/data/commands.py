"""The options of ``python -m jowa.data``: a dataclass for each verb, which runs it and prints what came of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from jowa.data import info
from jowa.data.merge import merge
from jowa.data.minari_export import export
from jowa.data.minari_import import import_episodes, open_source
from jowa.data.remote import is_remote
from jowa.data.store import EpisodeStore
from jowa.data.verify import verify
from jowa.errors import DataError, UsageError

PLAIN_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""


@dataclass(frozen=True)
class Info:
    """List what a data set holds, game by game."""

    store: Positional[str]
    """Folder of the data set, or an address such as gs://bucket/store."""

    def run(self) -> None:
        """Print a table of the games, and where they came from."""
        store, rows = info.list_games(self.store)
        console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
        console.print(info.table_of(rows))
        sums = [sum(getattr(row, name) for row in rows) for name in ("episodes", "steps", "total_bytes")]
        version = f"schema {store.attributes['schema']} version {store.attributes['version']}"
        print(f"{self.store}: {version}, {sums[0]:,} episodes, {sums[1]:,} steps, {info.megabytes(sums[2])}")
        for line in info.origin(store.attributes):
            print(line)


@dataclass(frozen=True)
class Merge:
    """Join data sets into a new one; run again after an interruption, it goes on."""

    stores: Positional[tuple[str, ...]]
    """Folders of the data sets, in the order in which their episodes shall come."""
    out: Path
    """Folder of the new data set."""
    layout: str = "default"
    """How frames are packed: default, or fast (quicker to read, larger)."""
    games: tuple[str, ...] = ()
    """Only these games; default: all."""

    def run(self) -> None:
        """Merge, and print what came from where."""
        for line in merge(self.stores, self.out, self.layout, self.games).describe():
            print(line)


@dataclass(frozen=True)
class Verify:
    """Check every document, checksum and invariant of a data set; exit code 1 when anything is wrong."""

    store: Positional[str]
    """Folder of the data set."""
    threads: int = 0
    """Files that are checked at once; 0: as many as there are CPU cores."""

    def run(self) -> None:
        """Print a line for everything that is wrong; :class:`DataError` when there is any."""
        if is_remote(self.store):
            raise UsageError(f"{self.store} is remote: copy it into a folder first, verify reads every byte of it")
        if self.threads < 0:
            raise UsageError(f"--threads {self.threads}: expected 0 or more")
        report = verify(Path(self.store), self.threads)
        for finding in report.findings:
            kind = "note" if finding.harmless else "damaged"
            print(f"{kind}: {finding.file.relative_to(report.path)}: {finding.what}")
        print(report.describe())
        if report.damage:
            things = "thing is" if len(report.damage) == 1 else "things are"
            raise DataError(
                f"{self.store}: {len(report.damage)} {things} wrong: restore these files from a copy, or make their "
                "episodes anew"
            )


@dataclass(frozen=True)
class Export:
    """Write one game as a Minari data set; importing that gives the same episodes again."""

    store: Positional[str]
    """Folder of the data set, or an address such as gs://bucket/store."""
    out: Positional[Path]
    """Folder to write; its name is Minari's id of the data set, for example pong-v0."""
    game: str | None = None
    """Which game, where the store has several."""

    def run(self) -> None:
        """Export, and say how much."""
        episodes, steps = export(EpisodeStore.open(self.store), self.out, self.game)
        print(f"{self.out}: {episodes:,} episodes, {steps:,} steps")


@dataclass(frozen=True)
class Import:
    """Take the episodes of a Minari data set of 84 x 84 grey frames; run again, it goes on."""

    minari: Positional[Path]
    """Folder of the Minari data set."""
    out: Positional[Path]
    """Folder of the data set to write; games from elsewhere in it stay as they are."""
    game: str | None = None
    """Whose episodes they are, where the data set does not say."""
    minimal_actions: bool = False
    """The actions index the game's minimal set, not ALE's full set of 18."""
    layout: str = "default"
    """How frames are packed: default, or fast (quicker to read, larger)."""

    def run(self) -> None:
        """Import, and say how much and what was changed."""
        source = open_source(self.minari, self.game, self.minimal_actions)
        print(import_episodes(source, self.out, self.layout).describe())
