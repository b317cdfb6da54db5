"""What the output folder of a run holds, and whether it belongs to the present settings.

A second run of the same command goes on from what it finds.  With other settings that would mix two
runs silently, so it is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jowa.errors import CheckpointError, UsageError
from jowa.files import atomic_write_text
from jowa.train.checkpoint import checkpoints, refuse_old_format, remove_leftovers
from jowa.train.config import TrainConfig
from jowa.train.profile import PROFILE
from jowa.train.watch import BAD_BATCH

CHECKPOINTS, SETTINGS, RESULTS, AGENT, PICTURE, METRICS = (
    "checkpoints", "config.json", "results.json", "agent", "imagined.png", "tensorboard",
)  # fmt: skip

MARKS = (b'"stage1"', b'"rival"')
"""One of them is in the settings of every run: of :mod:`jowa.train`, of :mod:`jowa.baselines`."""

FREE = frozenset({
    "out", "device", "checkpoint", "log_every", "restart", "parallel", "health", "draft", "evaluation", "dry_run",
    "dry_run_gpu", "dry_run_gpus", "profile_steps",
})  # fmt: skip
"""Settings that may differ from those a run began with: they bear on speed, memory and what is written.  (Other
microbatches draw other dropout.)"""

DATA_STEPS = "recorded_steps"
"""Key of ``config.json`` beside the settings: agent steps of each game in the data set."""


class TrainedOn(Protocol):
    """What a run reads."""

    @property
    def path(self) -> Path:
        """Folder of the episode store."""

    @property
    def games(self) -> tuple[str, ...]:
        """Games of it that the run trains on."""


class RunSettings(Protocol):
    """A frozen dataclass with the settings of a run: :class:`TrainConfig`, or those of a rival."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def out(self) -> Path:
        """The run's folder."""

    @property
    def restart(self) -> bool:
        """Whether to delete what an earlier run wrote there."""

    @property
    def data(self) -> TrainedOn:
        """What the run reads."""


def begin(config: RunSettings) -> None:
    """Make ``config.out`` ready: cleared for ``--restart``, rid of leftovers, checked to be of the same settings.

    Raises :class:`UsageError` naming the first difference, :class:`CheckpointError` when the settings are damaged.
    """
    _refuse_strangers(config.out)
    # When torchrun starts the processes anew because one died, it repeats their options: the run goes on.
    if config.restart and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        clear(config.out)
    refuse_old_format(config.out / CHECKPOINTS)
    remove_leftovers(config.out / CHECKPOINTS)
    if checkpoints(config.out / CHECKPOINTS):
        _check_same(config.out, _stored(config.out), settings_document(config))


def write_settings(config: RunSettings) -> None:
    """Note the settings and the extent of the data set in ``config.json``.

    Raises :class:`UsageError` when a run found there was trained on a data set of another extent.
    """
    from jowa.data.store import EpisodeStore

    store = EpisodeStore.open(config.data.path)
    extent = {game: store.num_steps(game) for game in config.data.games if game in store.games}
    document = settings_document(config)
    if checkpoints(config.out / CHECKPOINTS):
        _check_same(config.out, {DATA_STEPS: _stored(config.out).get(DATA_STEPS, extent)}, {DATA_STEPS: extent})
    atomic_write_text(config.out / SETTINGS, json.dumps(document | {DATA_STEPS: extent}, indent=2) + "\n")


def _refuse_strangers(out: Path) -> None:
    """Raise :class:`UsageError` when ``out`` holds files of other kinds under the names that a run would write."""
    path = out / SETTINGS
    ours = (out / CHECKPOINTS).exists() or not path.exists() or any(mark in path.read_bytes() for mark in MARKS)
    if not ours or (out / "model.safetensors").exists():
        raise UsageError(f"{out} holds something else than a training run, such as an agent: choose another --out")


def clear(out: Path) -> None:
    """Delete everything that a run writes, and nothing else."""
    from jowa.data.tokens import TOKENS

    for name in (CHECKPOINTS, AGENT, METRICS, TOKENS, PROFILE, "wandb"):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for name in (SETTINGS, RESULTS, PICTURE):
        (out / name).unlink(missing_ok=True)
    for kept in out.glob(f"{BAD_BATCH}-*.npz"):
        kept.unlink()


def read_results(config: TrainConfig) -> dict[str, Any] | None:
    """The scores of an earlier run of the same evaluation of the finished agent; None when there are none.

    Raises :class:`CheckpointError` when the file is damaged.
    """
    path = config.out / RESULTS
    if not path.exists():
        return None
    document = _read_json(path, "delete it and run again")
    if not {"step", "settings", "rows"} <= set(document):
        raise CheckpointError(f"{path} holds no results of jowa.train: delete it and run again")
    wanted = (config.stage1.steps + config.stage2.steps, dataclasses.asdict(config.evaluation))
    return document if (document["step"], document["settings"]) == wanted else None


def settings_document(config: RunSettings) -> dict[str, Any]:
    """The settings as JSON would give them back."""
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return document


def _stored(out: Path) -> dict[str, Any]:
    path = out / SETTINGS
    way_out = "restore it, choose another --out, or start anew with --restart"
    if not path.exists():
        raise CheckpointError(f"{out} holds checkpoints but no {SETTINGS}, which says how they were trained: {way_out}")
    return _read_json(path, way_out)


def _read_json(path: Path, way_out: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): {way_out}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} holds no JSON object: {way_out}")
    return document


def _check_same(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, old, new in _differences(before, now, ""):
        raise UsageError(
            f"the run in {out} has {name} = {old}, now it is {new}: "
            "use the same settings, choose another --out, or start anew with --restart"
        )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """(name, old, new) of every setting of ``now`` that was another before."""
    for key, new in now.items():
        old = before.get(key)
        if old == new or (not prefix and key in FREE):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", old, new
