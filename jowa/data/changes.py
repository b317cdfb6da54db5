"""Whether the files of a store are still those that a long-running reader began with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jowa.data import schema
from jowa.data.store import EpisodeStore
from jowa.errors import DataError

Stamp = tuple[int, int, int]
"""Size, time of the last change in nanoseconds, and inode of a file."""


class UnchangedFiles:
    """The shards of some games of a local store, as they were when this was made; of a remote one, none."""

    def __init__(self, store: EpisodeStore, games: Iterable[str]) -> None:
        self.store = store
        self._stamps: dict[Path, Stamp | None] = {}
        for game in games if not store.is_remote else ():
            for name in schema.STEP_ARRAYS:
                info = store.rows(game, name).info
                for shard in range(-(-store.num_rows(game) // info.shard_rows)):
                    file = info.shard_file(shard)
                    self._stamps[file] = _stamp(file)

    def check(self) -> None:
        """Raise :class:`DataError` naming the first file that was changed, replaced or deleted."""
        for file, stamp in self._stamps.items():
            now = _stamp(file)
            if now != stamp:
                what = "was deleted" if now is None else "was changed"
                raise DataError(
                    f"{file} {what} while the data set was in use: what is trained on must stay as it is; record or "
                    f"import into another folder than {self.store.path}, restore this one from a copy, and run the "
                    "same command again to go on from the last checkpoint"
                )


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
