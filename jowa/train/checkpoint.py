"""Checkpoints on disk: written whole or not at all, checked before they are read, the last and the best kept.

A checkpoint is a folder ``step-00001000``: what torch.distributed.checkpoint writes (a file of tensors for each
process, which any number of processes can read), and ``manifest.json`` with what is no tensor and a checksum of every
file.  It is written under another name, flushed, and renamed: a half-written one never has a checkpoint's name.
What it holds is pickled in part, so load only checkpoints that you trust.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult

from jowa.errors import CheckpointError
from jowa.files import PARTIAL, atomic_write_text, flush_folder

MANIFEST, BEST = "manifest.json", "best.json"
FORMAT = 1
WAY_OUT = "start anew with --restart, or choose another --out"
_NAME = re.compile(r"step-(\d{8,})")
_READ = 1 << 22
_DAMAGED = "damaged-"


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after ``step``."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step after which the checkpoint ``path`` was written."""
    return int(path.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first; :func:`read_manifest` says whether one is undamaged."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def read_manifest(path: Path) -> dict[str, Any]:
    """What the checkpoint ``path`` says of itself, after every file was compared with its checksum.

    Raises :class:`CheckpointError`, with the reason alone, when something is missing or damaged.
    """
    try:
        manifest: Any = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise CheckpointError(f"its {MANIFEST} is not of format {FORMAT}")
        for name, expected in manifest["files"].items():
            size, found = (path / name).stat().st_size, None
            if size == expected["bytes"]:
                found = _checksum(path / name)
            if found != expected["crc32c"]:
                raise CheckpointError(f"{name} has {size} bytes" if found is None else f"{name} has another checksum")
    except FileNotFoundError as error:
        raise CheckpointError(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"its {MANIFEST} is damaged") from error
    return manifest


def newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint and its manifest, or None if the run has none.

    Newer ones that are damaged are put aside, and a line says so.  Raises :class:`CheckpointError` when all are
    damaged, or when what lies there is of an older version.
    """
    refuse_old_format(folder)
    damaged: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(folder)):
        try:
            manifest = read_manifest(path)
        except CheckpointError as error:
            damaged.append((path, str(error)))
            continue
        for bad, reason in damaged:
            aside = bad.with_name(_DAMAGED + bad.name)
            shutil.rmtree(aside, ignore_errors=True)
            bad.rename(aside)
            print(f"{bad} is damaged ({reason}): it is now {aside.name}, going on from {path.name}", flush=True)
        return path, manifest
    if damaged:
        path, reason = damaged[0]
        raise CheckpointError(
            f"{path} is damaged ({reason}), and so is every one before it: restore one from a copy, or {WAY_OUT}"
        )
    return None


def refuse_old_format(folder: Path) -> None:
    """Raise :class:`CheckpointError` for a run whose checkpoints are the single files of an older version."""
    old = sorted(folder.glob("step-*.pt"))
    if old and not checkpoints(folder):
        raise CheckpointError(
            f"{old[-1]} is a checkpoint of an older version of jowa.train, a single file, which this version cannot "
            f"read (compatibility begins with 1.0): go on with the version that wrote it, {WAY_OUT}"
        )


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while it wrote or deleted a checkpoint left behind."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints and the best one."""
    best = read_best(folder)
    for path in checkpoints(folder)[:-keep]:
        if best is None or step_of(path) != best[0]:
            remove(path)


def remove(path: Path) -> None:
    """Delete a checkpoint; it loses its name first, so that half of it is never taken for a whole one."""
    aside = path.with_name(f".{path.name}.deleted{PARTIAL}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def read_best(folder: Path) -> tuple[int, float] | None:
    """(step, score) of the best checkpoint, None if there is none or it is gone."""
    try:
        found = json.loads((folder / BEST).read_text(encoding="utf-8"))
        step, score = int(found["step"]), float(found["score"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (step, score) if (folder / checkpoint_name(step)).is_dir() else None


def write_best(folder: Path, step: int, score: float) -> None:
    """Note that the checkpoint after ``step`` is the best."""
    atomic_write_text(folder / BEST, json.dumps({"step": step, "score": score}) + "\n")


class CheckpointWriter(FileSystemWriter):
    """Lets torch.distributed.checkpoint write a folder that gets its name when it is whole."""

    def __init__(self, folder: Path, step: int, facts: dict[str, Any], published: Callable[[], None]) -> None:
        """``facts``: what the manifest says; ``published``: called in the main process, with the checkpoint there."""
        self.final = folder / checkpoint_name(step)
        self.partial = folder / f".{self.final.name}{PARTIAL}"
        self.facts, self.published = facts, published
        super().__init__(self.partial)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called in the main process alone, after the files of every process have reached the disk."""
        super().finish(metadata, results)
        files = {
            path.name: {"bytes": path.stat().st_size, "crc32c": _checksum(path)}
            for path in sorted(self.partial.iterdir())
        }
        with (self.partial / MANIFEST).open("w", encoding="utf-8") as file:
            file.write(json.dumps({"format": FORMAT, **self.facts, "files": files}, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        flush_folder(self.partial)
        if self.final.exists():
            remove(self.final)
        self.partial.rename(self.final)
        flush_folder(self.final.parent)
        self.published()


def _checksum(path: Path) -> str:
    """CRC-32C of a file, in hexadecimal digits."""
    import google_crc32c  # here: a step of training is measured where there are only torch, Triton and NumPy

    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_READ):
            checksum = google_crc32c.extend(checksum, piece)
    return f"{checksum:08x}"
