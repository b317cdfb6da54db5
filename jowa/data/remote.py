"""Stores that live elsewhere: a local folder that mirrors a remote one, filled as its shards are needed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import posixpath
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from jowa.data.schema import EPISODE_ARRAYS, STEP_ARRAYS
from jowa.errors import DataError, UsageError
from jowa.files import PARTIAL, atomic_write

PARALLEL = 16
"""Files fetched at once."""
TRIES = 5
TOKENS = "tokens"
"""Made locally; a remote store's own are not fetched."""


_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)")


def remote_address(path: str | os.PathLike[str]) -> str | None:
    """The address (``gs://bucket/store``) that ``path`` is, None for a folder.

    A :class:`Path` made of an address has lost one of its slashes; it is given back.
    """
    match = _ADDRESS.fullmatch(str(path))
    if match is None or Path(path).exists():
        return None
    protocol, rest = match.groups()
    return f"{protocol}://{'/' if protocol in ('file', 'local') else ''}{rest}"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is an address and not a folder."""
    return remote_address(path) is not None


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
            f"{url} cannot be opened ({error}): pip install gcsfs (gs://) or s3fs (s3://), or check the address"
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
        """Fetch the documents and episode tables of the store at ``url``.

        Shards fetched before are used again for games whose documents and tables are what they were; everything of a
        game that changed is forgotten.  A refresh that is interrupted is begun anew by the next one.
        Raises :class:`DataError` when there is no store or it cannot be reached.
        """
        filesystem, remote = open_filesystem(url)
        base = Path(cache) if cache is not None else Path.home() / ".cache" / "jowa"
        name = f"{posixpath.basename(remote.rstrip('/'))}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        mirror = cls(filesystem, remote.rstrip("/"), base / name)
        mirror.folder.mkdir(parents=True, exist_ok=True)
        with open(mirror.folder / "mirror.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of one run open the same store at once
            try:
                mirror._refresh(url)
            except OSError as error:
                raise DataError(f"{url} could not be read ({error}): check the connection and run it again") from None
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

    def _refresh(self, url: str) -> None:
        if not self.filesystem.exists(f"{self.remote}/zarr.json"):
            raise DataError(f"no data set at {url}: expected a jowa-episodes store")
        entries = self.filesystem.ls(self.remote, detail=True)
        folders = (posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")
        games = [name for name in folders if name[0] != "." and name != TOKENS and not name.endswith(PARTIAL)]
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in (*games, TOKENS):
                shutil.rmtree(entry)
        for game in games:
            self._refresh_game(game)
        self._fetch(self.folder / "zarr.json")

    def _refresh_game(self, game: str) -> None:
        commit = f"{game}/zarr.json"
        for _ in range(TRIES):  # until nobody committed meanwhile
            before = self.filesystem.cat_file(f"{self.remote}/{commit}")
            names = [f"{game}/{name}/zarr.json" for name in (*STEP_ARRAYS, *EPISODE_ARRAYS)]
            for name in EPISODE_ARRAYS:
                found = self.filesystem.glob(f"{self.remote}/{game}/{name}/c/*")
                names += [posixpath.relpath(entry, self.remote) for entry in found]
            contents = {name: self.filesystem.cat_file(f"{self.remote}/{name}") for name in names} | {commit: before}
            if self.filesystem.cat_file(f"{self.remote}/{commit}") == before:
                break
        else:
            raise DataError(
                f"{self.remote}/{game} changes faster than it can be read: try again when its writer is done"
            )
        if all(_holds(self.folder / name, content) for name, content in contents.items()):
            return
        if (self.folder / game).exists():
            # The commit first, so that what an interruption leaves is no game.
            (self.folder / commit).unlink(missing_ok=True)
            shutil.rmtree(self.folder / game)
        for name, content in contents.items():  # and last
            atomic_write(self.folder / name, partial(_write, content))


def _holds(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def _write(content: bytes, file: Path) -> int:
    return file.write_bytes(content)
