"""What an agent folder says of itself in ``config.json``, read with checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jowa.config import ModelConfig, TokenizerConfig, config_from_dict
from jowa.errors import CheckpointError

FORMAT = 1
"""Version of the agent folder."""


def read_sizes(folder: Path) -> tuple[TokenizerConfig, ModelConfig, dict[str, int]]:
    """Sizes and task ids of the agent in ``folder``, without its weights; :class:`CheckpointError` as of loading."""
    config, where = read_config(folder), str(folder / "config.json")
    model = config_from_dict(ModelConfig, config["model"], where)
    tokenizer = config_from_dict(TokenizerConfig, config["tokenizer"], where)
    check_tasks(config["tasks"], model.num_tasks, where)
    return tokenizer, model, config["tasks"]


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says; :class:`CheckpointError` when there is none, or one of something else."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not an agent: it has no config.json; train one with python -m jowa.train, or import a "
            "published checkpoint with python -m jowa.convert"
        )
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}): restore it or write the agent anew") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object: restore it or write the agent anew")
    if "stage1" in config and (folder / "agent" / "config.json").is_file():
        raise CheckpointError(f"{folder} is a training run, not an agent: its agent is {folder / 'agent'}")
    if "rival" in config:
        raise CheckpointError(
            f"{folder} holds a rival, {config['rival']}, not an agent: python -m jowa.evaluate plays it"
        )
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {config.get('format')!r}, this version reads {FORMAT}: convert it anew"
        )
    absent = {"tokenizer", "model", "tasks", "planning"} - set(config)
    if absent:
        raise CheckpointError(f"{path} lacks {sorted(absent)[0]!r}: restore it or write the agent anew")
    return config


def check_tasks(tasks: object, count: int, where: str) -> None:
    """Raise :class:`CheckpointError` unless ``tasks`` maps game names to task ids below ``count``."""
    if not isinstance(tasks, dict):
        raise CheckpointError(f"{where}: tasks is {tasks!r}, expected game names and their task ids")
    for game, task in tasks.items():
        if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < count:
            raise CheckpointError(f"{where}: the task id of {game} is {task!r}, expected 0 to {count - 1}")
