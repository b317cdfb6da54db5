"""Reading a folder of cases.  Letters: B rows, L steps, V codebook size."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.config import FRAME_SIZE, TOKENS_PER_FRAME, TOKENS_PER_STEP, ModelConfig, ObjectiveConfig, TokenizerConfig
from jowa.errors import DataError, UsageError
from jowa.games import get_game
from jowa.model import WorldActionModel
from jowa.model.published_checkpoint import read_model, read_tokenizer
from jowa.tokenizer import Tokenizer
from jowa.types import Batch

FILES = ("cases.json", "inputs.npz", "expected.npz", "tokenizer.pt", "JOWA.pt")
_SIZES = {
    "layers": "layers",
    "heads": "heads",
    "embed_dim": "width",
    "mlp_dim": "q_width",
    "num_q": "q_ensemble",
    "vocab_size": "vocab_size",
    "max_blocks": "context_steps",
    "max_tasks": "num_tasks",
    "num_actions": "num_actions",
    "num_atoms": "num_atoms",
    "v_min": "v_min",
    "v_max": "v_max",
}
"""Keys of cases.json and the fields of :class:`ModelConfig` that they fix."""
_TOKENIZER_SIZES = {
    "vocab_size": "vocab_size",
    "codebook_dim": "code_dim",
    "channels": "channels",
    "z_channels": "z_channels",
}


class Arrays(Mapping[str, NDArray[Any]]):
    """The arrays of an npz file; a missing one is a :class:`DataError` that names it and the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read as an npz file ({error}): copy the folder anew") from error

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            raise DataError(f"{self.path} lacks the array {name!r}: copy the folder anew")
        return self._arrays[name]

    def __iter__(self) -> Any:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True)
class PlannerCase:
    """One recorded decision of the published beam search."""

    row: int
    context_steps: int
    """The row's first so many frames, and the actions between them, are the memory."""
    width: int
    horizon: int
    action: int
    top_scores: tuple[float, ...]
    """Scores of the final beam, best first."""


@dataclass(frozen=True)
class Cases:
    """A folder of cases: networks, inputs, and what the published implementation answered."""

    tokenizer: Tokenizer
    model: WorldActionModel
    objective: ObjectiveConfig
    batch: Batch
    """B rows; ``tokens`` are the expected ones, so that every group stands alone."""
    expected: Arrays
    planner_cases: tuple[PlannerCase, ...]


def load_cases(folder: Path, device: torch.device) -> Cases:
    """Read ``folder`` onto ``device``; :class:`DataError` or :class:`CheckpointError` for what does not fit."""
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name}: a folder of cases holds {', '.join(FILES)}")
    path = folder / "cases.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config, games, planner_cases = content["config"], content["games"], content["planner_cases"]
        objective = ObjectiveConfig(
            gamma=float(config["gamma"]),
            cql_weight=float(config["cql_weight"]),
            world_weight=float(config["supervised_weight"]),
        )
        heads, v_min, v_max = config["heads"], config["v_min"], config["v_max"]
        cases = tuple(_planner_case(case, path) for case in planner_cases)
    except KeyError as error:
        raise DataError(f"{path} lacks the key {error}: copy the folder anew") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a description of cases ({error}): copy the folder anew") from error
    tokenizer = read_tokenizer(folder / "tokenizer.pt")
    model = read_model(folder / "JOWA.pt", heads, v_min, v_max)
    _check_sizes(config, tokenizer.config, _TOKENIZER_SIZES, path)
    _check_sizes(config, model.config, _SIZES, path)
    if config.get("tokens_per_block", TOKENS_PER_STEP) != TOKENS_PER_STEP:
        raise DataError(f"{path} has tokens_per_block {config['tokens_per_block']}, this code has {TOKENS_PER_STEP}")
    expected = Arrays(folder / "expected.npz")
    batch = _batch(Arrays(folder / "inputs.npz"), expected["tokens"], games, model.config, path)
    _check_planner_rows(cases, len(batch.actions), batch.actions.shape[1], model.config.context_steps, path)
    return Cases(tokenizer.to(device).eval(), model.to(device).eval(), objective, batch.to(device), expected, cases)


def _planner_case(case: Mapping[str, Any], path: Path) -> PlannerCase:
    if case["planner"] != "beam":
        raise DataError(f"{path} has a case for the planner {case['planner']!r}: only beam can be compared")
    return PlannerCase(
        int(case["row"]),
        int(case["context_steps"]),
        int(case["beam_width"]),
        int(case["horizon"]),
        int(case["action"]),
        tuple(float(score) for score in case["top_scores"]),
    )


def _check_sizes(
    config: Mapping[str, Any], read: TokenizerConfig | ModelConfig, names: Mapping[str, str], path: Path
) -> None:
    for theirs, ours in names.items():
        if config.get(theirs) != getattr(read, ours):
            raise DataError(
                f"{path} says {theirs} is {config.get(theirs)}, the weights beside it say {getattr(read, ours)}: "
                "the files are of different cases"
            )


def _check_planner_rows(cases: Sequence[PlannerCase], rows: int, steps: int, longest: int, path: Path) -> None:
    for case in cases:
        if not (0 <= case.row < rows and 1 <= case.context_steps <= steps and case.horizon < longest):
            raise DataError(f"{path}: {case} does not fit inputs of {rows} rows and {steps} steps")


def _batch(inputs: Arrays, tokens: NDArray[Any], games: Sequence[str], config: ModelConfig, path: Path) -> Batch:
    """The inputs as a batch on the CPU, shapes and ranges checked."""
    rows, steps = inputs["frames"].shape[:2]
    known = _games(games, path)
    if len(known) != rows:
        raise DataError(f"{path} names {len(known)} games for {rows} rows of inputs: expected one a row")
    shapes = {
        "frames": (rows, steps, FRAME_SIZE, FRAME_SIZE),
        "tasks": (rows,),
        **dict.fromkeys(("actions", "rewards", "ends", "mask_padding"), (rows, steps)),
    }
    for name, shape in shapes.items():
        if inputs[name].shape != shape:
            raise DataError(f"{inputs.path}: {name} has shape {inputs[name].shape}, expected {shape}")
    if inputs["frames"].dtype != np.uint8:
        raise DataError(f"{inputs.path}: frames are {inputs['frames'].dtype}, expected uint8")
    if steps > config.context_steps or tokens.shape != (rows, steps, TOKENS_PER_FRAME):
        raise DataError(
            f"{inputs.path}: {rows} rows of {steps} steps and expected tokens {tokens.shape} do not fit together, "
            f"or not into a context of {config.context_steps} steps"
        )
    for name, values, limit in (
        ("actions", inputs["actions"], config.num_actions),
        ("tasks", inputs["tasks"], config.num_tasks),
        ("tokens", tokens, config.vocab_size),
    ):
        if values.min() < 0 or values.max() >= limit:
            raise DataError(
                f"{path.parent}: {name} reach from {values.min()} to {values.max()}, expected 0 to {limit - 1}"
            )
    return Batch(
        frames=torch.from_numpy(inputs["frames"]),
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        actions=torch.from_numpy(inputs["actions"].astype(np.int64)),
        rewards=torch.from_numpy(inputs["rewards"].astype(np.float32)),
        ends=torch.from_numpy(inputs["ends"].astype(np.bool_)),
        mask=torch.from_numpy(inputs["mask_padding"].astype(np.bool_)),
        tasks=torch.from_numpy(inputs["tasks"].astype(np.int64)),
        legal=torch.from_numpy(np.stack(known)),
    )


def _games(games: Sequence[str], path: Path) -> list[NDArray[np.bool_]]:
    try:
        return [get_game(name).action_mask for name in games]
    except UsageError as error:
        raise DataError(f"{path}: {error}") from error
