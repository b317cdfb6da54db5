"""Frames in, actions out: memory, tokenizer, planner, and the folder that an agent is kept in.

An agent folder holds ``tokenizer.safetensors``, ``model.safetensors``, ``config.json`` and, if there is a draft head,
``draft.safetensors``.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
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

from jowa.agent_folder import FORMAT, read_config, read_sizes
from jowa.card import CARD, CardFacts, model_card
from jowa.config import TOKENS_PER_FRAME, config_from_dict
from jowa.devices import choose_device, choose_precision
from jowa.errors import CheckpointError, UsageError
from jowa.files import atomic_write_text
from jowa.games import get_game, task_id
from jowa.hub import find_agent, upload
from jowa.model import WorldActionModel
from jowa.planner import Context, DraftHead, Engine, Plan, Planner, PlannerConfig, make_engine, make_planner
from jowa.tokenizer import Tokenizer
from jowa.weights import halved, load_weights, save_weights


@dataclass(frozen=True)
class GamePlanning:
    """What is different in one game, as the paper chooses context and width for each."""

    context: int
    """Steps of memory to plan from."""
    horizon: int
    """Imagined steps; 0: the action of the highest Q."""
    td_lambda: float | None = None
    """Share of a plan's score that its imagined states have; None: the planner's own."""


@dataclass(frozen=True)
class Planning:
    """How an agent plays unless told otherwise."""

    planner: PlannerConfig = field(default_factory=PlannerConfig)
    context: int = 4
    """Steps of memory to plan from."""
    games: Mapping[str, GamePlanning] = field(default_factory=dict)
    """Games that are played otherwise (python -m jowa.tune)."""

    def of(self, game: str) -> Planning:
        """How ``game`` is played."""
        own = self.games.get(game)
        if own is None:
            return Planning(self.planner, self.context)
        td_lambda = self.planner.td_lambda if own.td_lambda is None else own.td_lambda
        return Planning(dataclasses.replace(self.planner, horizon=own.horizon, td_lambda=td_lambda), own.context)


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

    def save(self, folder: Path, half: bool = False) -> None:
        """Write the agent folder; each file atomically, ``config.json`` last.

        ``half``: store float32 weights as float16, in half the bytes; what is loaded then is rounded to 11 bits.
        Both weight files name the tokenizer, so that a save that was killed between them is noticed by :meth:`load`.
        """
        # As it will be when loaded: files of tokens, and the weights themselves, name the tokenizer by its weights.
        tokenizer = copy.deepcopy(self.tokenizer).half().float() if half else self.tokenizer
        states = {"tokenizer": self.tokenizer.playing_state(), "model": self.model.state_dict()}
        if self.draft_head is not None:
            states["draft"] = self.draft_head.state_dict()
        for name, state in states.items():
            path = folder / f"{name}.safetensors"
            save_weights(halved(state) if half else state, path, tokenizer.fingerprint())
        if self.draft_head is None:
            (folder / "draft.safetensors").unlink(missing_ok=True)
        self.save_planning(folder)

    def save_planning(self, folder: Path) -> None:
        """Write ``config.json`` alone: how the agent plays, beside what it is."""
        config = {
            "format": FORMAT,
            "tokenizer": dataclasses.asdict(self.tokenizer.config),
            "model": dataclasses.asdict(self.model.config),
            "tasks": self.tasks,
            "planning": dataclasses.asdict(self.planning),
        }
        atomic_write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")

    def save_pretrained(self, folder: Path | str, facts: CardFacts | None = None, half: bool = False) -> None:
        """:meth:`save`, and ``README.md``, the agent's card on a model hub, with ``facts`` that the agent itself does
        not know; a card that is there is kept unless ``facts`` are given."""
        folder = Path(folder)
        self.save(folder, half)
        if facts is not None or not (folder / CARD).exists():
            card = model_card(self.tokenizer.config, self.model.config, list(self.tasks), facts or CardFacts())
            atomic_write_text(folder / CARD, card)

    def push_to_hub(
        self, repo_id: str, facts: CardFacts | None = None, half: bool = False, private: bool | None = None,
        revision: str | None = None, message: str = "Upload an agent of jowa", token: str | None = None,
    ) -> str:  # fmt: skip
        """Put the agent on the Hugging Face hub as ``repo_id`` (``owner/name``), made if absent; its address there.

        ``private``: None as your account has it; ``revision``: a branch; ``token``: None the one you logged in with;
        the rest as for :meth:`save_pretrained`, and so a card that is on the hub is kept unless ``facts`` are given.
        Raises :class:`UsageError` without huggingface_hub, :class:`CheckpointError` when the hub refuses.
        """
        with tempfile.TemporaryDirectory(prefix="jowa-agent-") as folder:
            self.save_pretrained(folder, facts, half)
            return upload(Path(folder), repo_id, facts is None, private, revision, message, token)

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
            save_weights(self.draft_head.state_dict(), path, self.tokenizer.fingerprint())

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", precision: str = "auto") -> Agent:
        """Read an agent folder onto ``device`` (``auto``, ``cpu``, ``cuda``, ``cuda:N``).

        ``precision``: ``float32``, ``bfloat16``, or ``auto`` (bfloat16 on a GPU).  Raises
        :class:`CheckpointError` when a file is missing, damaged or of other sizes than ``config.json`` says.
        """
        folder = Path(folder)
        tokenizer_config, model_config, tasks = read_sizes(folder)
        config, where = read_config(folder), str(folder / "config.json")
        place = choose_device(device)
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
        planning = planning_from_dict(config["planning"], where)
        autocast = choose_precision(precision, place)
        agent = cls(tokenizer.to(place), model.to(place), tasks, autocast, planning)
        if (folder / "draft.safetensors").exists():
            agent.load_draft_head(folder)
        return agent

    @classmethod
    def from_pretrained(
        cls, name: Path | str, revision: str | None = None, device: str = "auto", precision: str = "auto",
        token: str | None = None,
    ) -> Agent:  # fmt: skip
        """:meth:`load` what ``name`` means to :func:`jowa.hub.find_agent`: a folder, ``demo``, or ``owner/name`` on
        the Hugging Face hub, there at ``revision`` (a branch, tag or commit)."""
        return cls.load(find_agent(name, revision, token), device, precision)

    def reset(self, game: str, seed: int | None = None) -> None:
        """Begin an episode of ``game`` for :meth:`act`.  Play is deterministic: ``seed`` changes nothing."""
        del seed
        own = self.planning.of(game)
        self._player = self.player([game], own.planner, own.context)

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


def read_planning(folder: Path) -> Planning:
    """How the agent in ``folder`` plays by itself; :class:`CheckpointError` as of loading."""
    return planning_from_dict(read_config(folder).get("planning"), str(folder / "config.json"))


def planning_from_dict(values: object, where: str) -> Planning:
    """:class:`Planning` from ``config.json``; :class:`CheckpointError` for anything else."""
    if not isinstance(values, dict) or set(values) - {"games"} != {"planner", "context"}:
        raise CheckpointError(f"{where}: planning is {values!r}, expected planner and context")
    context, games = values["context"], values.get("games", {})
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise CheckpointError(f"{where}: context is {context!r}, expected at least 1 step")
    if not isinstance(games, dict):
        raise CheckpointError(f"{where}: games of planning is {games!r}, expected games with context and horizon")
    try:
        own = {game: _game_planning(game, found, where) for game, found in games.items()}
        return Planning(config_from_dict(PlannerConfig, values["planner"], where), context, own)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _game_planning(game: str, values: object, where: str) -> GamePlanning:
    get_game(game)
    if not isinstance(values, dict) or set(values) - {"td_lambda"} != {"context", "horizon"}:
        raise CheckpointError(
            f"{where}: planning of {game} is {values!r}, expected context and horizon, and td_lambda if it has its own"
        )
    own = config_from_dict(GamePlanning, values, where)
    if own.context < 1 or own.horizon < 0:
        raise CheckpointError(
            f"{where}: {game} is planned with context {own.context} and horizon {own.horizon}, expected 1 and 0 or more"
        )
    if own.td_lambda is not None and not 0 <= own.td_lambda <= 1:
        raise CheckpointError(f"{where}: {game} is planned with td_lambda {own.td_lambda}, expected 0 to 1")
    return own
