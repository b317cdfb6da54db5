"""Stores that live elsewhere: a local folder that mirrors a remote one, filled as its shards are needed."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jowa.data.schema import EPISODE_ARRAYS, NUM_ROWS, STEP_ARRAYS
from jowa.errors import DataError, UsageError
from jowa.files import PARTIAL, atomic_write

PARALLEL = 16
"""Files fetched at once."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is an address (``gs://…``) and not a folder."""
    return "://" in str(path)


def open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of ``url``, without credentials where it is public, and the path in it.

    Raises :class:`UsageError` when no installed package knows the protocol.
    """
    import fsspec

    options: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "gcs": {"token": "anon"}, "s3": {"anon": True}}
    protocol = url.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options.get(protocol, {}))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be opened ({error}): pip install 'jowa[remote]', or check the address"
        ) from None
    return filesystem, path


class Mirror:
    """A remote store's documents and, one by one, its shards, in a local folder."""

    def __init__(self, filesystem: Any, remote: str, folder: Path) -> None:
        """Use :meth:`open`."""
        self.filesystem = filesystem
        self.remote = remote
        self.folder = folder
        self._present: set[Path] = set()

    @classmethod
    def open(cls, url: str, cache: str | os.PathLike[str] | None = None) -> Mirror:
        """Fetch all documents and episode tables of the store at ``url``.

        Shards fetched before are used again, but for a game that grew meanwhile: its last ones may have changed.
        Raises :class:`DataError` when there is no store.
        """
        filesystem, remote = open_filesystem(url)
        base = Path(cache) if cache is not None else Path.home() / ".cache" / "jowa"
        name = f"{posixpath.basename(remote.rstrip('/'))}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        mirror = cls(filesystem, remote.rstrip("/"), base / name)
        if not filesystem.exists(f"{mirror.remote}/zarr.json"):
            raise DataError(f"no data set at {url}: expected a jowa-episodes store")
        mirror.folder.mkdir(parents=True, exist_ok=True)
        mirror._refresh(["zarr.json"])
        for entry in filesystem.ls(mirror.remote, detail=True):
            game = posixpath.basename(entry["name"].rstrip("/"))
            if entry["type"] == "directory" and not game.startswith(".") and not game.endswith(PARTIAL):
                mirror._refresh_game(game)
        return mirror

    def fetch(self, files: Iterable[Path]) -> None:
        """Make sure that ``files`` of the folder are there; those that the remote store lacks stay missing."""
        wanted = [file for file in files if file not in self._present]
        absent = [file for file in wanted if not file.exists()]
        if len(absent) > 1:
            with ThreadPoolExecutor(PARALLEL) as pool:
                list(pool.map(self._fetch, absent))
        else:
            for file in absent:
                self._fetch(file)
        self._present.update(wanted)

    def _fetch(self, file: Path) -> None:
        remote = f"{self.remote}/{file.relative_to(self.folder).as_posix()}"
        try:
            atomic_write(file, lambda temporary: self.filesystem.get_file(remote, str(temporary)))
        except FileNotFoundError:
            return  # reading it will say which episodes suffer
        except OSError as error:
            raise DataError(f"{remote} could not be fetched ({error}): check the connection and run it again") from None

    def _refresh(self, names: Iterable[str]) -> None:
        for name in names:
            self._fetch(self.folder / name)

    def _refresh_game(self, game: str) -> None:
        documents = [f"{game}/{name}/zarr.json" for name in (*STEP_ARRAYS, *EPISODE_ARRAYS)]
        before = self.folder / game / "zarr.json"
        old = before.read_bytes() if before.exists() else None
        self._refresh([f"{game}/zarr.json"])
        if before.exists() and before.read_bytes() == old:
            self.fetch(self.folder / document for document in documents)
        else:
            if old is not None:
                self._forget_growing(game, old)
            self._refresh(documents)
        tables = [
            entry for name in EPISODE_ARRAYS for entry in self.filesystem.glob(f"{self.remote}/{game}/{name}/c/*")
        ]
        files = [self.folder / posixpath.relpath(entry, self.remote) for entry in tables]
        if before.exists() and before.read_bytes() == old:
            self.fetch(files)
        else:
            self._refresh(str(file.relative_to(self.folder)) for file in files)

    def _forget_growing(self, game: str, old: bytes) -> None:
        """Drop the shards that held the last rows when they were fetched."""
        rows = int(json.loads(old)["attributes"].get(NUM_ROWS, 0))
        for name, (_, shape) in STEP_ARRAYS.items():
            document = json.loads((self.folder / game / name / "zarr.json").read_bytes())
            last = max(rows - 1, 0) // int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
            file = self.folder.joinpath(game, name, "c", str(last), *["0"] * len(shape))
            file.unlink(missing_ok=True)
