"""Frames in, actions out: memory, tokenizer, planner, and the folder that an agent is kept in.

An agent folder holds ``tokenizer.safetensors``, ``model.safetensors``, ``config.json`` and, if there is a draft head,
``draft.safetensors``.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.config import TOKENS_PER_FRAME, ModelConfig, TokenizerConfig, config_from_dict
from jowa.devices import choose_device, choose_precision
from jowa.errors import CheckpointError, UsageError
from jowa.files import atomic_write_text
from jowa.games import get_game, task_id
from jowa.model import WorldActionModel
from jowa.planner import Context, DraftHead, Engine, Plan, Planner, PlannerConfig, make_engine, make_planner
from jowa.tokenizer import Tokenizer
from jowa.weights import load_weights, save_weights

FORMAT = 1
"""Version of the agent folder."""


@dataclass(frozen=True)
class Planning:
    """How an agent plays unless told otherwise."""

    planner: PlannerConfig = field(default_factory=PlannerConfig)
    context: int = 4
    """Steps of memory to plan from."""


class Agent:
    """A tokenizer and a world-action model in evaluation mode, with the task ids they were trained under."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: WorldActionModel,
        tasks: Mapping[str, int] | None = None,
        autocast: torch.dtype | None = None,
        planning: Planning | None = None,
        draft_head: DraftHead | None = None,
    ) -> None:
        """``tasks``: game name to task id, for the games trained on; ``autocast``: dtype of the computation;
        ``planning``: how to play by default; ``draft_head``: guesses imagined frames, which makes planning faster."""
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.model = model.eval().requires_grad_(False)
        self.tasks = dict(tasks or {})
        if tokenizer.config.vocab_size != model.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.config.vocab_size} tokens and the model expects "
                f"{model.config.vocab_size}: they are of different agents"
            )
        self.autocast = autocast
        self.planning = planning or Planning()
        self.draft_head = None if draft_head is None else draft_head.eval().requires_grad_(False)
        self._player: Player | None = None
        self._engine: Engine | None = None
        self._making = Lock()

    @property
    def engine(self) -> Engine:
        """What rolls the model forward, shared by this agent's players; it took the weights when it was first asked
        for."""
        with self._making:  # players may be made in several threads, and an engine may hold a copy of the weights
            if self._engine is None:
                self._engine = make_engine(self.model, self.autocast)
            return self._engine

    def planner(self, config: PlannerConfig) -> Planner:
        """Somebody who chooses actions as ``config`` says."""
        return make_planner(self.model, config, self.autocast, self.engine, self.draft_head)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.model.position_embedding.weight.device

    def __deepcopy__(self, memo: dict[int, object]) -> Agent:
        """Itself: playing does not change an agent, and Gymnasium copies the arguments of environments."""
        return self

    def task_id(self, game: str) -> int:
        """The task id that ``game`` was trained under; failing that the paper's borrowed one, or its own."""
        return task_id(game, self.tasks)

    def encode(self, frames: NDArray[np.uint8]) -> Tensor:
        """Tokens int64 (..., 36) on the agent's device, in its precision, of ``frames`` uint8 (..., 84, 84)."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return self.tokenizer.encode(torch.from_numpy(frames).to(self.device))

    @torch.inference_mode()
    def decode(self, tokens: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Frames uint8 (..., 84, 84) as the tokenizer shows ``tokens`` (..., 36)."""
        pixels = self.tokenizer.decode(torch.from_numpy(tokens.astype(np.int64)).to(self.device))
        return (pixels * 255).round().byte().cpu().numpy()

    @torch.inference_mode()
    def value_distributions(self, context: Context) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The critic at the last frames of R contexts: atoms float32 (Z,), probabilities float32 (R, E, 18, Z) of each
        member of its ensemble."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits = self.model(context.tokens, context.actions, context.tasks).q
        config, rows = self.model.config, torch.arange(len(context.lengths), device=self.device)
        probabilities = logits[:, rows, context.lengths - 1].float().softmax(-1).transpose(0, 1)
        atoms = np.linspace(config.v_min, config.v_max, config.num_atoms, dtype=np.float32)
        return atoms, probabilities.cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write the agent folder; each file atomically, ``config.json`` last.

        Both weight files name the tokenizer, so that a save that was killed between them is noticed by :meth:`load`.
        """
        for name, module in {"tokenizer": self.tokenizer, "model": self.model}.items():
            self._save_weights(module, folder / f"{name}.safetensors")
        self.save_draft_head(folder)
        config = {
            "format": FORMAT,
            "tokenizer": dataclasses.asdict(self.tokenizer.config),
            "model": dataclasses.asdict(self.model.config),
            "tasks": self.tasks,
            "planning": dataclasses.asdict(self.planning),
        }
        atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")

    def add_draft_head(self, draft_head: DraftHead) -> None:
        """Let ``draft_head`` guess imagined frames from now on, for players made later."""
        self.draft_head = draft_head.to(self.device).eval().requires_grad_(False)

    def load_draft_head(self, folder: Path) -> None:
        """Take the draft head of the agent folder; one of another agent would only guess badly."""
        head = DraftHead(self.model.config)
        load_weights(head, folder / "draft.safetensors")
        self.add_draft_head(head)

    def save_draft_head(self, folder: Path) -> None:
        """Write (or, without one, remove) the draft head in the agent folder alone."""
        path = folder / "draft.safetensors"
        if self.draft_head is None:
            path.unlink(missing_ok=True)
        else:
            self._save_weights(self.draft_head, path)

    def _save_weights(self, module: torch.nn.Module, path: Path) -> None:
        """Write ``module`` atomically, with the fingerprint of the agent's tokenizer."""
        state = self.tokenizer.playing_state() if module is self.tokenizer else module.state_dict()
        save_weights(state, path, self.tokenizer.fingerprint())

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", precision: str = "auto") -> Agent:
        """Read an agent folder onto ``device`` (``auto``, ``cpu``, ``cuda``, ``cuda:N``).

        ``precision``: ``float32``, ``bfloat16``, or ``auto`` (bfloat16 on a GPU).  Raises
        :class:`CheckpointError` when a file is missing, damaged or of other sizes than ``config.json`` says.
        """
        folder = Path(folder)
        config = _read_config(folder)
        place = choose_device(device)
        where = str(folder / "config.json")
        tokenizer_config = config_from_dict(TokenizerConfig, config["tokenizer"], where)
        model_config = config_from_dict(ModelConfig, config["model"], where)
        check_tasks(config["tasks"], model_config.num_tasks, where)
        try:
            tokenizer, model = Tokenizer(tokenizer_config), WorldActionModel(model_config)
        except (UsageError, RuntimeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(f"{where} describes impossible networks ({error}): restore it") from error
        trained_with = load_weights(tokenizer, folder / "tokenizer.safetensors")
        if load_weights(model, folder / "model.safetensors") != trained_with:
            raise CheckpointError(
                f"{folder} holds the tokenizer and the model of different agents, perhaps because saving was "
                "interrupted: write the agent anew"
            )
        planning = _read_planning(config["planning"], where)
        autocast = choose_precision(precision, place)
        agent = cls(tokenizer.to(place), model.to(place), config["tasks"], autocast, planning)
        if (folder / "draft.safetensors").exists():
            agent.load_draft_head(folder)
        return agent

    def reset(self, game: str, seed: int | None = None) -> None:
        """Begin an episode of ``game`` for :meth:`act`.  Play is deterministic: ``seed`` changes nothing."""
        del seed
        self._player = self.player([game], self.planning.planner, self.planning.context)

    def act(self, frame: NDArray[np.uint8]) -> int:
        """The action (of 18) for ``frame`` uint8 (84, 84), with the default planning; call :meth:`reset` first."""
        if self._player is None:
            raise UsageError("the agent does not know which game it plays: call reset(game) first")
        actions = self._player.decide([0], frame[None]).actions
        self._player.took([0], actions)
        return int(actions[0])

    def longest_context(self, planner: PlannerConfig) -> int:
        """Steps of memory that ``planner`` leaves room for in the model's context; below 1 it cannot be used."""
        return self.model.config.context_steps - planner.depth

    def player(
        self, games: Sequence[str], planner: PlannerConfig | Sequence[PlannerConfig], context: Sequence[int] | int
    ) -> Player:
        """Someone who plays one slot of each of ``games`` at once; see :class:`Player`."""
        return Player(self, games, planner, context)


@dataclass
class _Memory:
    """The last steps of one slot."""

    tokens: deque[Tensor]
    actions: deque[int]


class Player:
    """Plays S slots, each an environment of its own, in one batch; slots never influence one another.

    The context given to the planner is min(model context - horizon, steps since reset, ``context``) steps.
    """

    def __init__(
        self, agent: Agent, games: Sequence[str], planner: PlannerConfig | Sequence[PlannerConfig],
        context: Sequence[int] | int,
    ) -> None:  # fmt: skip
        """``games``: one name per slot; ``planner``: its settings, one for all or one per slot, of one name;
        ``context``: steps of memory, likewise, at least 1."""
        self._configs = [planner] * len(games) if isinstance(planner, PlannerConfig) else list(planner)
        if len(self._configs) != len(games):
            raise UsageError(f"{len(self._configs)} planner settings were given for {len(games)} slots")
        contexts = [context] * len(games) if isinstance(context, int) else list(context)
        if len(contexts) != len(games) or min(contexts, default=1) < 1:
            raise UsageError(f"context is {context}: expected at least 1, once or for each of {len(games)} slots")
        self.agent = agent
        limits = []
        for config, steps in zip(self._configs, contexts, strict=True):
            longest = agent.longest_context(config)
            if longest < 1:
                raise UsageError(
                    f"horizon {config.horizon} leaves no context: expected at most {longest + config.horizon - 1} with "
                    f"this model of {agent.model.config.context_steps} steps"
                )
            limits.append(min(longest, steps))
        self.planner = agent.planner(self._configs[0] if self._configs else PlannerConfig())
        self._memories = [_Memory(deque(maxlen=n), deque(maxlen=n)) for n in limits]
        self._tasks = torch.tensor([agent.task_id(game) for game in games], device=agent.device)
        self._legal = torch.tensor(np.stack([get_game(game).action_mask for game in games]), device=agent.device)

    def reset(self, slot: int) -> None:
        """Forget what ``slot`` saw: a new episode begins."""
        self._memories[slot].tokens.clear()
        self._memories[slot].actions.clear()

    @torch.inference_mode()
    def decide(self, slots: Sequence[int], frames: NDArray[np.uint8], keep_frames: bool = False) -> Plan:
        """A plan for ``slots``, which now see ``frames`` uint8 (len(slots), 84, 84).

        Remember the actions that were really taken with :meth:`took`.
        """
        for slot, seen in zip(slots, self.agent.encode(frames), strict=True):
            self._memories[slot].tokens.append(seen)
        configs = [self._configs[slot] for slot in slots]
        return self.planner.plan(self._context(slots), keep_frames, configs, slots)

    def took(self, slots: Sequence[int], actions: NDArray[np.int64]) -> None:
        """Remember the actions that followed the last decision."""
        for slot, action in zip(slots, actions, strict=True):
            self._memories[slot].actions.append(int(action))

    def _context(self, slots: Sequence[int]) -> Context:
        device = self.agent.device
        memories = [self._memories[slot] for slot in slots]
        longest = max(len(memory.tokens) for memory in memories)
        tokens = torch.zeros(len(slots), longest, TOKENS_PER_FRAME, dtype=torch.int64, device=device)
        actions = np.zeros((len(slots), longest), dtype=np.int64)
        for row, memory in enumerate(memories):
            seen = len(memory.tokens)
            tokens[row, :seen] = torch.stack(tuple(memory.tokens))
            # The action after the last frame is not taken yet; older ones fell out with their frames.
            if seen > 1:
                actions[row, : seen - 1] = list(memory.actions)[-(seen - 1) :]
        index = torch.tensor(list(slots), device=device)
        return Context(
            tokens,
            torch.from_numpy(actions).to(device),
            torch.tensor([len(memory.tokens) for memory in memories], device=device),
            self._tasks[index],
            self._legal[index],
        )


def read_sizes(folder: Path) -> tuple[TokenizerConfig, ModelConfig, dict[str, int]]:
    """Sizes and task ids of the agent in ``folder``, without its weights; :class:`CheckpointError` as of loading."""
    config, where = _read_config(folder), str(folder / "config.json")
    model = config_from_dict(ModelConfig, config["model"], where)
    check_tasks(config["tasks"], model.num_tasks, where)
    return config_from_dict(TokenizerConfig, config["tokenizer"], where), model, config["tasks"]


def _read_config(folder: Path) -> dict[str, Any]:
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


def _read_planning(values: object, where: str) -> Planning:
    """:class:`Planning` from ``config.json``; :class:`CheckpointError` for anything else."""
    if not isinstance(values, dict) or set(values) != {"planner", "context"}:
        raise CheckpointError(f"{where}: planning is {values!r}, expected planner and context")
    context = values["context"]
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise CheckpointError(f"{where}: context is {context!r}, expected at least 1 step")
    try:
        return Planning(config_from_dict(PlannerConfig, values["planner"], where), context)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error


def check_tasks(tasks: object, count: int, where: str) -> None:
    """Raise :class:`CheckpointError` unless ``tasks`` maps game names to task ids below ``count``."""
    if not isinstance(tasks, dict):
        raise CheckpointError(f"{where}: tasks is {tasks!r}, expected game names and their task ids")
    for game, task in tasks.items():
        if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < count:
            raise CheckpointError(f"{where}: the task id of {game} is {task!r}, expected 0 to {count - 1}")
