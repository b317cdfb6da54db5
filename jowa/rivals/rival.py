"""A trained rival and the folder that it is kept in.

The folder holds ``config.json``, ``model.safetensors`` and, for those that read tokens, ``tokenizer.safetensors``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jowa.agent_folder import check_tasks
from jowa.config import TokenizerConfig, config_from_dict
from jowa.devices import choose_device, choose_precision
from jowa.errors import CheckpointError, UsageError
from jowa.files import atomic_write_text
from jowa.games import GAMES, task_id
from jowa.rivals.config import KINDS, ConvConfig, Kind, Playing, SequenceConfig
from jowa.rivals.conv import ConvCritic
from jowa.rivals.player import RivalPlayer
from jowa.rivals.sequence import SequencePolicy
from jowa.tokenizer import Tokenizer
from jowa.weights import load_weights, save_weights

FORMAT = 1
"""Version of the folder."""
KIND = "rival"
"""Key of ``config.json`` that tells a rival from an agent."""
KEYS = {"size", "model", "tokenizer", "tasks", "playing"}


class Rival:
    """A rival's networks in evaluation mode, with the task ids that they were trained under."""

    def __init__(
        self,
        kind: Kind,
        size: str,
        model: SequencePolicy | ConvCritic,
        tokenizer: Tokenizer | None,
        tasks: Mapping[str, int],
        autocast: torch.dtype | None = None,
        playing: Playing | None = None,
    ) -> None:
        """``size``: what results call it; ``tokenizer``: for ``mtbc`` and ``mgdt``; ``tasks``: game name to task id,
        for the games trained on; ``autocast``: dtype of the computation."""
        self.kind, self.size = kind, size
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = None if tokenizer is None else tokenizer.eval().requires_grad_(False)
        self.tasks, self.autocast, self.playing = dict(tasks), autocast, playing or Playing()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.model.parameters()).device

    def task_id(self, game: str) -> int:
        """The task id that ``game`` was trained under; failing that the paper's borrowed one, or its own."""
        return task_id(game, self.tasks)

    def player(
        self, games: Sequence[str], generators: Sequence[np.random.Generator], playing: Playing | None = None
    ) -> RivalPlayer:
        """Someone who plays one slot of each of ``games`` at once; each slot draws from its own generator."""
        return RivalPlayer(self, games, generators, playing or self.playing)

    def save(self, folder: Path) -> None:
        """Write the folder; each file atomically, ``config.json`` last."""
        fingerprint = None
        if self.tokenizer is not None:
            fingerprint = self.tokenizer.fingerprint()
            save_weights(self.tokenizer.playing_state(), folder / "tokenizer.safetensors", fingerprint)
        save_weights(_saved_part(self.model).state_dict(), folder / "model.safetensors", fingerprint)
        config = {
            "format": FORMAT,
            KIND: self.kind,
            "size": self.size,
            "model": dataclasses.asdict(self.model.config),
            "tokenizer": None if self.tokenizer is None else dataclasses.asdict(self.tokenizer.config),
            "tasks": self.tasks,
            "playing": dataclasses.asdict(self.playing),
        }
        atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, device: str = "auto", precision: str = "auto") -> Rival:
        """Read a rival's folder; arguments as of :meth:`jowa.agent.Agent.load`.

        Raises :class:`CheckpointError` when a file is missing, damaged, or of other sizes than ``config.json`` says.
        """
        config, where = _read_config(folder), str(folder / "config.json")
        kind: Kind = config[KIND]
        place = choose_device(device)
        tokenizer = None
        if config["tokenizer"] is not None:
            tokenizer = Tokenizer(config_from_dict(TokenizerConfig, config["tokenizer"], where))
        sizes: SequenceConfig | ConvConfig
        if kind == "scaled-ql":
            sizes = config_from_dict(ConvConfig, config["model"], where)
        else:
            sizes = config_from_dict(SequenceConfig, config["model"], where)
        check_tasks(config["tasks"], len(GAMES), where)
        try:
            model = make_network(kind, sizes, tokenizer)
        except (UsageError, RuntimeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{where} describes impossible networks ({error}): restore it") from error
        trained_with = load_weights(_saved_part(model), folder / "model.safetensors")
        if tokenizer is not None and load_weights(tokenizer, folder / "tokenizer.safetensors") != trained_with:
            raise CheckpointError(
                f"{folder} holds the tokenizer and the model of different rivals, perhaps because saving was "
                "interrupted: train it anew, or restore it"
            )
        if isinstance(model, ConvCritic):
            model.update_target()
        playing = config_from_dict(Playing, config["playing"], where)
        return cls(
            kind, config["size"], model.to(place), None if tokenizer is None else tokenizer.to(place), config["tasks"],
            choose_precision(precision, place), playing,
        )  # fmt: skip


def is_rival(folder: Path) -> bool:
    """Whether ``folder`` holds a rival, rather than an agent or nothing."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and KIND in config and "format" in config


def make_network(
    kind: Kind, sizes: SequenceConfig | ConvConfig, tokenizer: Tokenizer | None
) -> SequencePolicy | ConvCritic:
    """The untrained network of ``kind``; ``tokenizer``: whose tokens it reads, None for ``scaled-ql``."""
    if isinstance(sizes, ConvConfig):
        return ConvCritic(sizes)
    if tokenizer is None:
        raise UsageError(f"{kind} reads tokens, expected the tokenizer that makes them")
    return SequencePolicy(sizes, tokenizer.config.vocab_size, conditioned=kind == "mgdt")


def _saved_part(model: SequencePolicy | ConvCritic) -> torch.nn.Module:
    """What playing needs."""
    return model.network if isinstance(model, ConvCritic) else model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not is_rival(folder):
        raise CheckpointError(
            f"{folder} is not a rival: it has no config.json of one; train one with python -m jowa.baselines"
        )
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if config["format"] != FORMAT or config[KIND] not in KINDS:
        raise CheckpointError(
            f"{path} is of format {config['format']!r} and kind {config[KIND]!r}, this version reads format {FORMAT} "
            f"and {', '.join(KINDS)}: train it anew"
        )
    if absent := KEYS - set(config):
        raise CheckpointError(f"{path} lacks {sorted(absent)[0]!r}: restore it or train it anew")
    if (config[KIND] == "scaled-ql") != (config["tokenizer"] is None):
        raise CheckpointError(f"{path}: {config[KIND]} with tokenizer {config['tokenizer']!r}: restore it")
    return config
